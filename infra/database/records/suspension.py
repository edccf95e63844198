"""Suspensions of machines: planned by requests, carried out by workflows, ended by time."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import func, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import Caller, system_caller
from domain.cloud import SNAPSHOT, Snapshot, resource_name
from domain.compute import SNAPSHOT_KEPT_DAYS, SuspensionState, allowed_place
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.machine import MachineStage, MachineState
from domain.operation import OperationState, OperationType
from domain.owned_operation import MachineOperation
from infra.database.engine import Database
from infra.database.queries.compute import allowed_places
from infra.database.queries.stack import SLEEPING
from infra.database.records.audit import add_audit_event
from infra.database.records.new_rows import Adds
from infra.database.records.operation import end_operation, hold, plan_operation, taken_over
from infra.database.tables import (
    ClusterRow,
    MachineRow,
    OperationRow,
    StackRow,
    SuspensionEventRow,
)

SCHEDULE: Final = "expire-snapshots"

# In these a suspension's snapshot is wanted, from when it is about to be made.
WANTS_SNAPSHOT: Final = (SuspensionState.IN_PROGRESS, SuspensionState.COMPLETED)

_KEPT: Final = timedelta(days=SNAPSHOT_KEPT_DAYS)

# Of one pass; the next one goes on.
_EXPIRIES_A_PASS: Final = 500

log = structlog.get_logger(__name__)


def plan_suspension(
    session: Adds,
    machine: MachineRow,
    cluster: ClusterRow,
    caller: Caller,
    *,
    reason: str,
    request: dict[str, Any],
) -> OperationRow:
    """Plan that a machine is suspended; the caller holds its lock, it is active and a cloud's."""
    now = datetime.now(UTC)
    event = SuspensionEventRow(
        workspace_id=machine.workspace_id,
        id=new_id(Prefix.SUSPENSION),
        machine_id=machine.id,
        state=SuspensionState.IN_PROGRESS,
        reason=reason,
        started_at=now,
        expires_at=now + _KEPT,
    )
    session.add(event)
    machine.suspension_id = event.id
    machine.state = MachineState.SUSPENDING
    kind = OperationType.MACHINE_SUSPEND
    return plan_operation(session, kind, machine, caller, request=request, cluster=cluster)


def plan_resumption(
    session: Adds,
    machine: MachineRow,
    event: SuspensionEventRow,
    cluster: ClusterRow,
    caller: Caller,
    *,
    request: dict[str, Any],
) -> OperationRow:
    """Plan that a suspended machine gets a server again; the caller holds its lock.

    Raises:
        BulkheadError: FAILED_PRECONDITION when its snapshot is kept no more.
    """
    if event.state is not SuspensionState.COMPLETED or event.expires_at <= datetime.now(UTC):
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"The machine's snapshot was kept until {event.expires_at:%Y-%m-%d} and is gone. "
            "Delete the machine, and create another one.",
            metadata={"suspension_id": event.id, "state": event.state},
        )
    machine.state = MachineState.RESUMING
    kind = OperationType.MACHINE_RESUME
    return plan_operation(session, kind, machine, caller, request=request, cluster=cluster)


def snapshot_name_of(suspension_id: str) -> str:
    """Return the name at the provider of the snapshot of a suspension."""
    return resource_name(suspension_id, SNAPSHOT)


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspension:
    """A machine's current suspension, as the steps of an operation need it.

    Attributes:
        stack_id: whose server was kept; None while there is no snapshot.
        snapshot_id: the provider's; None while there is none.
        expired: the snapshot is kept no more.
    """

    id: str
    stack_id: str | None
    snapshot_id: str | None
    expired: bool

    @property
    def snapshot_name(self) -> str:
        """The name of its snapshot at the provider."""
        return snapshot_name_of(self.id)


class SuspensionRecords:
    """The transactions of one worker, in the workspace of the operation at hand."""

    def __init__(self, database: Database, sweeper: Database) -> None:
        self._database = database
        self._sweeper = sweeper

    async def current(self, operation: MachineOperation) -> Suspension | None:
        """Read the machine's suspension; None when it is not suspended or is gone."""
        async with self._database.workspace(operation.workspace_id) as session:
            query = select(SuspensionEventRow).where(
                MachineRow.id == operation.owner_id,
                SuspensionEventRow.id == MachineRow.suspension_id,
            )
            row = (await session.exec(query)).one_or_none()
            if row is None:
                return None
            return Suspension(
                id=row.id,
                stack_id=row.stack_id,
                snapshot_id=row.snapshot_id,
                expired=row.state is SuspensionState.EXPIRED,
            )

    async def kept_stack(self, operation: MachineOperation) -> str | None:
        """Return the stack whose server's disk is kept for the machine; None: none is wanted."""
        async with self._database.workspace(operation.workspace_id) as session:
            query = select(SuspensionEventRow.stack_id).where(
                MachineRow.id == operation.owner_id,
                col(MachineRow.state).in_(SLEEPING),
                SuspensionEventRow.id == MachineRow.suspension_id,
                col(SuspensionEventRow.state).in_(WANTS_SNAPSHOT),
            )
            return (await session.exec(query)).one_or_none()

    async def keep_no_more(self, operation: MachineOperation) -> None:
        """Say that nobody wants the disk that is kept for the machine, before it is removed."""
        async with self._database.workspace(operation.workspace_id) as session:
            mine = select(MachineRow.suspension_id).where(
                MachineRow.id == operation.owner_id,
                MachineRow.active_operation_id == operation.operation_id,
            )
            await session.execute(
                update(SuspensionEventRow)
                .where(col(SuspensionEventRow.id).in_(mine))
                .values(stack_id=None)
            )

    async def keep_of(self, operation: MachineOperation, stack: StackRow) -> Suspension:
        """Say whose server is about to be kept: the intent, before the provider is asked.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over; FAILED_PRECONDITION
                when the workspace lets no snapshot be where the server is.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            _, _, event = await _hold(session, operation)
            if event is None:
                raise taken_over()
            allowed = await allowed_places(session)
            if allowed is not None and allowed_place(stack.provider, stack.place) not in allowed:
                raise BulkheadError(
                    Reason.FAILED_PRECONDITION,
                    f"The workspace's compute policy does not allow {stack.place}, so that no "
                    "snapshot may be kept there. Allow it, or delete the machine.",
                    metadata={"place": stack.place},
                )
            event.stack_id = stack.id
            return Suspension(
                id=event.id, stack_id=stack.id, snapshot_id=event.snapshot_id, expired=False
            )

    async def record_snapshot(self, operation: MachineOperation, snapshot: Snapshot) -> None:
        """The provider has the snapshot.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            _, _, event = await _hold(session, operation)
            if event is not None:
                event.snapshot_id = snapshot.id
                event.size_gb = snapshot.size_gb
                event.monthly_cost_cents = snapshot.monthly_cost_cents
                event.version += 1

    async def reach_suspended(self, operation: MachineOperation) -> None:
        """The machine has no server any more, and a snapshot.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, machine, event = await _hold(session, operation)
            if machine is None or event is None:
                return
            machine.state = MachineState.SUSPENDED
            machine.provider_id = machine.public_ip = machine.server_missing_since = None
            _unlock(machine)
            event.state = SuspensionState.COMPLETED
            event.expires_at = datetime.now(UTC) + _KEPT
            event.version += 1
            row.response = {
                "type": row.type,
                "machine_id": machine.id,
                "suspension_id": event.id,
            }
            await end_operation(session, operation, row, OperationState.SUCCEEDED)

    async def reach_resumed(self, operation: MachineOperation) -> None:
        """The machine does its work again, and its snapshot is gone.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, machine, event = await _hold(session, operation)
            if machine is None:
                return
            machine.state, machine.stage = MachineState.ACTIVE, MachineStage.READY
            machine.suspension_id = None
            _unlock(machine)
            if event is not None:
                event.state = SuspensionState.RESUMED
                event.resumed_at = datetime.now(UTC)
                event.version += 1
            row.response = {"type": row.type, "machine_id": machine.id}
            await end_operation(session, operation, row, OperationState.SUCCEEDED)

    async def expire(self) -> int:
        """Mark the snapshots whose time is over and return how many; the leak sweep removes them.

        The machine stays, and can only be deleted.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the database does not answer.
        """
        async with self._sweeper.transaction() as session:
            query = select(SuspensionEventRow.workspace_id, SuspensionEventRow.machine_id).where(
                SuspensionEventRow.state == SuspensionState.COMPLETED,
                col(SuspensionEventRow.expires_at) < func.now(),
            )
            due = (await session.exec(query.limit(_EXPIRIES_A_PASS))).all()
        return sum([await self._expire(*found) for found in due])

    async def _expire(self, workspace_id: str, machine_id: str) -> bool:
        async with self._database.workspace(workspace_id) as session:
            # The machine first, as every operation does: a resume comes before this or after it.
            query = select(MachineRow).where(
                MachineRow.id == machine_id,
                MachineRow.state == MachineState.SUSPENDED,
                col(MachineRow.active_operation_id).is_(None),
            )
            machine = (await session.exec(query.with_for_update())).one_or_none()
            event = None if machine is None else await _event_of(session, machine)
            if machine is None or event is None or event.state is not SuspensionState.COMPLETED:
                return False
            event.state = SuspensionState.EXPIRED
            event.version += 1
            add_audit_event(
                session,
                system_caller(workspace_id, SCHEDULE),
                "machine.snapshot.expire",
                "machine",
                machine_id,
                outcome="succeeded",
                details={"suspension_id": event.id, "kept_until": f"{event.expires_at:%Y-%m-%d}"},
            )
            log.warning("a snapshot is kept no more", machine_id=machine_id, event_id=event.id)
            return True


async def forget_suspension(session: AsyncSession, machine: MachineRow) -> None:
    """The machine was not suspended after all: nothing of the attempt is left."""
    event = await _event_of(session, machine)
    if event is not None:
        await session.delete(event)
    machine.suspension_id = None


async def _event_of(session: AsyncSession, machine: MachineRow) -> SuspensionEventRow | None:
    if machine.suspension_id is None:
        return None
    key = (machine.workspace_id, machine.suspension_id)
    return await session.get(SuspensionEventRow, key, with_for_update=True)


def _unlock(machine: MachineRow) -> None:
    machine.active_operation_id = None
    machine.version += 1
    machine.updated_at = datetime.now(UTC)


async def _hold(
    session: AsyncSession, operation: MachineOperation
) -> tuple[OperationRow, MachineRow | None, SuspensionEventRow | None]:
    """Lock the rows; no machine and no event when the operation has ended."""
    row, machine = await hold(session, operation)
    if row.state is not OperationState.RUNNING:
        return row, None, None
    if not isinstance(machine, MachineRow) or machine.active_operation_id != row.id:
        raise taken_over()
    return row, machine, await _event_of(session, machine)
