"""What requests change about clusters: rules, rows, the operation and its audit line.

Each function runs in the request's transaction, takes the cluster's row lock first, and leaves the
start of the workflow to after the commit.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from api import machine_plans
from api.cancellations import send_cancellation
from api.cluster_operations import begin, no_capacity, plan_resumption, touch
from api.fields import check_etag, not_found
from api.machine_plans import MachineRequest
from api.scope import RequestScope
from domain.cluster import (
    CONTROL_PLANE_MEMORY_BYTES,
    ClusterProvider,
    ClusterState,
    NetworkProfile,
)
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.operation import OperationType
from infra.database.queries.cluster import admit_cluster, find_cluster
from infra.database.queries.install import ids_of_installs
from infra.database.queries.machine import ids_of_machines
from infra.database.queries.operation import find_operation
from infra.database.queries.quota import refuse_beyond
from infra.database.queries.workspace import find_region
from infra.database.records.machine_plan import plan_cluster
from infra.database.records.operation import (
    plan_operation,
    request_cancellation,
)
from infra.database.tables import ClusterRow, OperationRow

# As many machines, or installs, as an error's sentence can name.
_NAMED: Final = 5

Verb = Callable[[RequestScope, str, str], Awaitable[OperationRow]]


async def create(
    scope: RequestScope,
    *,
    name: str,
    region_id: str,
    network_profile: NetworkProfile,
    machines: Sequence[MachineRequest] = (),
) -> OperationRow:
    """Place a new cluster and plan its creation, with its first machines as a part of it.

    Raises:
        BulkheadError: PERMISSION_DENIED for a network that is not offered, NOT_FOUND for the
            region, QUOTA_EXCEEDED, or CAPACITY_UNAVAILABLE when no host has room; for the machines
            as `machine_plans.create`.
    """
    _check_network(network_profile)
    pools = [await machine_plans.check(scope, wanted) for wanted in machines]
    await machine_plans.check_first_pools(scope, pools)
    cluster_id = new_id(Prefix.CLUSTER)
    admission = await admit_cluster(
        scope.session, cluster_id, region_id, CONTROL_PLANE_MEMORY_BYTES
    )
    if not admission.region_known:
        raise _no_such_region()
    refuse_beyond(admission.quota)
    place = admission.place
    if place is None:
        raise no_capacity(advice="Try again later, or delete or suspend a cluster.")
    cluster = ClusterRow(
        workspace_id=scope.caller.workspace_id,
        id=cluster_id,
        name=name,
        region_id=region_id,
        provider=ClusterProvider.MANAGED_KAAS,
        network_profile=network_profile,
        state=ClusterState.PENDING,
        host=place.host,
        slot=place.slot,
    )
    scope.rows.add(cluster)
    wanted = {"name": name, "region_id": region_id, "network_profile": network_profile}
    return await begin(scope, plan_cluster(scope.rows, scope.caller, cluster, pools, wanted))


async def change(
    scope: RequestScope, cluster_id: str, if_match: str, changes: dict[str, Any]
) -> ClusterRow:
    """Write what a PATCH asks for.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED, or FAILED_PRECONDITION.
    """
    cluster = await _lock(scope, cluster_id, if_match)
    if cluster.state is ClusterState.DELETING:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION, "The cluster is being deleted and cannot be changed."
        )
    provider = changes.pop("provider", cluster.provider)
    if "kubeconfig" in changes or provider is not cluster.provider:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "Imported clusters are not offered by this version; provider and kubeconfig of a "
            "hosted cluster cannot be changed.",
            path=("body", "kubeconfig" if "kubeconfig" in changes else "provider"),
        )
    if "region_id" in changes:
        await _check_region(scope, changes["region_id"])
    changed = {name for name, value in changes.items() if getattr(cluster, name) != value}
    if changed:
        for name in changed:
            setattr(cluster, name, changes[name])
        touch(cluster)
        scope.audit("cluster.update", "cluster", cluster.id, fields=",".join(sorted(changed)))
    return cluster


async def suspend(scope: RequestScope, cluster_id: str, if_match: str) -> OperationRow:
    """Plan the stop of an active cluster.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED, CONFLICT while an operation runs, FAILED_PRECONDITION.
    """
    cluster = await _lock(scope, cluster_id, if_match)
    await _check_idle(scope, cluster)
    _check_state(cluster, ClusterState.ACTIVE, "suspended")
    touch(cluster)
    return await _plan(scope, OperationType.CLUSTER_SUSPEND, cluster)


async def resume(scope: RequestScope, cluster_id: str, if_match: str) -> OperationRow:
    """Set memory aside for a suspended cluster and plan its start.

    Raises:
        BulkheadError: as `suspend`, or CAPACITY_UNAVAILABLE when its host has no room.
    """
    cluster = await _lock(scope, cluster_id, if_match)
    await _check_idle(scope, cluster)
    _check_state(cluster, ClusterState.SUSPENDED, "resumed")
    return await plan_resumption(scope, cluster)


async def delete(
    scope: RequestScope, cluster_id: str, if_match: str, *, force: bool = False
) -> OperationRow:
    """Plan the end of a cluster, taking its lock over from whatever runs.

    With `force` its installs go with it, as they are: a cluster that does not answer any more
    cannot give them back.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED, CONFLICT when it is being deleted already, or
            FAILED_PRECONDITION while it has machines, or installs without `force`.
    """
    cluster = await _lock(scope, cluster_id, if_match)
    predecessor = await _running_operation(scope, cluster)
    if predecessor is not None and predecessor.type is OperationType.CLUSTER_DELETE:
        raise _busy(predecessor)
    await _check_no_machines(scope, cluster, predecessor)
    if not force:
        await _check_no_installs(scope, cluster)
    # One that can only go forward is not disturbed: the delete waits for its end.
    if predecessor is not None and await request_cancellation(
        scope.session, predecessor.id, scope.caller.kind
    ):
        scope.after_commit.append(
            partial(send_cancellation, scope, predecessor.type, cluster.id, predecessor.id)
        )
    cluster.state = ClusterState.DELETING
    touch(cluster)
    return await _plan(
        scope,
        OperationType.CLUSTER_DELETE,
        cluster,
        predecessor_operation_id=None if predecessor is None else predecessor.id,
        force=force,
    )


async def _plan(
    scope: RequestScope,
    operation_type: OperationType,
    cluster: ClusterRow,
    *,
    predecessor_operation_id: str | None = None,
    force: bool = False,
) -> OperationRow:
    operation = plan_operation(
        scope.rows,
        operation_type,
        cluster,
        scope.caller,
        request={},
        predecessor_operation_id=predecessor_operation_id,
    )
    return await begin(scope, operation, **({"force": True} if force else {}))


async def _lock(scope: RequestScope, cluster_id: str, if_match: str) -> ClusterRow:
    cluster = await find_cluster(scope.session, cluster_id, lock=True)
    if cluster is None:
        raise not_found(Prefix.CLUSTER)
    check_etag(if_match, cluster.version)
    return cluster


async def _running_operation(scope: RequestScope, cluster: ClusterRow) -> OperationRow | None:
    if cluster.active_operation_id is None:
        return None
    return await find_operation(scope.session, cluster.active_operation_id)


async def _check_idle(scope: RequestScope, cluster: ClusterRow) -> None:
    running = await _running_operation(scope, cluster)
    if running is not None:
        raise _busy(running)


async def _check_no_machines(
    scope: RequestScope, cluster: ClusterRow, running: OperationRow | None
) -> None:
    machines = await ids_of_machines(scope.session, cluster.id, _NAMED + 1)
    if machines:
        advice = (
            "Delete them first, so that their pods are drained and nothing of them is left; each "
            "with force=true where the cluster does not answer any more."
        )
        if running is not None and running.type is OperationType.CLUSTER_CREATE:
            advice = (
                f"It is being made with them: POST /v1/operations/{running.id}:cancel takes all of "
                "it back."
            )
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"The cluster has machines: {_some(machines)}. {advice}",
            metadata={"machine_ids": ",".join(machines[:_NAMED])},
        )


async def _check_no_installs(scope: RequestScope, cluster: ClusterRow) -> None:
    installs = await ids_of_installs(scope.session, cluster.id, _NAMED + 1)
    if installs:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"The cluster has installs: {_some(installs)}. Delete them first, and wait until they "
            "are gone; a cluster that is suspended has to be resumed for that. Where it does not "
            "answer any more, force=true takes them along.",
            metadata={"install_ids": ",".join(installs[:_NAMED])},
        )


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_NAMED]) + (" and more" if len(ids) > _NAMED else "")


async def _check_region(scope: RequestScope, region_id: str) -> None:
    if await find_region(scope.session, region_id) is None:
        raise _no_such_region()


def _check_network(network_profile: NetworkProfile) -> None:
    if network_profile is NetworkProfile.MIXED_OS_CALICO:
        raise BulkheadError(
            Reason.PERMISSION_DENIED,
            "Clusters with Windows workers are not enabled here; use linux_cilium or linux_bridge.",
            path=("body", "network_profile"),
        )


def _no_such_region() -> BulkheadError:
    return BulkheadError(
        Reason.NOT_FOUND,
        "There is no such region in this workspace; create it first.",
        path=("body", "region_id"),
    )


def _check_state(cluster: ClusterRow, needed: ClusterState, participle: str) -> None:
    if cluster.state is not needed:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"The cluster is {cluster.state}; only one that is {needed} can be {participle}.",
            metadata={"state": cluster.state},
        )


def _busy(running: OperationRow) -> BulkheadError:
    return BulkheadError(
        Reason.CONFLICT,
        f"{running.type} is running on the cluster. Wait for it with "
        f"POST /v1/operations/{running.id}:wait, or cancel it.",
        metadata={"operation_id": running.id, "operation_type": running.type},
    )
