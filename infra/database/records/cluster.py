"""The transactions with which workflows write what a cluster reached and how operations end.

Each takes the cluster's row lock first and may be repeated: an operation that has ended stays as
it ended.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.cluster import ClusterState
from domain.errors import BulkheadError, Reason
from domain.operation import ClusterOperation, OperationState, OperationType, StepStatus
from infra.database.engine import Database
from infra.database.records.audit import add_audit_event
from infra.database.records.operation import notify
from infra.database.tables import ClusterRow, OperationRow, OperationStepRow


class ClusterRecords:
    """The transactions of one worker, in the workspace of the operation at hand."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def has_ended(self, workspace_id: str, operation_id: str) -> bool:
        """Tell whether an operation has ended."""
        async with self._database.workspace(workspace_id) as session:
            operation = await _operation(session, operation_id)
            return operation.state is not OperationState.RUNNING

    async def pass_point_of_no_return(self, operation: ClusterOperation) -> bool:
        """Make an operation uncancellable. False: a cancel was asked for before."""
        async with self._database.workspace(operation.workspace_id) as session:
            result = await session.execute(
                update(OperationRow)
                .where(
                    col(OperationRow.id) == operation.operation_id,
                    col(OperationRow.owner_id) == operation.control_plane.cluster_id,
                    col(OperationRow.state) == OperationState.RUNNING,
                    col(OperationRow.cancel_requested_at).is_(None)
                    | col(OperationRow.cancellable).is_(False),
                )
                .values(cancellable=False)
                .returning(col(OperationRow.id))
            )
            return result.first() is not None

    async def reach_active(
        self, operation: ClusterOperation, renew_after: int, expire_at: int
    ) -> None:
        """The control plane answers with certificates that last until `expire_at`.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, cluster = await self._hold(session, operation)
            if row.state is not OperationState.RUNNING:
                return
            if cluster is None or cluster.active_operation_id != operation.operation_id:
                raise _taken_over()
            cluster.state = ClusterState.ACTIVE
            cluster.certificates_renew_after = datetime.fromtimestamp(renew_after, UTC)
            cluster.certificates_expire_at = datetime.fromtimestamp(expire_at, UTC)
            _unlock(cluster)
            await _end(session, operation, row, OperationState.SUCCEEDED)

    async def reach_suspended(self, operation: ClusterOperation) -> None:
        """The control plane is stopped; its data stays and its memory is free for others.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, cluster = await self._hold(session, operation)
            if row.state is not OperationState.RUNNING:
                return
            if cluster is None or cluster.active_operation_id != operation.operation_id:
                raise _taken_over()
            await _suspend(session, cluster)
            await _end(session, operation, row, OperationState.SUCCEEDED)

    async def reach_deleted(self, operation: ClusterOperation) -> None:
        """The cluster and its place are gone.

        Raises:
            BulkheadError: ABORTED when the operation does not hold the cluster's lock.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, cluster = await self._hold(session, operation)
            if row.state is not OperationState.RUNNING:
                return
            if cluster is None or cluster.active_operation_id != operation.operation_id:
                raise _taken_over()
            await _forget(session, cluster.id, cluster)
            await _end(session, operation, row, OperationState.SUCCEEDED)

    async def note_waiting(self, operation: ClusterOperation, what: str) -> None:
        """Say what a running operation waits for; its end takes that back."""
        async with self._database.workspace(operation.workspace_id) as session:
            row = await _operation(session, operation.operation_id, lock=True)
            if row.state is OperationState.RUNNING and row.waiting_for != what:
                row.waiting_for = what
                row.version += 1
                await notify(session, row.id)

    async def end_undone(
        self, operation: ClusterOperation, state: OperationState, reason: Reason, message: str
    ) -> None:
        """The operation did not succeed and everything it did is taken back."""
        async with self._database.workspace(operation.workspace_id) as session:
            row, cluster = await self._hold(session, operation)
            if row.state is not OperationState.RUNNING:
                return
            if cluster is not None and cluster.active_operation_id == operation.operation_id:
                await _return_to_before(session, row.type, cluster)
            row.error = {"message": message, "reason": reason}
            await _end(session, operation, row, state)

    async def _hold(
        self, session: AsyncSession, operation: ClusterOperation
    ) -> tuple[OperationRow, ClusterRow | None]:
        # The cluster first, as every request does: one order, no deadlock.
        cluster = (
            await session.exec(
                select(ClusterRow)
                .where(ClusterRow.id == operation.control_plane.cluster_id)
                .with_for_update()
            )
        ).one_or_none()
        row = await _operation(session, operation.operation_id, lock=True)
        if row.owner_id != operation.control_plane.cluster_id:
            raise _taken_over()
        return row, cluster


async def _operation(
    session: AsyncSession, operation_id: str, *, lock: bool = False
) -> OperationRow:
    query = select(OperationRow).where(OperationRow.id == operation_id)
    return (await session.exec(query.with_for_update() if lock else query)).one()


async def _return_to_before(
    session: AsyncSession, operation_type: OperationType, cluster: ClusterRow
) -> None:
    match operation_type:
        case OperationType.CLUSTER_CREATE:
            await _forget(session, cluster.id, cluster)
        case OperationType.CLUSTER_RESUME:
            await _suspend(session, cluster)
        case OperationType.CLUSTER_DELETE:
            # Cancelled before its first effect, with no other operation in between.
            cluster.state = (
                ClusterState.ACTIVE
                if await _claims_memory(session, cluster)
                else ClusterState.SUSPENDED
            )
            _unlock(cluster)
        case _:
            _unlock(cluster)


async def _claims_memory(session: AsyncSession, cluster: ClusterRow) -> bool:
    found = await session.execute(text("SELECT slot_memory(:cluster)"), {"cluster": cluster.id})
    return bool(found.scalar_one())


async def _suspend(session: AsyncSession, cluster: ClusterRow) -> None:
    cluster.state = ClusterState.SUSPENDED
    _unlock(cluster)
    await session.execute(text("SELECT claim_slot_memory(:cluster, 0)"), {"cluster": cluster.id})


async def _forget(session: AsyncSession, cluster_id: str, cluster: ClusterRow | None) -> None:
    await session.execute(text("SELECT release_slot(:cluster)"), {"cluster": cluster_id})
    if cluster is not None:
        await session.delete(cluster)


def _unlock(cluster: ClusterRow) -> None:
    cluster.active_operation_id = None
    cluster.version += 1
    cluster.updated_at = datetime.now(UTC)


async def _end(
    session: AsyncSession, operation: ClusterOperation, row: OperationRow, state: OperationState
) -> None:
    row.state = state
    row.version += 1
    row.completed_at = datetime.now(UTC)
    row.cancellable = False
    row.waiting_for = None
    details: dict[str, Any] = {"operation_id": row.id}
    if state is OperationState.SUCCEEDED:
        row.response = {"type": row.type, "cluster_id": row.owner_id}
        row.last_error = None
    elif row.error is not None:
        details["reason"] = row.error["reason"]
    await _close_steps(session, row.id, StepStatus.PENDING, status=StepStatus.SKIPPED)
    # A cancelled attempt reports nothing.
    await _close_steps(
        session,
        row.id,
        StepStatus.RUNNING,
        status=StepStatus.FAILED,
        completed_at=row.completed_at,
        next_try_at=None,
        retryable=False,
    )
    add_audit_event(
        session,
        operation.caller,
        row.type,
        row.owner_type,
        row.owner_id,
        outcome=state.lower(),
        details=details,
    )
    await notify(session, row.id)


async def _close_steps(
    session: AsyncSession,
    operation_id: str,
    found: StepStatus,
    **values: Any,  # noqa: ANN401 - columns
) -> None:
    await session.execute(
        update(OperationStepRow)
        .where(
            col(OperationStepRow.operation_id) == operation_id,
            col(OperationStepRow.status) == found,
        )
        .values(**values)
    )


def _taken_over() -> BulkheadError:
    return BulkheadError(Reason.ABORTED, "Another operation took the cluster over.")
