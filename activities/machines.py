"""What a machine's row says: waited for, and written."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from temporalio import activity

from activities.records import worker_is_stopping
from domain.cluster import ClusterState
from domain.errors import BulkheadError, Reason
from domain.machine import Instruction, MachineHealth, MachineStage
from domain.owned_operation import MachineOperation, WorkerBootstrapOperation

if TYPE_CHECKING:
    from infra.database.records.endings import OperationRecords
    from infra.database.records.machine import MachineRecords, MachineSight
    from infra.database.records.worker_bootstrap import WorkerBootstrapRecords
    from infra.database.tables import MachineRow

# Short against the 30 s between two reports, long against the cost of one look.
_POLL_SECONDS = 0.5
# Who has waited for long is asked about less often: two hundred servers that join at once would
# else keep a worker busy with looking alone. A stop of the worker waits for the pause as well.
_POLL_SHARE = 0.1
_MOST_POLL_SECONDS = 2.0

# Two reports of a server, and many looks of the keeper: what both write of a platform that was down
# is there by then.
_LOOKS_FOR = timedelta(minutes=1)

# A server that reported in the last four turns will report again.
_STILL_REPORTS = timedelta(minutes=2)

# From its last report a server removes what was installed within seconds.
_REMOVES_WITHIN = timedelta(seconds=20)

_INSTALLED = frozenset({"kubelet_started", "running"})

# Returns what is still missing, in words; None when nothing is.
Missing = Callable[["MachineSight"], str | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class WithinSeconds:
    """A step of a machine's operation that has a deadline of its own."""

    operation: MachineOperation
    seconds: int

    @property
    def workspace_id(self) -> str:
        """The workspace whose rows are looked at."""
        return self.operation.workspace_id


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineRemoved:
    """What was looked at to say that nothing of a machine is left."""

    operation: MachineOperation
    evidence: dict[str, str]
    # Of a machine in a cloud: what its account still has, and cannot be removed yet.
    left: int | None = None
    left_resources: list[dict[str, Any]] = field(default_factory=list)

    @property
    def workspace_id(self) -> str:
        """The workspace whose rows are written."""
        return self.operation.workspace_id


class MachineActivities:
    """Looks at rows that servers' reports and the keeper write. What waits ends with a cancel."""

    def __init__(
        self,
        machines: "MachineRecords",
        bootstraps: "WorkerBootstrapRecords",
        operations: "OperationRecords",
    ) -> None:
        self._machines = machines
        self._bootstraps = bootstraps
        self._operations = operations

    @activity.defn
    async def await_provisioned(self, operation: MachineOperation) -> None:
        """The customer's server exists: it has exchanged its token."""
        await self._machines.reach_stage(operation, MachineStage.PROVISIONED)

    @activity.defn
    async def await_registered(self, wait: WithinSeconds) -> None:
        """Wait until a server that was made in a cloud has exchanged its token."""
        await self._until(wait, _exchanges_token, "did not exchange its bootstrap token")
        await self._machines.reach_stage(wait.operation, MachineStage.PROVISIONED)

    @activity.defn
    async def await_bootstrapped(self, wait: WithinSeconds) -> None:
        """Wait until the server has installed everything and started its kubelet."""
        await self._until(wait, _installs, "did not finish its installation")
        await self._machines.reach_stage(wait.operation, MachineStage.BOOTSTRAPPED)

    @activity.defn
    async def await_joined(self, wait: WithinSeconds) -> None:
        """Wait until the machine's node is in the cluster."""
        await self._until(wait, _registers, "made no node in the cluster")
        await self._machines.reach_stage(wait.operation, MachineStage.JOINED)

    @activity.defn
    async def await_ready(self, wait: WithinSeconds) -> None:
        """Wait until the node is ready for pods."""
        await self._until(wait, _gets_ready, "joined, and its node did not get ready")

    @activity.defn
    async def await_returned(self, wait: WithinSeconds) -> None:
        """Wait until the node of a machine whose server was off is heard of again, and ready."""
        since = await self._machines.mark(wait.operation, "return_awaited_at")
        await self._until_heard(wait, since, "has a server again, and its node did not get ready")

    @activity.defn
    async def restart_server(self, wait: WithinSeconds) -> None:
        """Have the server restart its services; return when it was told."""
        operation = wait.operation
        await self._machines.instruct(operation, Instruction.RESTART)

        def missing(sight: "MachineSight") -> str | None:
            # The answer to the report that carries it takes it back.
            if sight.machine.instruction is not Instruction.RESTART:
                return None
            return f"the server to report, and be told to restart; {_last_report(sight.machine)}"

        await self._until(wait, missing, "did not report, and could not be told to restart")

    @activity.defn
    async def await_repaired(self, wait: WithinSeconds) -> None:
        """Wait until a node that was restarted is heard of again, and ready."""
        since = await self._machines.mark(wait.operation, f"{Instruction.RESTART}_asked_at")
        await self._until_heard(wait, since, "was restarted, and its node did not get ready")

    @activity.defn
    async def stop_restarting_server(self, wait: WithinSeconds) -> None:
        """The server shall not be told to restart any more."""
        await self._machines.take_instruction_back(wait.operation)
        await self._operations.note_waiting(wait.operation, None)

    @activity.defn
    async def uninstall_server(self, wait: WithinSeconds) -> None:
        """Tell the server to remove what was installed, and wait for it if it still reports."""
        operation = wait.operation
        since = await self._machines.instruct(operation, Instruction.UNINSTALL)
        while True:
            sight = await self._machines.look(operation)
            machine = sight.machine
            told = machine.reported_at if _reported_after(machine, since) else None
            silent = machine.reported_at is None or machine.reported_at < since - _STILL_REPORTS
            if (
                machine.uninstalled_at is not None
                or silent
                or (told is not None and sight.at > told + _REMOVES_WITHIN)
                or sight.at > since + timedelta(seconds=wait.seconds)
            ):
                break
            await self._wait(operation, f"the server to uninstall; {_last_report(machine)}")
        await self._operations.note_waiting(operation, None)

    @activity.defn
    async def revoke_bootstrap(self, operation: WorkerBootstrapOperation) -> None:
        """The token joins no server any more."""
        await self._bootstraps.revoke(operation)

    @activity.defn
    async def record_bootstrap_revoked(self, operation: WorkerBootstrapOperation) -> None:
        """The operation has done what it was asked for."""
        await self._bootstraps.reach_revoked(operation)

    @activity.defn
    async def record_machine_ready(self, operation: MachineOperation) -> None:
        """The machine is active."""
        await self._machines.reach_ready(operation)

    @activity.defn
    async def record_machine_cordoned(self, operation: MachineOperation) -> None:
        """The machine takes no new pods."""
        await self._machines.reach_schedulable(operation, schedulable=False)

    @activity.defn
    async def record_machine_uncordoned(self, operation: MachineOperation) -> None:
        """The machine takes new pods."""
        await self._machines.reach_schedulable(operation, schedulable=True)

    @activity.defn
    async def record_machine_repaired(self, operation: MachineOperation) -> None:
        """The machine does its work again."""
        await self._machines.reach_repaired(operation)

    @activity.defn
    async def record_machine_deleted(self, removed: MachineRemoved) -> None:
        """The machine is gone."""
        inventory = (
            None
            if removed.left is None
            else {"left": removed.left, "resources": removed.left_resources}
        )
        await self._machines.reach_deleted(removed.operation, removed.evidence, inventory)

    async def _until_heard(self, wait: WithinSeconds, since: datetime, failed: str) -> None:
        def missing(sight: "MachineSight") -> str | None:
            heard = sight.machine.node_seen_at
            if heard is None or heard <= since:
                return f"the kubelet to be heard again; {_last_report(sight.machine)}"
            return _gets_ready(sight)

        await self._until(wait, missing, failed)

    async def _until(self, wait: WithinSeconds, missing: Missing, failed: str) -> None:
        """Look until nothing is missing.

        The deadline counts from the step's first attempt, however often its worker ended. An
        attempt that begins after it, or shortly before, still looks for a minute: whoever writes
        what was reached meanwhile may have been down as well.

        Raises:
            BulkheadError: DEADLINE_EXCEEDED, with what the server reported last.
        """
        limit = timedelta(seconds=wait.seconds)
        deadline = activity.info().scheduled_time + limit
        first: datetime | None = None
        noted: str | None = None
        while True:
            sight = await self._machines.look(wait.operation)
            first = first or sight.at
            what = missing(sight)
            if what is None:
                break
            if sight.at > max(deadline, first + min(limit, _LOOKS_FOR)):
                raise _too_late(sight.machine, failed, wait.seconds, what)
            await self._wait(wait.operation, what, noted)
            noted = what
        await self._operations.note_waiting(wait.operation, None)

    async def _wait(self, operation: MachineOperation, what: str, noted: str | None = None) -> None:
        if activity.is_worker_shutdown():
            raise worker_is_stopping()
        if what != noted:
            await self._operations.note_waiting(operation, what)
        waited = (datetime.now(UTC) - activity.info().scheduled_time).total_seconds()
        await asyncio.sleep(min(max(_POLL_SECONDS, waited * _POLL_SHARE), _MOST_POLL_SECONDS))


def _exchanges_token(sight: "MachineSight") -> str | None:
    if sight.machine.identity_key is not None:
        return None
    return _cluster(sight) or "the server to boot and exchange its bootstrap token"


def _installs(sight: "MachineSight") -> str | None:
    machine = sight.machine
    if machine.reported_phase in _INSTALLED or machine.node_conditions is not None:
        return None
    if machine.reported_phase == "failed":
        return (
            f"the bootstrap command to be run again on the server, which failed "
            f"({_what_it_said(machine)})"
        )
    return _clock(machine) or f"the server to install its services; {_last_report(machine)}"


def _registers(sight: "MachineSight") -> str | None:
    machine = sight.machine
    if machine.node_conditions is not None:
        return None
    return (
        _cluster(sight)
        or _clock(machine)
        or f"the kubelet to make its node in the cluster; {_last_report(machine)}"
    )


def _gets_ready(sight: "MachineSight") -> str | None:
    machine = sight.machine
    if machine.node_ready:
        return None
    conditions = machine.node_conditions or {}
    said = conditions.get("Ready", {}).get("message") or _last_report(machine)
    return _cluster(sight) or _clock(machine) or f"the node to be ready; {said}"


def _cluster(sight: "MachineSight") -> str | None:
    if sight.cluster_state is ClusterState.ACTIVE:
        return None
    return f"the cluster to be active; it is {sight.cluster_state}"


def _clock(machine: "MachineRow") -> str | None:
    if machine.health is not MachineHealth.CLOCK_OFF:
        return None
    return f"the clock of the server to be right; it is {machine.clock_offset_seconds} s off"


def _reported_after(machine: "MachineRow", moment: datetime) -> bool:
    return machine.reported_at is not None and machine.reported_at > moment


def _last_report(machine: "MachineRow") -> str:
    if machine.reported_at is None:
        return "it has not reported yet"
    return f"last report at {machine.reported_at:%H:%M:%S} UTC: {_what_it_said(machine)}"


def _what_it_said(machine: "MachineRow") -> str:
    code = f" {machine.reported_code}" if machine.reported_code else ""
    message = f", {machine.reported_message}" if machine.reported_message else ""
    return f"{machine.reported_phase}{code}{message}"


def _too_late(machine: "MachineRow", failed: str, seconds: int, missing: str) -> BulkheadError:
    return BulkheadError(
        Reason.DEADLINE_EXCEEDED,
        f"The server {machine.hostname} {failed} within {seconds} s ({_last_report(machine)}). "
        f"Missing was {missing}. Look at it with `bulkhead-node check` and "
        "`journalctl -u 'bulkhead-*'` on the server.",
        metadata={"phase": machine.reported_phase or "none"},
        retryable=False,
    )
