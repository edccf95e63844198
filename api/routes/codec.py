"""The codec server: opens workflows' payloads for Temporal's UI and CLI, to whom the API lets.

The protocol is theirs: `POST /decode` below the address that they are told, a protobuf `Payloads`
as JSON in and out. The CLI sends a token of ours (`--codec-auth "Bearer ..."`). The UI has none to
send; a browser that was signed in at `GET /codec` sends it as HTTP Basic, which it keeps for this
origin alone and for as long as it runs. Nothing here changes anything, and only the UI's own
origin may read the answers, so that another site gains nothing from a signed-in browser.
"""

import base64
import binascii
import contextlib
import json
from typing import Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from google.protobuf import json_format
from starlette.responses import PlainTextResponse, Response
from temporalio.api.common.v1 import Payload, Payloads

from api.errors import error_response
from api.repeated_keys import refuse_repeated_keys_in
from api.scope import RequestScope, open_scope
from domain.caller import Role
from domain.errors import BulkheadError, Reason
from domain.names import operation_id_of
from domain.operation import OwnerType
from infra.database.queries.operation import find_operation
from infra.database.tables import SecretRow
from infra.temporal.codec import SealingCodec, workflow_of

router = APIRouter(prefix="/codec", include_in_schema=False)

_NO_STORE: Final = {"cache-control": "no-store"}
_BASIC: Final = {"www-authenticate": 'Basic realm="bulkhead payloads", charset="UTF-8"'}

# A page of the UI is about one workflow, and sometimes its parent.
_MOST_WORKFLOWS: Final = 20


def origin_of(ui_url: str | None) -> str | None:
    """Return the origin with which a browser that shows the UI names it."""
    if ui_url is None:
        return None
    parts = urlsplit(ui_url)
    return f"{parts.scheme}://{parts.netloc}".lower()


@router.get("")
async def sign_in(request: Request) -> Response:
    """Have a browser ask for a token, as the password of any user, and say whether it is good."""
    try:
        async with open_scope(
            request, None, token=_token_of(request), may_lack_workspace=True
        ) as scope:
            # Of several workspaces each payload names its own.
            if scope.caller.workspace_id:
                _require(scope)
    except BulkheadError as error:
        answer = error_response(error)
        if error.reason is Reason.UNAUTHENTICATED:
            answer.headers.update(_BASIC)
        return answer
    return PlainTextResponse("Signed in: go back to Temporal's UI and reload.", headers=_NO_STORE)


@router.options("/decode")
async def preflight(request: Request) -> Response:
    """Tell a browser that the UI may ask."""
    return Response(status_code=204, headers=_cors(request))


@router.post("/decode")
async def decode(request: Request) -> Response:
    """Open payloads of workflows of the caller's workspace; what is not sealed stays as it is."""
    try:
        answer = await _decode(request)
    except BulkheadError as error:
        answer = error_response(error)
    answer.headers.update(_cors(request))
    return answer


async def _decode(request: Request) -> Response:
    payloads = _payloads_in(await request.body())
    named = {name for payload in payloads.payloads if (name := workflow_of(payload)) is not None}
    if len(named) > _MOST_WORKFLOWS:
        message = f"One request opens payloads of at most {_MOST_WORKFLOWS} workflows."
        raise BulkheadError(Reason.INVALID_ARGUMENT, message, path=("body",))
    resource = next((_resource_of(name) for name in sorted(named)), None)
    context = request.headers.get("akua-context")
    async with open_scope(request, context, token=_token_of(request), resource=resource) as scope:
        _require(scope)
        connection = scope.clients.temporal
        if request.headers.get("x-namespace", connection.namespace) != connection.namespace:
            raise _not_found()
        for workflow_id in named:
            if not await _is_own(scope, workflow_id):
                raise _not_found()
    opened = [await _open(connection.codec, payload) for payload in payloads.payloads]
    body = json_format.MessageToJson(Payloads(payloads=opened), indent=None)
    return Response(body, media_type="application/json", headers=_NO_STORE)


async def _open(codec: SealingCodec, payload: Payload) -> Payload:
    if workflow_of(payload) is None:
        return payload
    try:
        return await codec.open(payload)
    except BulkheadError as error:
        if error.reason is Reason.INTERNAL:
            raise BulkheadError(
                Reason.INVALID_ARGUMENT, error.message, path=("body", "payloads")
            ) from None
        raise


def _payloads_in(body: bytes) -> Payloads:
    refuse_repeated_keys_in(body)
    with contextlib.suppress(json_format.ParseError, ValueError, RecursionError):
        fields = json.loads(body)
        # Half of a surrogate pair is JSON, and no text: protobuf breaks at it.
        json.dumps(fields, ensure_ascii=False).encode()
        # Of a list or a text the parser would make a message without fields.
        if isinstance(fields, dict):
            return json_format.ParseDict(fields, Payloads(), ignore_unknown_fields=True)
    raise BulkheadError(
        Reason.INVALID_ARGUMENT,
        "The body is no protobuf `Payloads` as JSON.",
        path=("body",),
        status=400,
    )


def _token_of(request: Request) -> str | None:
    """Return the token that came as the password of HTTP Basic, if one did."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _require(scope: RequestScope) -> None:
    scope.require(Role.ADMIN, "payloads.decode", resource_type="workspace")


def _resource_of(workflow_id: str) -> str:
    return operation_id_of(workflow_id) or _owner_of(workflow_id)[1]


def _owner_of(workflow_id: str) -> tuple[str, str]:
    """Return the kind and the id that begin a workflow's id."""
    kind, _, rest = workflow_id.partition("/")
    return kind, rest.partition("/")[0]


async def _is_own(scope: RequestScope, workflow_id: str) -> bool:
    """Tell whether a workflow works for the caller's workspace; the platform's own never do."""
    if not workflow_id.isprintable():
        return False
    kind, owner = _owner_of(workflow_id)
    operation_id = operation_id_of(workflow_id)
    if kind == OwnerType.WORKSPACE:
        return owner == scope.caller.workspace_id
    if operation_id is not None:
        # Row-level security shows the workspace's rows alone.
        row = await find_operation(scope.session, operation_id)
        return row is not None and (row.owner_type, row.owner_id) == (kind, owner)
    if kind == OwnerType.SECRET:
        key = (scope.caller.workspace_id, owner)
        return await scope.session.get(SecretRow, key) is not None
    return False


def _cors(request: Request) -> dict[str, str]:
    allowed: str | None = request.app.state.codec_origin
    if allowed is None or request.headers.get("origin", "").lower() != allowed:
        return {"vary": "origin"}
    return {
        "vary": "origin",
        "access-control-allow-origin": allowed,
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "POST",
        "access-control-allow-headers": "authorization, content-type, x-namespace",
        "access-control-max-age": "600",
    }


def _not_found() -> BulkheadError:
    return BulkheadError(
        Reason.NOT_FOUND,
        "This workspace has no such workflow. Workflows of the platform's own schedules belong to "
        "none.",
    )
