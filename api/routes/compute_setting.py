"""How many machines in clouds a cluster may have."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api.errors import documented
from api.fields import Body, Identifier, IfMatch, check_etag, check_id, not_found
from api.scope import RequestScope, Scope
from domain.caller import Role
from domain.cluster import ClusterState
from domain.compute import DEFAULT_MAXIMUM_MACHINES, MAXIMUM_MACHINES
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from infra.database.queries.cluster import find_cluster
from infra.database.queries.compute import count_cloud_machines, find_settings
from infra.database.tables import ClusterComputeRow, ClusterRow
from infra.database.tables.columns import unix

router = APIRouter(prefix="/clusters", tags=["clusters"])


class UpdateClusterComputeSettingsRequest(Body):
    """What shall be different; at least one of the two."""

    auto_scaling_enabled: bool = False
    max_machines: Annotated[int, Field(ge=0, le=MAXIMUM_MACHINES)] = DEFAULT_MAXIMUM_MACHINES


class ClusterComputeSettingsBody(TypedDict):
    """The contract's ClusterComputeSettings.

    `machines` counts those that the platform made, or makes, in clouds: servers of one's own need
    nothing of it and are not limited. `auto_scaling` keeps what is wanted; nothing scales yet.
    """

    auto_scaling: Literal["active", "paused"]
    machines: int
    max_machines: int
    updated_at: int
    etag: str


@router.get(
    "/{id}/compute_settings",
    response_model=ClusterComputeSettingsBody,
    responses=documented(403, 404),
)
async def get_compute_settings(scope: Scope, cluster_id: Identifier) -> Response:
    """Get how many machines in clouds a cluster has, and how many it may have."""
    cluster = await _find(scope, cluster_id, lock=False)
    settings = await find_settings(scope.session, cluster.id)
    return JSONResponse(await _body(scope, cluster, settings))


@router.patch(
    "/{id}/compute_settings",
    response_model=ClusterComputeSettingsBody,
    responses=documented(403, 404, 409, 422),
)
async def change_compute_settings(
    scope: Scope,
    cluster_id: Identifier,
    body: UpdateClusterComputeSettingsRequest,
    if_match: IfMatch,
) -> Response:
    """Change how many machines in clouds a cluster may have; those that it has stay."""
    scope.require(
        Role.ADMIN, "compute_settings.update", resource_type="cluster", resource_id=cluster_id
    )
    if not body.model_fields_set:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "Nothing is asked for: send `auto_scaling_enabled`, `max_machines`, or both.",
            path=("body",),
        )
    # Machines are added under the same lock.
    cluster = await _find(scope, cluster_id, lock=True)
    if cluster.state is ClusterState.DELETING:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION, "The cluster is being deleted and cannot be changed."
        )
    settings = await find_settings(scope.session, cluster.id)
    check_etag(if_match, 0 if settings is None else settings.version)
    changes = body.model_dump(include=body.model_fields_set)
    return JSONResponse(await _body(scope, cluster, await _set(scope, cluster, settings, changes)))


async def _set(
    scope: RequestScope,
    cluster: ClusterRow,
    settings: ClusterComputeRow | None,
    changes: dict[str, bool | int],
) -> ClusterComputeRow:
    if settings is None:
        settings = ClusterComputeRow(
            workspace_id=cluster.workspace_id,
            cluster_id=cluster.id,
            auto_scaling_enabled=bool(changes.get("auto_scaling_enabled", False)),
            max_machines=changes.get("max_machines", DEFAULT_MAXIMUM_MACHINES),
        )
        scope.rows.add(settings)
        await scope.rows.write(scope.session)
    else:
        changes = {
            name: value for name, value in changes.items() if getattr(settings, name) != value
        }
        if not changes:
            return settings
        for name, value in changes.items():
            setattr(settings, name, value)
        settings.version += 1
        settings.updated_at = datetime.now(UTC)
    facts = {name: str(value).lower() for name, value in changes.items()}
    scope.audit("compute_settings.update", "cluster", cluster.id, **facts)
    return settings


async def _find(scope: RequestScope, cluster_id: str, *, lock: bool) -> ClusterRow:
    cluster = await find_cluster(scope.session, check_id(Prefix.CLUSTER, cluster_id), lock=lock)
    if cluster is None:
        raise not_found(Prefix.CLUSTER)
    return cluster


async def _body(
    scope: RequestScope, cluster: ClusterRow, settings: ClusterComputeRow | None
) -> ClusterComputeSettingsBody:
    machines = await count_cloud_machines(scope.session, cluster.id)
    scales = settings is not None and settings.auto_scaling_enabled
    return ClusterComputeSettingsBody(
        auto_scaling="active" if scales else "paused",
        machines=machines,
        max_machines=DEFAULT_MAXIMUM_MACHINES if settings is None else settings.max_machines,
        updated_at=unix(cluster.created_at if settings is None else settings.updated_at),
        etag="0" if settings is None else str(settings.version),
    )
