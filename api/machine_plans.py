"""What requests ask for of machines in clouds: checked, written as rows, planned as operations.

The checks come in one order: the cluster, the config and its credential, the places and sizes, the
limit. The cluster's row lock is held throughout, so that two requests cannot exceed its limit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from api import compute_changes
from api.cluster_operations import wake
from api.fields import check_id, not_found
from api.places import check_allowed, check_place
from api.quotas import check_quota
from api.scope import RequestScope
from domain.cluster import ClusterProvider, ClusterState
from domain.compute import DEFAULT_MAXIMUM_MACHINES, Choice
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from domain.operation import OperationType
from domain.quota import QuotaMetric
from infra.database.queries.cluster import find_cluster
from infra.database.queries.compute import find_config, machines_left
from infra.database.queries.operation import find_operation
from infra.database.records.machine_plan import (
    WantedMachines,
    add_machine,
    add_pool,
    plan_machine,
    plan_pool,
)
from infra.database.records.operation import owned_operation_of
from infra.database.tables import ClusterRow, ComputeConfigRow, OperationRow
from infra.temporal.start import start_operation

_NAME_LENGTH: Final = 120

# One that is suspended is resumed for its machine.
_USABLE: Final = frozenset({ClusterState.ACTIVE, ClusterState.SUSPENDED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Fallback:
    """What is tried when the choice before it has no capacity; None: as the request has it."""

    region: str | None
    instance_type: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineRequest:
    """Machines of one shape, as a request names them.

    Attributes:
        fallbacks: None: the config's own places, with the same instance type.
        path: where the request says so.
    """

    compute_config_id: str
    instance_type: str
    count: int
    name: str | None
    fallbacks: Sequence[Fallback] | None
    path: tuple[str, ...] = ("body",)


async def create(scope: RequestScope, cluster_id: str, request: MachineRequest) -> OperationRow:
    """Add one machine, or a pool of several, and plan how they are made.

    Raises:
        BulkheadError: NOT_FOUND for the cluster or the config; FAILED_PRECONDITION for a cluster
            that is neither active nor suspended, or not hosted, or a credential that cannot be
            read; INVALID_ARGUMENT; PERMISSION_DENIED for a place that the workspace does not allow;
            QUOTA_EXCEEDED; CAPACITY_UNAVAILABLE when a suspended cluster cannot be resumed.
    """
    cluster = await _hold_cluster(scope, cluster_id)
    wanted = await check(scope, request)
    used, limit = await machines_left(scope.session, cluster.id)
    _refuse_beyond(used + wanted.count, limit, used, path=request.path)
    await check_quota(scope, QuotaMetric.MACHINES, wanted.count)
    if cluster.state is ClusterState.SUSPENDED:
        await wake(scope, cluster)
    operation = _plan(scope, cluster, wanted)
    await scope.rows.write(scope.session)
    workflow_input = owned_operation_of(operation)

    async def start() -> None:
        client = await scope.clients.temporal.client()
        await start_operation(client, operation.type, workflow_input)

    scope.after_commit.append(start)
    return operation


async def check(scope: RequestScope, request: MachineRequest) -> WantedMachines:
    """Return what a request wants, when its config, credential, places and sizes may be used.

    Raises:
        BulkheadError: as `create`.
    """
    config = await find_config_of(scope, request)
    await compute_changes.check_usable(scope, config)
    choices = choices_of(config, request)
    await check_allowed(scope, config.provider, [choice.place for choice in choices])
    longest = len(request.name or "") + (len(f"-{request.count}") if request.count > 1 else 0)
    if longest > _NAME_LENGTH:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            f"With the number of each machine the name is longer than {_NAME_LENGTH} characters.",
            path=(*request.path, "name"),
        )
    return WantedMachines(
        compute_config_id=config.id, choices=choices, count=request.count, name=request.name
    )


async def find_config_of(scope: RequestScope, request: MachineRequest) -> ComputeConfigRow:
    """Return the config of a request, which stays as it is until the commit.

    Raises:
        BulkheadError: NOT_FOUND.
    """
    path = (*request.path, "compute_config_id")
    known = check_id(Prefix.COMPUTE_CONFIG, request.compute_config_id, path)
    config = await find_config(scope.session, known, keep=True)
    if config is None:
        raise not_found(Prefix.COMPUTE_CONFIG, path)
    return config


def choices_of(config: ComputeConfigRow, request: MachineRequest) -> list[Choice]:
    """Return the places and sizes to try, best first, each once.

    Raises:
        BulkheadError: INVALID_ARGUMENT for a place or a size that the config cannot have.
    """
    region = config.provider_config["region"]
    fallbacks = request.fallbacks
    if fallbacks is None:
        places = config.provider_config.get("fallbacks", ())
        fallbacks = [Fallback(region=place, instance_type=None) for place in places]
    choices = [Choice(place=region, instance_type=request.instance_type)]
    _check_type(config, request.instance_type, (*request.path, "instance_type"))
    for position, fallback in enumerate(fallbacks):
        path = (*request.path, "fallbacks", str(position))
        choice = Choice(
            place=fallback.region or region,
            instance_type=fallback.instance_type or request.instance_type,
        )
        check_place(config.provider, choice.place, (*path, "region"))
        _check_type(config, choice.instance_type, (*path, "instance_type"))
        choices.append(choice)
    return list(dict.fromkeys(choices))


async def check_first_pools(scope: RequestScope, pools: Sequence[WantedMachines]) -> None:
    """Refuse more machines than a new cluster, or its workspace, may have.

    Raises:
        BulkheadError: QUOTA_EXCEEDED.
    """
    wanted = sum(pool.count for pool in pools)
    _refuse_beyond(wanted, DEFAULT_MAXIMUM_MACHINES, 0, path=("body", "machines"))
    if wanted:
        await check_quota(scope, QuotaMetric.MACHINES, wanted)


def _check_type(config: ComputeConfigRow, instance_type: str, path: tuple[str, ...]) -> None:
    patterns = [
        pattern.strip()
        for pattern in config.provider_config.get("machine_type_filter", "").split(",")
        if pattern.strip()
    ]
    if patterns and not any(fnmatchcase(instance_type, pattern) for pattern in patterns):
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            f"The compute config allows instance types that match {', '.join(patterns)} alone.",
            path=path,
        )


def _plan(scope: RequestScope, cluster: ClusterRow, wanted: WantedMachines) -> OperationRow:
    if wanted.count == 1:
        machine = add_machine(scope.rows, cluster, wanted)
        operation = plan_machine(scope.rows, scope.caller, cluster, machine)
        _audit(scope, operation, "machine", machine.id, {"cluster_id": cluster.id})
        return operation
    pool, machines = add_pool(scope.rows, cluster, wanted)
    operation = plan_pool(scope.rows, scope.caller, cluster, pool, machines)
    _audit(scope, operation, "cluster", cluster.id, {"pool_id": pool.id, "count": pool.count})
    return operation


def _audit(
    scope: RequestScope, operation: OperationRow, noun: str, owner: str, facts: Mapping[str, Any]
) -> None:
    scope.audit(
        operation.type,
        noun,
        owner,
        operation_id=operation.id,
        compute_config_id=operation.request["compute_config_id"],
        **facts,
    )


async def _hold_cluster(scope: RequestScope, cluster_id: str) -> ClusterRow:
    path = ("body", "cluster_id")
    known = check_id(Prefix.CLUSTER, cluster_id, path)
    cluster = await find_cluster(scope.session, known, lock=True)
    if cluster is None:
        raise not_found(Prefix.CLUSTER, path)
    if cluster.provider is not ClusterProvider.MANAGED_KAAS:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "Machines are made for clusters that this platform hosts; this one was imported.",
            path=("body", "cluster_id"),
            metadata={"provider": cluster.provider},
        )
    if cluster.state not in _USABLE or await _is_being_suspended(scope, cluster):
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"The cluster is {cluster.state}, and no machine can join it now; wait until it is "
            "active, or suspended: then a machine resumes it.",
            path=("body", "cluster_id"),
            metadata={"state": cluster.state},
        )
    return cluster


async def _is_being_suspended(scope: RequestScope, cluster: ClusterRow) -> bool:
    if cluster.active_operation_id is None:
        return False
    running = await find_operation(scope.session, cluster.active_operation_id)
    return running is not None and running.type is OperationType.CLUSTER_SUSPEND


def _refuse_beyond(wanted: int, limit: int, used: int, *, path: tuple[str, ...]) -> None:
    if wanted > limit:
        raise BulkheadError(
            Reason.QUOTA_EXCEEDED,
            f"The cluster may have {limit} machines in clouds, has {used}, and would have "
            f"{wanted}. Delete some, or raise `max_machines` of its compute_settings.",
            path=path,
            metadata={"metric": "max_machines", "limit": str(limit), "usage": str(used)},
        )
