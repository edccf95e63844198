"""The transactions with which workflows write what a cluster reached.

Each takes the cluster's row lock first and may be repeated: an operation that has ended stays as
it ended.
"""

from datetime import UTC, datetime

from sqlalchemy import delete, text, update
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.cluster import ClusterState
from domain.machine import MachineState
from domain.operation import OperationState, OperationType
from domain.owned_operation import ClusterOperation
from infra.database.engine import Database
from infra.database.records.operation import end_operation, hold, taken_over
from infra.database.tables import ClusterRow, MachinePoolRow, MachineRow, OperationRow


class ClusterRecords:
    """The transactions of one worker, in the workspace of the operation at hand."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reach_active(
        self, operation: ClusterOperation, renew_after: int, expire_at: int
    ) -> None:
        """The control plane answers with certificates that last until `expire_at`.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, cluster = await _hold(session, operation)
            if cluster is None:
                return
            _serve(cluster, renew_after, expire_at)
            _unlock(cluster)
            pools = update(MachinePoolRow).where(
                col(MachinePoolRow.cluster_id) == cluster.id,
                col(MachinePoolRow.active_operation_id) == row.id,
            )
            await session.execute(pools.values(active_operation_id=None))
            await _succeed(session, operation, row)

    async def reach_serving(
        self, operation: ClusterOperation, renew_after: int, expire_at: int
    ) -> None:
        """The control plane answers, and machines can join; the operation goes on.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            _, cluster = await _hold(session, operation)
            if cluster is not None:
                _serve(cluster, renew_after, expire_at)

    async def reach_suspended(self, operation: ClusterOperation) -> None:
        """The control plane is stopped; its data stays and its memory is free for others.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, cluster = await _hold(session, operation)
            if cluster is None:
                return
            await _suspend(session, cluster)
            await _succeed(session, operation, row)

    async def reach_deleted(self, operation: ClusterOperation) -> None:
        """The cluster and its place are gone.

        Raises:
            BulkheadError: ABORTED when the operation does not hold the cluster's lock.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, cluster = await _hold(session, operation)
            if cluster is None:
                return
            await _forget(session, cluster)
            await _succeed(session, operation, row)


def _serve(cluster: ClusterRow, renew_after: int, expire_at: int) -> None:
    cluster.state = ClusterState.ACTIVE
    cluster.certificates_renew_after = datetime.fromtimestamp(renew_after, UTC)
    expires_at = datetime.fromtimestamp(expire_at, UTC)
    # A resume may find certificates that are good for long, and renews none.
    if cluster.certificates_expire_at != expires_at:
        cluster.certificates_renewed_at = datetime.now(UTC)
    cluster.certificates_expire_at = expires_at


async def return_to_before(
    session: AsyncSession, operation_type: OperationType, cluster: ClusterRow
) -> None:
    """Give the cluster the state that it had before an operation that is undone; unlock it."""
    match operation_type:
        case OperationType.CLUSTER_CREATE:
            # Those of first pools whose turn never came; the others are gone.
            await session.execute(
                delete(MachineRow).where(
                    col(MachineRow.cluster_id) == cluster.id,
                    col(MachineRow.state) == MachineState.PROVISIONING,
                    col(MachineRow.active_operation_id).is_(None),
                )
            )
            await _forget(session, cluster)
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


async def _forget(session: AsyncSession, cluster: ClusterRow) -> None:
    await session.execute(text("SELECT release_slot(:cluster)"), {"cluster": cluster.id})
    await session.delete(cluster)


def _unlock(cluster: ClusterRow) -> None:
    cluster.active_operation_id = None
    cluster.version += 1
    cluster.updated_at = datetime.now(UTC)


async def _hold(
    session: AsyncSession, operation: ClusterOperation
) -> tuple[OperationRow, ClusterRow | None]:
    """Lock the rows; no cluster when the operation has ended and nothing is left to do."""
    row, cluster = await hold(session, operation)
    if row.state is not OperationState.RUNNING:
        return row, None
    if not isinstance(cluster, ClusterRow) or cluster.active_operation_id != row.id:
        raise taken_over()
    return row, cluster


async def _succeed(session: AsyncSession, operation: ClusterOperation, row: OperationRow) -> None:
    row.response = {"type": row.type, "cluster_id": row.owner_id}
    await end_operation(session, operation, row, OperationState.SUCCEEDED)
