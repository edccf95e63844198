"""Clusters."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

import hashlib
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from pydantic import Field, StringConstraints
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api import cluster_changes
from api.errors import documented
from api.fields import (
    Body,
    Cursor,
    IdempotencyKey,
    Identifier,
    IfMatch,
    Limit,
    Name,
    RegionId,
    check_id,
    not_found,
)
from api.idempotency import answer_once
from api.links import Links
from api.machine_requests import MachineShapeRequest
from api.node_endpoint import NodeEndpoint
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.routes.operation import OperationBody, operation_body
from api.scope import RequestScope, Scope
from domain.caller import Role
from domain.cluster import ClusterProvider, ClusterState, NetworkProfile
from domain.identifiers import Prefix
from infra.database.queries.cluster import find_cluster
from infra.database.queries.pages import page_of
from infra.database.tables import ClusterRow
from infra.database.tables.columns import unix, unix_or_none

router = APIRouter(prefix="/clusters", tags=["clusters"])

# Of one request; more can be added when the cluster is there.
_MOST_POOLS: Final = 10

_Force = Annotated[
    bool,
    Query(
        description="Let its installs go with it, as they are: for a cluster that does not answer"
        " any more. Machines go first all the same."
    ),
]


class CreateClusterRequest(Body):
    """A cluster to be made; with `machines`, which are ours, as a part of it."""

    name: Name
    region_id: RegionId
    # Without it, what the settings say; so the document shows no default.
    network_profile: Annotated[
        NetworkProfile, Field(strict=False, default_factory=lambda: NetworkProfile.LINUX_CILIUM)
    ]
    machines: Annotated[
        list[MachineShapeRequest], Field(max_length=_MOST_POOLS, default_factory=list)
    ]


class ChangeClusterRequest(Body):
    """What shall be different; what is absent stays."""

    name: Name = ""
    region_id: RegionId = ""
    provider: Annotated[ClusterProvider, Field(strict=False)] = ClusterProvider.MANAGED_KAAS
    kubeconfig: Annotated[
        str, StringConstraints(max_length=65536), Field(json_schema_extra={"writeOnly": True})
    ] = ""


class ClusterCertificates(TypedDict):
    """When the first certificate of the control plane ends, and when all were renewed last."""

    expires_at: int | None
    renewed_at: int | None


class ClusterBody(TypedDict):
    """The contract's Cluster; `region_id`, `network_profile` and `certificates` are ours."""

    id: str
    html_url: str
    name: str
    workspace_id: str
    region_id: str
    state: ClusterState
    provider: ClusterProvider
    network_profile: NetworkProfile
    reconciling: bool
    certificates: ClusterCertificates
    created_at: int
    updated_at: int
    etag: str


class ClusterList(TypedDict):
    """One page."""

    data: list[ClusterBody]
    has_more: bool
    next_cursor: str | None


@router.get("", response_model=ClusterList, responses=documented(403))
async def list_clusters(
    request: Request, scope: Scope, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Response:
    """List the workspace's clusters, newest first."""
    before = position_of(cursor, Prefix.CLUSTER)
    page = await page_of(scope.session, ClusterRow, before=before, limit=limit)
    return JSONResponse(page_body(page, partial(cluster_body, links=Links.of(request))))


@router.post(
    "", status_code=202, response_model=OperationBody, responses=documented(403, 404, 409, 422)
)
async def create_cluster(
    request: Request,
    scope: Scope,
    body: CreateClusterRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Create a cluster with a control plane of its own."""
    scope.require(Role.ADMIN, "cluster.create", resource_type="workspace")
    nodes: NodeEndpoint = request.app.state.nodes
    network_profile = nodes.settings.default_network_profile
    if "network_profile" in body.model_fields_set:
        network_profile = body.network_profile
    machines = [
        each.wanted("body", "machines", str(position))
        for position, each in enumerate(body.machines)
    ]

    async def effect() -> OperationBody:
        operation = await cluster_changes.create(
            scope,
            name=body.name,
            region_id=body.region_id,
            network_profile=network_profile,
            machines=machines,
        )
        return operation_body(operation, links=Links.of(request))

    intent = body.model_dump(mode="json")
    if not machines:
        # Of keys that were used before there were such.
        del intent["machines"]
    return await answer_once(request, scope, idempotency_key, intent, 202, effect)


@router.get("/{id}", response_model=ClusterBody, responses=documented(403, 404))
async def get_cluster(request: Request, scope: Scope, cluster_id: Identifier) -> Response:
    """Get a cluster."""
    cluster = await find_cluster(scope.session, check_id(Prefix.CLUSTER, cluster_id))
    if cluster is None:
        raise not_found(Prefix.CLUSTER)
    return JSONResponse(cluster_body(cluster, links=Links.of(request)))


@router.patch("/{id}", response_model=ClusterBody, responses=documented(403, 404, 409, 422))
async def change_cluster(
    request: Request,
    scope: Scope,
    cluster_id: Identifier,
    body: ChangeClusterRequest,
    if_match: IfMatch,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Rename a cluster, or put it into another region of the workspace."""
    _require_admin(scope, "cluster.update", cluster_id)
    changes = body.model_dump(include=body.model_fields_set)

    async def effect() -> ClusterBody:
        cluster = await cluster_changes.change(
            scope, check_id(Prefix.CLUSTER, cluster_id), if_match, changes
        )
        return cluster_body(cluster, links=Links.of(request))

    intent = body.model_dump(mode="json", include=body.model_fields_set)
    if "kubeconfig" in intent:
        # A secret goes no further than it must; another one makes another request all the same.
        intent["kubeconfig"] = hashlib.sha256(body.kubeconfig.encode()).hexdigest()
    return await answer_once(request, scope, idempotency_key, intent, 200, effect)


@router.delete(
    "/{id}", status_code=202, response_model=OperationBody, responses=documented(403, 404, 409)
)
async def delete_cluster(
    request: Request,
    scope: Scope,
    cluster_id: Identifier,
    if_match: IfMatch,
    idempotency_key: IdempotencyKey = None,
    force: _Force = False,  # noqa: FBT002 - a query parameter
) -> Response:
    """Delete a cluster without machines and installs; what runs on it is stopped."""
    scope.require(Role.OWNER, "cluster.delete", resource_type="cluster", resource_id=cluster_id)
    verb = partial(cluster_changes.delete, force=force)
    intent = {"force": True} if force else {}
    return await _answer_with_operation(
        request, scope, cluster_id, if_match, idempotency_key, verb, intent
    )


@router.post(
    "/{id}:suspend",
    status_code=202,
    response_model=OperationBody,
    responses=documented(403, 404, 409),
)
async def suspend_cluster(
    request: Request,
    scope: Scope,
    cluster_id: Identifier,
    if_match: IfMatch,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Stop the control plane; its data stays."""
    _require_admin(scope, "cluster.suspend", cluster_id)
    return await _answer_with_operation(
        request, scope, cluster_id, if_match, idempotency_key, cluster_changes.suspend
    )


@router.post(
    "/{id}:resume",
    status_code=202,
    response_model=OperationBody,
    responses=documented(403, 404, 409),
)
async def resume_cluster(
    request: Request,
    scope: Scope,
    cluster_id: Identifier,
    if_match: IfMatch,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Start the control plane of a suspended cluster again."""
    _require_admin(scope, "cluster.resume", cluster_id)
    return await _answer_with_operation(
        request, scope, cluster_id, if_match, idempotency_key, cluster_changes.resume
    )


def cluster_body(row: ClusterRow, *, links: Links) -> ClusterBody:
    """Render a cluster."""
    return ClusterBody(
        id=row.id,
        html_url=links.cluster(row.id),
        name=row.name,
        workspace_id=row.workspace_id,
        region_id=row.region_id,
        state=row.state,
        provider=row.provider,
        network_profile=row.network_profile,
        reconciling=row.active_operation_id is not None,
        certificates=ClusterCertificates(
            expires_at=unix_or_none(row.certificates_expire_at),
            renewed_at=unix_or_none(row.certificates_renewed_at),
        ),
        created_at=unix(row.created_at),
        updated_at=unix(row.updated_at),
        etag=str(row.version),
    )


def _require_admin(scope: RequestScope, action: str, cluster_id: str) -> None:
    scope.require(Role.ADMIN, action, resource_type="cluster", resource_id=cluster_id)


async def _answer_with_operation(
    request: Request,
    scope: RequestScope,
    cluster_id: str,
    if_match: str,
    idempotency_key: str | None,
    verb: cluster_changes.Verb,
    intent: dict[str, Any] | None = None,
) -> Response:
    async def effect() -> OperationBody:
        operation = await verb(scope, check_id(Prefix.CLUSTER, cluster_id), if_match)
        return operation_body(operation, links=Links.of(request))

    return await answer_once(request, scope, idempotency_key, intent or {}, 202, effect)
