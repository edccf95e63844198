"""Logs of installs: what the customer's applications write, passed on to who asks, and not kept.

They may carry secrets, so nobody reads them from here before an owner turns that on.
"""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from contextlib import AsyncExitStack
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from api.errors import documented
from api.fields import Identifier
from api.install_reading import readable_install
from api.log_events import LogResponse, LogStreams, positions_in
from api.scope import Context, RequestScope, open_scope
from domain.caller import Role
from domain.errors import BulkheadError, Reason
from infra.database.queries.workspace import find_workspace
from infra.kubernetes.pod_logs import LogSelection, LogStream
from infra.kubernetes.pods import PodPlace, PodReader

router = APIRouter(prefix="/installs", tags=["installs"])

_ACTION: Final = "install.logs"

# As Kubernetes names pods and containers; the contract allows as many characters to both.
_NAME: Final = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"

_Name = Annotated[str | None, Query(min_length=1, max_length=253, pattern=_NAME)]
_Lines = Annotated[
    int | None, Query(ge=0, le=1_000_000, description="The last lines of each container.")
]
_Seconds = Annotated[
    int | None,
    Query(ge=0, le=315_360_000, description="Lines that are no older; 0: however old they are."),
]
_Position = Annotated[
    str | None,
    Header(
        alias="last-event-id",
        max_length=8192,
        description="The last `id` that came: what was read before it is left out.",
    ),
]

_EVENTS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Events: `message`, with a line; `end`, after the last one; "
        "`effect/httpapi/stream/failure`, with what went wrong. A stream that ends without one "
        "of the latter two goes on when it is asked for again with `Last-Event-ID`.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.get(
    "/{id}/logs",
    responses={**documented(403, 404, 409), **_EVENTS},
)
async def stream_logs(
    request: Request,
    context: Context,
    install_id: Identifier,
    pod: _Name = None,
    container: _Name = None,
    follow: bool | None = True,  # noqa: FBT001, FBT002 - the contract's
    tail: _Lines = None,
    since_seconds: _Seconds = None,
    last_event_id: _Position = None,
) -> Response:
    """Stream the logs of an install's containers. They may carry secrets: see who reads them."""
    # Committed before anything is read: what cannot be audited is not disclosed.
    async with open_scope(request, context) as scope:
        place = await _readable(scope, install_id)
        scope.audit(_ACTION, "install", install_id)

    async def recheck() -> None:
        async with open_scope(request, context) as again:
            await _readable(again, install_id)

    selection = LogSelection(
        pod=pod,
        container=container,
        follow=follow is not False,
        tail=tail,
        since_seconds=since_seconds,
        after=positions_in(last_event_id),
    )
    streams: LogStreams = request.app.state.log_streams
    async with AsyncExitStack() as stack:
        streams.enter(place.workspace_id)
        stack.callback(streams.leave, place.workspace_id)
        reader = await stack.enter_async_context(PodReader(scope.clients.openbao, place))
        stream = LogStream(reader, selection)
        stream.check(await reader.list_pods())
        return LogResponse(
            stream,
            recheck=recheck,
            closing=scope.clients.changes.until_closing,
            held=stack.pop_all(),
            positions=selection.after,
        )


async def _readable(scope: RequestScope, install_id: str) -> PodPlace:
    scope.require(Role.ADMIN, _ACTION, resource_type="install", resource_id=install_id)
    place = await readable_install(scope, install_id)
    workspace = await find_workspace(scope.session, scope.caller.workspace_id)
    if workspace is None or not workspace.install_logs_enabled:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "Logs are off in this workspace, for applications may write secrets into them. An "
            'owner turns them on by PATCH /v1/workspaces/{id} with {"install_logs_enabled": true}.',
        )
    return place
