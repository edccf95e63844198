"""The transactions with which a workflow revokes a worker bootstrap."""

from datetime import UTC, datetime

from domain.operation import OperationState
from domain.owned_operation import WorkerBootstrapOperation
from infra.database.engine import Database
from infra.database.records.operation import end_operation, hold, taken_over
from infra.database.tables import WorkerBootstrapRow


class WorkerBootstrapRecords:
    """The transactions of one worker, in the workspace of the operation at hand."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def revoke(self, operation: WorkerBootstrapOperation) -> None:
        """From now on the token joins no server; a machine that joined with it stays.

        Raises:
            BulkheadError: ABORTED when the operation does not hold the bootstrap's lock.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, bootstrap = await hold(session, operation)
            if row.state is not OperationState.RUNNING:
                return
            if not isinstance(bootstrap, WorkerBootstrapRow):
                raise taken_over()
            if bootstrap.revoked_at is None:
                bootstrap.revoked_at = datetime.now(UTC)
                bootstrap.version += 1
                bootstrap.updated_at = bootstrap.revoked_at

    async def reach_revoked(self, operation: WorkerBootstrapOperation) -> None:
        """The operation has done what it was asked for.

        Raises:
            BulkheadError: ABORTED when the operation does not hold the bootstrap's lock.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, bootstrap = await hold(session, operation)
            if row.state is not OperationState.RUNNING:
                return
            if (
                not isinstance(bootstrap, WorkerBootstrapRow)
                or bootstrap.active_operation_id != row.id
            ):
                raise taken_over()
            return_to_before(bootstrap)
            row.response = {"type": row.type, "note": _note_of(bootstrap)}
            await end_operation(session, operation, row, OperationState.SUCCEEDED)


def return_to_before(bootstrap: WorkerBootstrapRow) -> None:
    """Give a bootstrap's lock back."""
    bootstrap.active_operation_id = None
    bootstrap.version += 1
    bootstrap.updated_at = datetime.now(UTC)


def _note_of(bootstrap: WorkerBootstrapRow) -> str:
    if bootstrap.used_at is None:
        return "The token was not used, and joins no server any more."
    return (
        f"The token had been used: machine {bootstrap.machine_id} stays in the cluster. Delete "
        "the machine to take it out."
    )
