"""What requests change about worker bootstraps: rules, rows, the operation and its audit line."""

from datetime import UTC, datetime, timedelta
from functools import partial

from api.fields import check_etag, check_id, not_found
from api.scope import RequestScope
from domain.cluster import ClusterProvider, ClusterState
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.operation import OperationType
from domain.tokens import TokenKind, hash_of, new_token
from infra.database.queries.cluster import find_cluster
from infra.database.queries.worker_bootstrap import find_bootstrap
from infra.database.records.operation import bootstrap_operation_of, plan_operation
from infra.database.tables import ClusterRow, OperationRow, WorkerBootstrapRow
from infra.temporal.start import start_operation


async def create(
    scope: RequestScope, cluster_id: str, ttl_seconds: int
) -> tuple[WorkerBootstrapRow, str]:
    """Give out a right to join; return it with its token, which nobody is told again.

    Raises:
        BulkheadError: NOT_FOUND; FAILED_PRECONDITION for a cluster that no server can join.
    """
    cluster = await cluster_of(scope, cluster_id)
    if (
        cluster.state is not ClusterState.ACTIVE
        or cluster.provider is not ClusterProvider.MANAGED_KAAS
    ):
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"The cluster is {cluster.state} ({cluster.provider}); servers join hosted clusters "
            "that are active.",
            metadata={"state": cluster.state},
        )
    token = new_token(TokenKind.WORKER_BOOTSTRAP)
    bootstrap = WorkerBootstrapRow(
        workspace_id=cluster.workspace_id,
        id=new_id(Prefix.WORKER_BOOTSTRAP),
        cluster_id=cluster.id,
        token_hash=hash_of(token),
        created_by=scope.caller.principal_id,
        expires_at=datetime.now(UTC) + timedelta(seconds=ttl_seconds),
    )
    scope.rows.add(bootstrap)
    scope.audit(
        "worker_bootstrap.create",
        "worker_bootstrap",
        bootstrap.id,
        cluster_id=cluster.id,
        ttl_seconds=ttl_seconds,
    )
    await scope.rows.write(scope.session)
    return bootstrap, token


async def revoke(
    scope: RequestScope, cluster_id: str, bootstrap_id: str, if_match: str
) -> OperationRow:
    """End a right to join at once, and plan the operation that proves it.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED, CONFLICT while it is being revoked, or
            FAILED_PRECONDITION when it was.
    """
    await cluster_of(scope, cluster_id)
    bootstrap = await one(scope, cluster_id, bootstrap_id, lock=True)
    check_etag(if_match, bootstrap.version)
    if bootstrap.active_operation_id is not None:
        raise BulkheadError(
            Reason.CONFLICT,
            "The worker bootstrap is being revoked already. Wait with "
            f"POST /v1/operations/{bootstrap.active_operation_id}:wait.",
            metadata={"operation_id": bootstrap.active_operation_id},
        )
    if bootstrap.revoked_at is not None:
        raise BulkheadError(Reason.FAILED_PRECONDITION, "The worker bootstrap was revoked before.")
    bootstrap.revoked_at = bootstrap.updated_at = datetime.now(UTC)
    bootstrap.version += 1
    operation = plan_operation(
        scope.rows,
        OperationType.CLUSTER_WORKER_BOOTSTRAP_REVOKE,
        bootstrap,
        scope.caller,
        request={"worker_bootstrap_id": bootstrap.id},
    )
    scope.audit(
        operation.type,
        "worker_bootstrap",
        bootstrap.id,
        cluster_id=cluster_id,
        operation_id=operation.id,
    )
    await scope.rows.write(scope.session)
    scope.after_commit.append(partial(_start, scope, operation))
    return operation


async def cluster_of(scope: RequestScope, cluster_id: str) -> ClusterRow:
    """Read the cluster that a path names.

    Raises:
        BulkheadError: NOT_FOUND.
    """
    cluster = await find_cluster(scope.session, check_id(Prefix.CLUSTER, cluster_id))
    if cluster is None:
        raise not_found(Prefix.CLUSTER)
    return cluster


async def one(
    scope: RequestScope, cluster_id: str, bootstrap_id: str, *, lock: bool = False
) -> WorkerBootstrapRow:
    """Read a bootstrap of a cluster.

    Raises:
        BulkheadError: NOT_FOUND, also for one of another cluster.
    """
    found = await find_bootstrap(
        scope.session, check_id(Prefix.WORKER_BOOTSTRAP, bootstrap_id), lock=lock
    )
    if found is None or found.cluster_id != cluster_id:
        raise not_found(Prefix.WORKER_BOOTSTRAP)
    return found


async def _start(scope: RequestScope, operation: OperationRow) -> None:
    client = await scope.clients.temporal.client()
    await start_operation(client, operation.type, bootstrap_operation_of(operation))
