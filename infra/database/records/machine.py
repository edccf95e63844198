"""The transactions with which workflows write what a machine reached.

What a workflow has to remember between attempts of its steps (when a drain began, which pods it
removed by force) is written into its operation's `placement`. Each transaction takes the machine's
row lock first and may be repeated: an operation that has ended stays as it ended.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.cluster import ClusterState
from domain.machine import Instruction, MachineStage, MachineState
from domain.operation import OperationState, OperationType
from domain.owned_operation import MachineOperation
from infra.database.engine import Database
from infra.database.records.operation import end_operation, hold, taken_over
from infra.database.records.suspension import forget_suspension
from infra.database.tables import ClusterRow, MachineRow, OperationRow

# Keys of `placement`, beside where the control plane is.
_FORCED: Final = ("pods_deleted_without_eviction", "volumes_detached_by_force")
# A delete is not to wait for a cluster that does not answer, and which of its steps did not.
FORCED: Final = "forced"
_SKIPPED: Final = "steps_skipped"


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineSight:
    """A machine, and the state of its cluster, at one moment of the database's clock."""

    machine: MachineRow
    cluster_state: ClusterState
    at: datetime


class MachineRecords:
    """The transactions of one worker, in the workspace of the operation at hand."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def look(self, operation: MachineOperation) -> MachineSight:
        """Read what is known of an operation's machine.

        Raises:
            BulkheadError: ABORTED when the machine is gone.
        """
        found = await self.find(operation)
        if found is None:
            raise taken_over()
        return found

    async def find(self, operation: MachineOperation) -> MachineSight | None:
        """Read what is known of an operation's machine; None when it is gone."""
        async with self._database.workspace(operation.workspace_id) as session:
            query = select(MachineRow, ClusterRow.state, func.clock_timestamp())
            found = (
                await session.exec(
                    query.where(
                        MachineRow.id == operation.owner_id, ClusterRow.id == MachineRow.cluster_id
                    )
                )
            ).one_or_none()
        if found is None:
            return None
        machine, cluster_state, at = found
        return MachineSight(machine=machine, cluster_state=ClusterState(cluster_state), at=at)

    async def is_forced(self, operation: MachineOperation) -> bool:
        """Whether the machine shall go although its cluster may never answer again.

        That counts for whatever its delete took the machine over from as well.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            query = select(OperationRow).join(
                MachineRow, col(MachineRow.active_operation_id) == col(OperationRow.id)
            )
            holder = (
                await session.exec(query.where(MachineRow.id == operation.owner_id))
            ).one_or_none()
        return holder is not None and FORCED in holder.placement

    async def reach_stage(self, operation: MachineOperation, stage: MachineStage) -> None:
        """The machine has come so far.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            _, machine = await _hold(session, operation)
            if machine is not None and machine.stage is not stage:
                machine.stage = stage
                _change(machine)

    async def mark(self, operation: MachineOperation, name: str) -> datetime:
        """Return when this was first called with the name, on the database's clock."""
        async with self._database.workspace(operation.workspace_id) as session:
            row, _ = await hold(session, operation)
            return await _mark(session, row, name)

    async def remember(self, operation: MachineOperation, name: str, things: Iterable[str]) -> None:
        """Add to what the operation's response will list under the name."""
        async with self._database.workspace(operation.workspace_id) as session:
            row, _ = await hold(session, operation)
            listed = sorted({*row.placement.get(name, []), *things})
            row.placement = {**row.placement, name: listed}

    async def instruct(self, operation: MachineOperation, instruction: Instruction) -> datetime:
        """Have the server told something once with this operation; return since when.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, machine = await _hold(session, operation)
            name = f"{instruction}_asked_at"
            is_first = name not in row.placement
            since = await _mark(session, row, name)
            if machine is not None and is_first:
                machine.instruction = instruction
                _change(machine)
            return since

    async def take_instruction_back(self, operation: MachineOperation) -> None:
        """The server was told, or shall not be told any more."""
        async with self._database.workspace(operation.workspace_id) as session:
            _, machine = await hold(session, operation)
            if isinstance(machine, MachineRow) and machine.instruction is not Instruction.NONE:
                machine.instruction = Instruction.NONE
                _change(machine)

    async def revoke(self, operation: MachineOperation) -> None:
        """From now on nothing that the server signs counts any more."""
        async with self._database.workspace(operation.workspace_id) as session:
            _, machine = await hold(session, operation)
            if isinstance(machine, MachineRow) and machine.credentials_revoked_at is None:
                machine.credentials_revoked_at = datetime.now(UTC)
                _change(machine)

    async def reach_ready(self, operation: MachineOperation) -> None:
        """The machine has joined and is ready.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, machine = await _hold(session, operation)
            if machine is None:
                return
            machine.state, machine.stage = MachineState.ACTIVE, MachineStage.READY
            _unlock(machine)
            # The contract has a place for what a cloud calls the server; nobody else names others.
            provider_id = machine.provider_id or machine.id
            await _succeed(session, operation, row, provider_id=provider_id)

    async def reach_schedulable(self, operation: MachineOperation, *, schedulable: bool) -> None:
        """The machine takes new pods, or takes none.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, machine = await _hold(session, operation)
            if machine is None:
                return
            machine.schedulable = schedulable
            _unlock(machine)
            await _succeed(session, operation, row)

    async def reach_repaired(self, operation: MachineOperation) -> None:
        """The server restarted its services, and its node is ready.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, machine = await _hold(session, operation)
            if machine is None:
                return
            machine.instruction = Instruction.NONE
            _unlock(machine)
            await _succeed(session, operation, row)

    async def reach_deleted(
        self,
        operation: MachineOperation,
        evidence: Mapping[str, str],
        inventory: Mapping[str, Any] | None = None,
    ) -> None:
        """The machine is gone; what was looked at to say so is kept with the operation.

        Args:
            operation: which.
            evidence: what was found of it in its cluster.
            inventory: what was found of it in its account, if it was made in one.

        Raises:
            BulkheadError: ABORTED when the operation does not hold the machine's lock.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, machine = await _hold(session, operation)
            if machine is None:
                return
            forced = {name: row.placement.get(name, []) for name in _FORCED}
            if _SKIPPED in row.placement:
                forced[_SKIPPED] = row.placement[_SKIPPED]
            uninstalled = machine.uninstalled_at is not None
            found = {} if inventory is None else {"inventory": dict(inventory)}
            await session.delete(machine)
            await _succeed(
                session,
                operation,
                row,
                evidence=dict(evidence),
                server_uninstalled=uninstalled,
                **forced,
                **found,
            )


async def return_to_before(
    session: AsyncSession, operation_type: OperationType, machine: MachineRow
) -> None:
    """Give the machine the state that it had before an operation that is undone; unlock it."""
    match operation_type:
        case OperationType.MACHINE_CREATE:
            await session.delete(machine)
            return
        case OperationType.MACHINE_DELETE:
            # Cancelled before its first effect, with no other operation in between.
            asleep = machine.suspension_id is not None
            machine.state = MachineState.SUSPENDED if asleep else MachineState.ACTIVE
        case OperationType.MACHINE_REPAIR:
            machine.instruction = Instruction.NONE
        case OperationType.MACHINE_SUSPEND:
            machine.state = MachineState.ACTIVE
            await forget_suspension(session, machine)
        case OperationType.MACHINE_RESUME:
            machine.state = MachineState.SUSPENDED
            machine.provider_id = machine.public_ip = None
        case _:
            pass
    _unlock(machine)


async def _mark(session: AsyncSession, row: OperationRow, name: str) -> datetime:
    stored = row.placement.get(name)
    if stored is not None:
        return datetime.fromisoformat(stored)
    now: datetime = (await session.exec(select(func.clock_timestamp()))).one()
    row.placement = {**row.placement, name: now.isoformat()}
    return now


def _change(machine: MachineRow) -> None:
    machine.version += 1
    machine.updated_at = datetime.now(UTC)


def _unlock(machine: MachineRow) -> None:
    machine.active_operation_id = None
    _change(machine)


async def _hold(
    session: AsyncSession, operation: MachineOperation
) -> tuple[OperationRow, MachineRow | None]:
    """Lock the rows; no machine when the operation has ended and nothing is left to do."""
    row, machine = await hold(session, operation)
    if row.state is not OperationState.RUNNING:
        return row, None
    if not isinstance(machine, MachineRow) or machine.active_operation_id != row.id:
        raise taken_over()
    return row, machine


async def _succeed(
    session: AsyncSession,
    operation: MachineOperation,
    row: OperationRow,
    **facts: Any,  # noqa: ANN401 - JSON
) -> None:
    row.response = {"type": row.type, "machine_id": row.owner_id, **facts}
    await end_operation(session, operation, row, OperationState.SUCCEEDED)
