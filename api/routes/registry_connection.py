"""Registry connections: the logins with which charts are read from private registries."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from typing import Annotated, Final

from fastapi import APIRouter, Request
from pydantic import Field, StringConstraints
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api import registry_changes
from api.errors import documented
from api.fields import PRINTABLE, Body, Cursor, IdempotencyKey, Identifier, Limit, Name
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.registry_changes import ConnectionBody, NewConnection, connection_body
from api.scope import Context, RequestScope, Scope, open_scope
from api.secret_saga import add_version
from domain.caller import Role
from domain.caller import Scope as SecretScope
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from domain.package import RegistryAuthentication
from domain.registry import RegistryAddress
from domain.secret import SecretValue
from infra.database.queries.pages import page_of
from infra.database.tables import RegistryConnectionRow
from infra.helm.logins import RegistryLogin, login_of, secret_text_of

router = APIRouter(prefix="/registry_connections", tags=["registry_connections"])

# What they hold is checked where it is read: an error of pydantic's may quote what it checks.
_Credential = Annotated[str | None, Field(json_schema_extra={"writeOnly": True})]


# The contract's bounds, in characters.
_LONGEST: Final = {
    "username": 200,
    "password": 500,
    "token": 2000,
    "client_id": 200,
    "client_secret": 500,
    "token_url": 2048,
}


class CredentialsRequest(Body):
    """What the type needs: a name and a password, a token, or a client and where to ask."""

    username: _Credential = None
    password: _Credential = None
    token: _Credential = None
    client_id: _Credential = None
    client_secret: _Credential = None
    token_url: _Credential = None


class CreateConnectionRequest(Body):
    """A connection to be made; its credential becomes a secret of the workspace."""

    name: Name
    registry_url: Annotated[
        str, StringConstraints(min_length=1, max_length=2048, pattern=PRINTABLE)
    ]
    type: Annotated[RegistryAuthentication, Field(strict=False)]
    credentials: CredentialsRequest


class ConnectionList(TypedDict):
    """One page."""

    data: list[ConnectionBody]
    has_more: bool
    next_cursor: str | None


@router.get("", response_model=ConnectionList, responses=documented(403))
async def list_connections(
    scope: Scope, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Response:
    """List the workspace's registry connections, newest first."""
    before = position_of(cursor, Prefix.REGISTRY_CONNECTION)
    page = await page_of(scope.session, RegistryConnectionRow, before=before, limit=limit)
    secrets = await registry_changes.secrets_of(scope.session, page.rows)

    def render(row: RegistryConnectionRow) -> ConnectionBody:
        return connection_body(row, secrets.get(row.secret_id))

    return JSONResponse(page_body(page, render))


@router.post(
    "", status_code=201, response_model=ConnectionBody, responses=documented(403, 409, 422)
)
async def create_connection(
    request: Request,
    context: Context,
    body: CreateConnectionRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Store a login; charts at the address, and below it, are read with it."""
    async with open_scope(request, context) as scope:
        _require_admin(scope, "registry_connection.create")
    _check_address(body.registry_url)
    login = _login_in(body)
    addition = NewConnection(
        value=SecretValue.of_text(secret_text_of(login)),
        name=body.name,
        registry_url=body.registry_url,
        type=body.type,
    )
    intent = body.model_dump(mode="json")
    return await add_version(request, context, idempotency_key, intent, addition)


@router.delete("/{id}", status_code=204, responses=documented(403, 404, 409))
async def delete_connection(scope: Scope, connection_id: Identifier) -> Response:
    """Delete a connection that no package needs, and the secret that was made for it."""
    _require_admin(scope, "registry_connection.delete", connection_id)
    scope.require_scope(
        SecretScope.SECRETS_WRITE,
        "registry_connection.delete",
        resource_type="registry_connection",
        resource_id=connection_id,
    )
    await registry_changes.delete(scope, connection_id)
    return Response(status_code=204)


def _login_in(body: CreateConnectionRequest) -> RegistryLogin:
    credentials = body.credentials.model_dump(exclude_none=True)
    for name, value in credentials.items():
        if len(value) > _LONGEST[name]:
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                f"This has more than {_LONGEST[name]} characters.",
                path=("body", "credentials", name),
            )
    try:
        return login_of(body.type, credentials)
    except BulkheadError as error:
        raise BulkheadError(error.reason, error.message, path=("body", *error.path)) from None


def _check_address(url: str) -> None:
    try:
        RegistryAddress.parse(url)
    except BulkheadError as error:
        raise BulkheadError(error.reason, error.message, path=("body", "registry_url")) from None


def _require_admin(scope: RequestScope, action: str, connection_id: str = "") -> None:
    scope.require(
        Role.ADMIN, action, resource_type="registry_connection", resource_id=connection_id
    )
