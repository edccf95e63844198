"""API tokens: credentials of a workspace.

A token acts as admin of its workspace, whoever of its owners and admins created it. What only an
owner may do needs a user's own token.
"""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from datetime import UTC, datetime
from typing import Annotated, NotRequired

from fastapi import APIRouter, Request
from pydantic import Field, Strict
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api.errors import documented
from api.fields import Body, Cursor, IdempotencyKey, Identifier, Limit, Name, check_id, not_found
from api.idempotency import answer_once
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.quotas import check_quota
from api.scope import RequestScope, Scope
from domain.caller import PrincipalKind, Role
from domain.caller import Scope as SecretScope
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.quota import QuotaMetric
from domain.tokens import TokenKind, display_prefix_of, hash_of, new_token
from infra.database.queries.pages import page_of
from infra.database.queries.workspace import find_api_token_end, remove_api_token
from infra.database.tables import ApiTokenRow
from infra.database.tables.columns import unix, unix_or_none

router = APIRouter(prefix="/api_tokens", tags=["api_tokens"])

# The end of the year 9999, the last that a timestamp of ours can name.
_LAST_SECOND = 253402300799


class CreateApiTokenRequest(Body):
    """A token to be made; without an end it is valid until it is deleted.

    Only an owner gives scopes, and none implies another; without them it reads and changes no
    secret. What uses one already, such as a compute config, it may use.
    """

    name: Name
    expires_at: Annotated[int, Field(ge=0, le=_LAST_SECOND)] | None = None
    scopes: Annotated[
        # An enum is a string in JSON.
        list[Annotated[SecretScope, Strict(strict=False)]],
        Field(max_length=len(SecretScope), description="What it may do with secrets."),
    ] = []  # noqa: RUF012 - pydantic copies it


class CreatedApiToken(TypedDict):
    """The answer to a create; `token` is shown this once, and not when the request is replayed."""

    id: str
    workspace_id: str
    name: str
    token: NotRequired[str]
    scopes: list[str]


class ApiTokenBody(TypedDict):
    """The contract's ApiToken."""

    id: str
    workspace_id: str
    name: str
    prefix: str
    scopes: list[str]
    created_at: int
    last_used_at: int | None
    expires_at: int | None


class ApiTokenList(TypedDict):
    """One page."""

    data: list[ApiTokenBody]
    has_more: bool
    next_cursor: str | None


@router.get("", response_model=ApiTokenList, responses=documented(403))
async def list_api_tokens(
    scope: Scope, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Response:
    """List the workspace's tokens, newest first, without what they are made of."""
    before = position_of(cursor, Prefix.API_TOKEN)
    page = await page_of(scope.session, ApiTokenRow, before=before, limit=limit)
    return JSONResponse(page_body(page, api_token_body))


@router.post(
    "", status_code=201, response_model=CreatedApiToken, responses=documented(403, 409, 422)
)
async def create_api_token(
    request: Request,
    scope: Scope,
    body: CreateApiTokenRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Create a token, and show it once."""
    scope.require(Role.ADMIN, "api_token.create", resource_type="workspace")
    if body.scopes:
        # Otherwise an admin could give away what an admin does not have.
        scope.require(Role.OWNER, "api_token.grant_scopes", resource_type="workspace")
    await _refuse_to_outlive_caller(scope, body.expires_at)

    async def effect() -> CreatedApiToken:
        return await _create(scope, body)

    response = await answer_once(
        request,
        scope,
        idempotency_key,
        body.model_dump(),
        201,
        effect,
        one_time=frozenset({"token"}),
    )
    response.headers["cache-control"] = "no-store"
    return response


@router.delete("/{id}", status_code=204, responses=documented(403, 404))
async def delete_api_token(scope: Scope, token_id: Identifier) -> Response:
    """Revoke a token at once."""
    scope.require(Role.ADMIN, "api_token.delete", resource_type="api_token", resource_id=token_id)
    if not await remove_api_token(scope.session, check_id(Prefix.API_TOKEN, token_id)):
        raise not_found(Prefix.API_TOKEN)
    scope.audit("api_token.delete", "api_token", token_id)
    return Response(status_code=204)


def api_token_body(row: ApiTokenRow) -> ApiTokenBody:
    """Render a token's description."""
    return ApiTokenBody(
        id=row.id,
        workspace_id=row.workspace_id,
        name=row.name,
        prefix=row.prefix,
        scopes=row.scopes,
        created_at=unix(row.created_at),
        last_used_at=unix_or_none(row.last_used_at),
        expires_at=unix_or_none(row.expires_at),
    )


async def _create(scope: RequestScope, body: CreateApiTokenRequest) -> CreatedApiToken:
    await check_quota(scope, QuotaMetric.API_TOKENS)
    end = _end_of(body.expires_at)
    token = new_token(TokenKind.WORKSPACE)
    row = ApiTokenRow(
        workspace_id=scope.caller.workspace_id,
        id=new_id(Prefix.API_TOKEN),
        name=body.name,
        role=Role.ADMIN,
        scopes=sorted(set(body.scopes)),
        prefix=display_prefix_of(token),
        token_hash=hash_of(token),
        created_by=scope.caller.principal_id,
        expires_at=end,
    )
    scope.rows.add(row)
    scope.audit(
        "api_token.create",
        "api_token",
        row.id,
        expires_at=body.expires_at,
        scopes=" ".join(row.scopes),
    )
    await scope.rows.write(scope.session)
    return CreatedApiToken(
        id=row.id,
        workspace_id=row.workspace_id,
        name=row.name,
        token=token,
        scopes=row.scopes,
    )


def _end_of(expires_at: int | None) -> datetime | None:
    if expires_at is None:
        return None
    end = datetime.fromtimestamp(expires_at, UTC)
    if end <= datetime.now(UTC):
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "This lies in the past; leave it out for a token without an end.",
            path=("body", "expires_at"),
        )
    return end


async def _refuse_to_outlive_caller(scope: RequestScope, end: int | None) -> None:
    """Keep a token that ends, and got into the wrong hands, from making one that does not."""
    if scope.caller.kind is not PrincipalKind.API_TOKEN:
        return
    latest = await find_api_token_end(scope.session, scope.caller.principal_id)
    if latest is not None and (end is None or end > unix(latest)):
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            f"A token may not outlive the one that makes it; set this to {unix(latest)} at most.",
            path=("body", "expires_at"),
        )
