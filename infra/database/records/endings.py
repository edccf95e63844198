"""The transactions that every operation needs on its way and at an end that is no success."""

from sqlalchemy import update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.errors import Reason
from domain.operation import WAITING_FOR_EMERGENCY_STOP, OperationState, StepStatus
from domain.owned_operation import OwnedOperation
from infra.database.engine import Database
from infra.database.queries.emergency_stop import stop_of_operation
from infra.database.records import cluster, install_rows, machine, rotation, worker_bootstrap
from infra.database.records.operation import OwnerRow, end_operation, hold, notify
from infra.database.tables import (
    ClusterRow,
    InstallRow,
    MachinePoolRow,
    MachineRow,
    OperationRow,
    OperationStepRow,
    PackageRow,
    SecretRow,
    WorkerBootstrapRow,
)


class OperationRecords:
    """The transactions of one worker, in the workspace of the operation at hand."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def has_ended(self, workspace_id: str, operation_id: str) -> bool:
        """Tell whether an operation has ended."""
        async with self._database.workspace(workspace_id) as session:
            operation = await _operation(session, operation_id)
            return operation.state is not OperationState.RUNNING

    async def pass_point_of_no_return(self, operation: OwnedOperation) -> bool:
        """Make an operation uncancellable. False: a cancel was asked for before."""
        async with self._database.workspace(operation.workspace_id) as session:
            result = await session.execute(
                update(OperationRow)
                .where(
                    col(OperationRow.id) == operation.operation_id,
                    col(OperationRow.owner_id) == operation.owner_id,
                    col(OperationRow.state) == OperationState.RUNNING,
                    col(OperationRow.cancel_requested_at).is_(None)
                    | col(OperationRow.cancellable).is_(False),
                )
                .values(cancellable=False)
                .returning(col(OperationRow.id))
            )
            return result.first() is not None

    async def is_past_return(self, operation: OwnedOperation) -> bool:
        """Tell whether an operation can only go forward by now."""
        async with self._database.workspace(operation.workspace_id) as session:
            return not (await _operation(session, operation.operation_id)).cancellable

    async def note_waiting(self, operation: OwnedOperation, what: str | None) -> None:
        """Say what a running operation waits for; None, or its end, takes that back."""
        async with self._database.workspace(operation.workspace_id) as session:
            row = await _operation(session, operation.operation_id, lock=True)
            if row.state is OperationState.RUNNING and row.waiting_for != what:
                row.waiting_for = what
                row.version += 1
                await notify(session, row.id)

    async def is_held(self, operation: OwnedOperation, *, takes_back: bool) -> bool:
        """Tell whether an emergency stop covers an operation; `takes_back`: an undo of it."""
        workspace_id, operation_id = operation.workspace_id, operation.operation_id
        async with self._database.workspace(workspace_id) as session:
            found = await stop_of_operation(
                session, workspace_id, operation_id, takes_back=takes_back
            )
            return found is not None

    async def hold_back(self, operation: OwnedOperation, step: str, *, takes_back: bool) -> bool:
        """Tell whether an emergency stop covers a step that has not begun, and show it so."""
        workspace_id, operation_id = operation.workspace_id, operation.operation_id
        async with self._database.workspace(workspace_id) as session:
            stop = await stop_of_operation(
                session, workspace_id, operation_id, takes_back=takes_back
            )
            if stop is None:
                return False
            row = await _operation(session, operation_id, lock=True)
            row.waiting_for = WAITING_FOR_EMERGENCY_STOP
            row.version += 1
            await session.execute(
                update(OperationStepRow)
                .where(
                    col(OperationStepRow.operation_id) == operation_id,
                    col(OperationStepRow.name) == step,
                )
                .values(status=StepStatus.PENDING, progress=None)
            )
            await notify(session, operation_id)
            return True

    async def end_undone(
        self, operation: OwnedOperation, state: OperationState, reason: Reason, message: str
    ) -> None:
        """The operation did not succeed and everything it did is taken back."""
        async with self._database.workspace(operation.workspace_id) as session:
            row, owner = await hold(session, operation)
            if row.state is not OperationState.RUNNING:
                return
            if owner is not None and owner.active_operation_id == operation.operation_id:
                await _return_to_before(session, row, owner)
            row.error = {"message": message, "reason": reason}
            await end_operation(session, operation, row, state)


async def _return_to_before(
    session: AsyncSession, operation: OperationRow, owner: OwnerRow
) -> None:
    match owner:
        case ClusterRow():
            await cluster.return_to_before(session, operation.type, owner)
        case InstallRow():
            await install_rows.return_to_before(session, operation, owner)
        case MachineRow():
            await machine.return_to_before(session, operation.type, owner)
        case MachinePoolRow():
            # Its machines are gone.
            await session.delete(owner)
        case PackageRow():
            # It was being created, and has been seen by nobody.
            await session.delete(owner)
        case SecretRow():
            rotation.return_to_before(owner)
        case WorkerBootstrapRow():
            worker_bootstrap.return_to_before(owner)


async def _operation(
    session: AsyncSession, operation_id: str, *, lock: bool = False
) -> OperationRow:
    query = select(OperationRow).where(OperationRow.id == operation_id)
    return (await session.exec(query.with_for_update() if lock else query)).one()
