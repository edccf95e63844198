"""A cluster's operation: written with its audit line, and started after the commit."""

from datetime import UTC, datetime

from api.scope import RequestScope
from domain.cluster import CONTROL_PLANE_MEMORY_BYTES
from domain.errors import BulkheadError, Reason
from domain.operation import OperationType
from infra.database.queries.cluster import claim_slot_memory
from infra.database.records.operation import cluster_operation_of, plan_operation
from infra.database.tables import ClusterRow, OperationRow
from infra.temporal.start import start_operation


async def plan_resumption(scope: RequestScope, cluster: ClusterRow) -> OperationRow:
    """Set memory aside for a suspended cluster, whose row is locked and idle, and plan its start.

    Raises:
        BulkheadError: CAPACITY_UNAVAILABLE when its host has no room.
    """
    if not await claim_slot_memory(scope.session, cluster.id, CONTROL_PLANE_MEMORY_BYTES):
        raise no_capacity(advice="The cluster stays suspended; try again later.")
    touch(cluster)
    operation = plan_operation(
        scope.rows, OperationType.CLUSTER_RESUME, cluster, scope.caller, request={}
    )
    return await begin(scope, operation)


async def wake(scope: RequestScope, cluster: ClusterRow) -> None:
    """Have a suspended cluster, whose row is locked, be resumed, unless that is under way.

    What needs its API is planned beside it, and waits for it: see `ComputeRecords.resumption_of`.

    Raises:
        BulkheadError: CAPACITY_UNAVAILABLE when its host has no room.
    """
    if cluster.active_operation_id is None:
        await plan_resumption(scope, cluster)


async def begin(scope: RequestScope, operation: OperationRow, **details: bool) -> OperationRow:
    """Write a planned operation and its audit line, and start it after the commit."""
    scope.audit(operation.type, "cluster", operation.owner_id, operation_id=operation.id, **details)
    await scope.rows.write(scope.session)
    workflow_input = cluster_operation_of(operation)

    async def start() -> None:
        client = await scope.clients.temporal.client()
        await start_operation(client, operation.type, workflow_input)

    scope.after_commit.append(start)
    return operation


def touch(cluster: ClusterRow) -> None:
    """Give a cluster another etag."""
    cluster.version += 1
    cluster.updated_at = datetime.now(UTC)


def no_capacity(*, advice: str) -> BulkheadError:
    """Return the failure of a cluster for which no host has room."""
    return BulkheadError(
        Reason.CAPACITY_UNAVAILABLE,
        f"No control-plane host has the memory for one more control plane. {advice}",
        metadata={"memory_bytes": str(CONTROL_PLANE_MEMORY_BYTES)},
    )
