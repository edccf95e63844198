"""Grants: which vendor may move which install, as both sides see it."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from collections.abc import Callable, Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api import grant_changes
from api.errors import documented
from api.fields import (
    PRINTABLE,
    Cursor,
    IdempotencyKey,
    Identifier,
    Limit,
    OptionalIfMatch,
    check_id,
    not_found,
)
from api.idempotency import answer_once
from api.install_bodies import GrantBody, grant_body
from api.install_requests import ConsentRequest, CreateGrantRequest
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.routes.install import workspace_name
from api.scope import RequestScope, Scope
from domain.caller import Role
from domain.identifiers import Prefix
from infra.database.queries.install import (
    find_grant,
    names_of_customers,
    page_of_grants,
    versions_that_wait,
)
from infra.database.tables import GrantRow

router = APIRouter(prefix="/grants", tags=["grants"])

_Filter = Annotated[str | None, Query(min_length=1, max_length=55, pattern=PRINTABLE)]


class GrantList(TypedDict):
    """One page."""

    data: list[GrantBody]
    has_more: bool
    next_cursor: str | None


@router.post(
    "", status_code=201, response_model=GrantBody, responses=documented(403, 404, 409, 422)
)
async def create_grant(
    request: Request,
    scope: Scope,
    body: CreateGrantRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Let the vendor of an install's product move it, until the grant is revoked."""
    scope.require(Role.ADMIN, "grant.create", resource_type="workspace")

    async def effect() -> GrantBody:
        grant = await grant_changes.create(scope, body.install_id, body.consent)
        return grant_body(grant, await workspace_name(scope), scope.caller.workspace_id)

    intent = body.model_dump(mode="json")
    return await answer_once(request, scope, idempotency_key, intent, 201, effect)


@router.get("", response_model=GrantList, responses=documented(403))
async def list_grants(
    scope: Scope,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    install_id: _Filter = None,
    product_id: _Filter = None,
) -> Response:
    """List the grants that the workspace gave, revoked ones too, and those that it has."""
    page = await page_of_grants(
        scope.session,
        install_id=install_id,
        product_id=product_id,
        before=position_of(cursor, Prefix.GRANT),
        limit=limit,
    )
    return JSONResponse(page_body(page, await _renderer(scope, page.rows)))


@router.get("/{id}", response_model=GrantBody, responses=documented(403, 404))
async def get_grant(scope: Scope, grant_id: Identifier) -> Response:
    """Get a grant."""
    row = await find_grant(scope.session, check_id(Prefix.GRANT, grant_id))
    if row is None:
        raise not_found(Prefix.GRANT)
    render = await _renderer(scope, [row])
    return JSONResponse(render(row))


@router.delete("/{id}", response_model=GrantBody, responses=documented(403, 404, 409))
async def revoke_grant(
    request: Request,
    scope: Scope,
    grant_id: Identifier,
    if_match: OptionalIfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Revoke a grant: from the answer on, nothing of the vendor's begins to move the install."""
    _require_admin(scope, "grant.revoke", grant_id)

    async def effect() -> GrantBody:
        grant = await grant_changes.revoke(scope, grant_id, if_match)
        return grant_body(grant, await workspace_name(scope), scope.caller.workspace_id)

    return await answer_once(request, scope, idempotency_key, {}, 200, effect)


@router.post("/{id}:consent", response_model=GrantBody, responses=documented(403, 404, 409, 422))
async def give_consent(
    request: Request,
    scope: Scope,
    grant_id: Identifier,
    body: ConsentRequest,
    if_match: OptionalIfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Let the vendor's rollouts bring one version, where the customer is asked each time."""
    _require_admin(scope, "grant.consent", grant_id)

    async def effect() -> GrantBody:
        version_id = body.package_version_id
        grant = await grant_changes.give_consent(scope, grant_id, if_match, version_id)
        # Another rollout may wait with another version.
        await scope.session.flush()
        render = await _renderer(scope, [grant])
        return render(grant)

    return await answer_once(request, scope, idempotency_key, body.model_dump(), 200, effect)


def _require_admin(scope: RequestScope, action: str, grant_id: str) -> None:
    scope.require(Role.ADMIN, action, resource_type="grant", resource_id=grant_id)


async def _renderer(
    scope: RequestScope, rows: Sequence[GrantRow]
) -> Callable[[GrantRow], GrantBody]:
    """Read what grants are shown with, and return how one of them is rendered."""
    own = scope.caller.workspace_id
    others = {row.workspace_id for row in rows} - {own}
    names = {own: await workspace_name(scope), **await names_of_customers(scope.session, others)}
    asked = [row for row in rows if row.workspace_id == own and row.revoked_at is None]
    waiting = await versions_that_wait(scope.session, [row.install_id for row in asked])
    by_grant = {row.id: waiting.get(row.install_id) for row in asked}
    return lambda row: grant_body(row, names[row.workspace_id], own, by_grant.get(row.id))
