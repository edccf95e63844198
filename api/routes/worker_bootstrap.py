"""Worker bootstraps: one-time, expiring rights of a server to join a cluster."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, NotRequired

from fastapi import APIRouter, Path, Request
from pydantic import Field
from sqlmodel import col
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api import bootstrap_changes
from api.errors import documented
from api.fields import Body, Cursor, IdempotencyKey, Identifier, IfMatch, Limit
from api.idempotency import answer_once
from api.links import Links
from api.node_endpoint import PLATFORMS, NodeEndpoint
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.routes.operation import OperationBody, operation_body
from api.scope import RequestScope, Scope
from domain.caller import Role
from domain.identifiers import Prefix
from domain.worker_bootstrap import (
    DEFAULT_TTL_SECONDS,
    LONGEST_TTL_SECONDS,
    SHORTEST_TTL_SECONDS,
    BootstrapStatus,
    status_of,
)
from infra.database.queries.operation import find_operations
from infra.database.queries.pages import page_of
from infra.database.tables import OperationRow, WorkerBootstrapRow
from infra.database.tables.columns import unix, unix_or_none
from infra.node_setup import bootstrap_cloud_init, bootstrap_command

router = APIRouter(prefix="/clusters", tags=["worker bootstraps"])

# Told once, by the answer to the request that made it.
_ONE_TIME: Final = frozenset({"token", "command", "cloud_init", "artifacts"})

BootstrapId = Annotated[str, Path(alias="wbs_id")]


class CreateBootstrapRequest(Body):
    """How long the token is good for."""

    ttl_seconds: Annotated[int, Field(ge=SHORTEST_TTL_SECONDS, le=LONGEST_TTL_SECONDS)] = (
        DEFAULT_TTL_SECONDS
    )


class ActiveOperation(TypedDict):
    """The operation that runs on it."""

    id: str
    type: str
    started_at: int


class BootstrapArtifact(TypedDict):
    """How a server of one platform joins, if it can."""

    supported: bool
    command: NotRequired[str]
    shell: NotRequired[Literal["bash"]]
    download_url: NotRequired[str]
    cloud_init: NotRequired[str]


class BootstrapArtifacts(TypedDict):
    """The same for each operating system and architecture."""

    linux: dict[str, BootstrapArtifact]
    windows: dict[str, BootstrapArtifact]


class BootstrapBody(TypedDict):
    """The contract's WorkerBootstrap; `used_at`, `machine_id` and `revoke_effect` are ours.

    The last four are in the answer to the request that made it, and nowhere else.
    """

    id: str
    cluster_id: str
    status: BootstrapStatus
    created_at: int
    updated_at: int
    expires_at: int
    used_at: int | None
    machine_id: str | None
    revoke_effect: str
    etag: str
    reconciling: bool
    active_operation: ActiveOperation | None
    token: NotRequired[str]
    command: NotRequired[str]
    cloud_init: NotRequired[str]
    artifacts: NotRequired[BootstrapArtifacts]


class BootstrapList(TypedDict):
    """One page."""

    data: list[BootstrapBody]
    has_more: bool
    next_cursor: str | None


@router.post(
    "/{id}/worker_bootstraps",
    status_code=201,
    response_model=BootstrapBody,
    responses=documented(403, 404, 409, 422),
)
async def create_worker_bootstrap(
    request: Request,
    scope: Scope,
    cluster_id: Identifier,
    body: CreateBootstrapRequest | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Give out a right of one server to join; token and commands are told once, now."""
    scope.require(
        Role.ADMIN, "worker_bootstrap.create", resource_type="cluster", resource_id=cluster_id
    )
    wanted = body or CreateBootstrapRequest()

    async def effect() -> BootstrapBody:
        nodes: NodeEndpoint = request.app.state.nodes
        bootstrap, token = await bootstrap_changes.create(scope, cluster_id, wanted.ttl_seconds)
        shown = bootstrap_body(bootstrap, {})
        await asyncio.to_thread(_tell_once, nodes, token, shown)
        return shown

    answer = await answer_once(
        request, scope, idempotency_key, wanted.model_dump(), 201, effect, one_time=_ONE_TIME
    )
    answer.headers["cache-control"] = "no-store"
    return answer


@router.get("/{id}/worker_bootstraps", response_model=BootstrapList, responses=documented(403, 404))
async def list_worker_bootstraps(
    scope: Scope, cluster_id: Identifier, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Response:
    """List the worker bootstraps of a cluster, newest first; never their tokens."""
    await bootstrap_changes.cluster_of(scope, cluster_id)
    page = await page_of(
        scope.session,
        WorkerBootstrapRow,
        col(WorkerBootstrapRow.cluster_id) == cluster_id,
        before=position_of(cursor, Prefix.WORKER_BOOTSTRAP),
        limit=limit,
    )
    running = await _running(scope, page.rows)
    return JSONResponse(page_body(page, lambda row: bootstrap_body(row, running)))


@router.get(
    "/{id}/worker_bootstraps/{wbs_id}",
    response_model=BootstrapBody,
    responses=documented(403, 404),
)
async def get_worker_bootstrap(
    scope: Scope, cluster_id: Identifier, bootstrap_id: BootstrapId
) -> Response:
    """Get a worker bootstrap; never its token."""
    await bootstrap_changes.cluster_of(scope, cluster_id)
    found = await bootstrap_changes.one(scope, cluster_id, bootstrap_id)
    return JSONResponse(bootstrap_body(found, await _running(scope, [found])))


@router.post(
    "/{id}/worker_bootstraps/{wbs_id}:revoke",
    status_code=202,
    response_model=OperationBody,
    responses=documented(403, 404, 409),
)
async def revoke_worker_bootstrap(
    request: Request,
    scope: Scope,
    cluster_id: Identifier,
    bootstrap_id: BootstrapId,
    if_match: IfMatch,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Make the token of a worker bootstrap useless, at once."""
    scope.require(
        Role.ADMIN, "worker_bootstrap.revoke", resource_type="cluster", resource_id=cluster_id
    )

    async def effect() -> OperationBody:
        operation = await bootstrap_changes.revoke(scope, cluster_id, bootstrap_id, if_match)
        return operation_body(operation, links=Links.of(request))

    return await answer_once(request, scope, idempotency_key, {}, 202, effect)


def bootstrap_body(row: WorkerBootstrapRow, running: Mapping[str, OperationRow]) -> BootstrapBody:
    """Render a worker bootstrap with its running operation, if it is among those given."""
    operation = running.get(row.active_operation_id or "")
    status = status_of(revoked_at=row.revoked_at, expires_at=row.expires_at, now=datetime.now(UTC))
    return BootstrapBody(
        id=row.id,
        cluster_id=row.cluster_id,
        status=status,
        created_at=unix(row.created_at),
        updated_at=unix(row.updated_at),
        expires_at=unix(row.expires_at),
        used_at=unix_or_none(row.used_at),
        machine_id=row.machine_id,
        revoke_effect=_revoke_effect(row, status),
        etag=str(row.version),
        reconciling=row.active_operation_id is not None,
        active_operation=None
        if operation is None
        else ActiveOperation(
            id=operation.id, type=operation.type, started_at=unix(operation.started_at)
        ),
    )


def _revoke_effect(row: WorkerBootstrapRow, status: BootstrapStatus) -> str:
    if row.used_at is not None:
        return (
            f"Nothing: the token was used by {row.machine_id}, which stays in the cluster or goes "
            "on joining it. To take that machine out, delete it."
        )
    if status is BootstrapStatus.ACTIVE:
        return (
            "The token stops working: a server that has the command but did not register yet is "
            "refused. Machines that joined stay as they are."
        )
    return "Nothing: the token joins no server any more. Machines that joined stay as they are."


def _tell_once(nodes: NodeEndpoint, token: str, shown: BootstrapBody) -> None:
    """Add what is told once.

    Raises:
        BulkheadError: FAILED_PRECONDITION when no server can join this platform.
    """
    url = nodes.url
    # Whoever asks for a command that nobody could run is told so now, and not on the server.
    supported = nodes.supported() or [nodes.artifacts_for(PLATFORMS[0]).manifest.platform]
    command = bootstrap_command(url, nodes.authority_sha256(), token)
    cloud_init = bootstrap_cloud_init(url, nodes.authority(), token)
    artifacts = BootstrapArtifacts(linux={}, windows={"amd64": {"supported": False}})
    how: BootstrapArtifact = {
        "supported": True,
        "command": command,
        "shell": "bash",
        "download_url": f"{url}/v1/nodes/script",
        "cloud_init": cloud_init,
    }
    for platform in PLATFORMS:
        architecture = platform.partition("/")[2]
        artifacts["linux"][architecture] = how if platform in supported else {"supported": False}
    artifacts["windows"]["arm64"] = BootstrapArtifact(supported=False)
    shown["token"] = token
    shown["command"] = command
    shown["cloud_init"] = cloud_init
    shown["artifacts"] = artifacts


async def _running(
    scope: RequestScope, rows: Sequence[WorkerBootstrapRow]
) -> dict[str, OperationRow]:
    wanted = [row.active_operation_id for row in rows if row.active_operation_id is not None]
    found = await find_operations(scope.session, wanted) if wanted else []
    return {operation.id: operation for operation in found}
