"""Members of a workspace, and what each may do in it.

Owners change them, who are users: a workspace's token acts as an admin, and what it gave away would
outlive it. An owner is made by the operator, or by making a workspace, and never here.
"""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from datetime import UTC
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request
from pydantic import StringConstraints
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api import member_changes
from api.errors import documented
from api.fields import Body, Cursor, IdempotencyKey, Identifier, Limit
from api.idempotency import answer_once
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.routes.workspace import check_acts_in
from api.scope import RequestScope, Scope
from domain.caller import PrincipalKind, Role
from domain.identifiers import Prefix
from infra.database.queries.member import names_of_members
from infra.database.queries.pages import page_of
from infra.database.tables import WorkspaceMemberRow

router = APIRouter(prefix="/workspaces", tags=["workspaces"])

UserId = Annotated[str, StringConstraints(max_length=54, pattern=r"^usr_[0-9a-f]{32}$")]
AssignableRole = Literal["admin", "member"]
MemberUserId = Annotated[str, Path(alias="userId")]


class AddMemberRequest(Body):
    """Who shall belong to the workspace, and what they may do there."""

    user_id: UserId
    role: AssignableRole


class ChangeMemberRequest(Body):
    """What a member may do from now on."""

    role: AssignableRole


class MemberBody(TypedDict):
    """The contract's WorkspaceMember; the user's name is ours."""

    id: str
    user_id: str
    name: str
    role: str
    joined_at: str


class MemberList(TypedDict):
    """One page."""

    data: list[MemberBody]
    has_more: bool
    next_cursor: str | None


@router.get("/{id}/members", response_model=MemberList, responses=documented(403, 404))
async def list_members(
    scope: Scope, workspace_id: Identifier, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Response:
    """List the workspace's members, newest first."""
    check_acts_in(scope, workspace_id)
    page = await page_of(
        scope.session,
        WorkspaceMemberRow,
        # A user sees the memberships in other workspaces too, which are their own.
        WorkspaceMemberRow.workspace_id == workspace_id,  # type: ignore[arg-type] # a column
        before=position_of(cursor, Prefix.MEMBER),
        limit=limit,
    )
    names = await names_of_members(scope.session)
    return JSONResponse(page_body(page, lambda row: _body(row, names)))


@router.post(
    "/{id}/members",
    status_code=201,
    response_model=MemberBody,
    responses=documented(403, 404, 409, 422),
)
async def add_member(
    request: Request,
    scope: Scope,
    workspace_id: Identifier,
    body: AddMemberRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Have a user belong to the workspace, as admin or member. Needs an owner."""
    check_acts_in(scope, workspace_id)
    scope.require(Role.OWNER, "member.add", resource_type="workspace")

    async def effect() -> MemberBody:
        row = await member_changes.add(scope, body.user_id, Role(body.role))
        return await _shown(scope, row)

    return await answer_once(request, scope, idempotency_key, body.model_dump(), 201, effect)


@router.patch(
    "/{id}/members/{userId}",
    response_model=MemberBody,
    responses=documented(403, 404, 409, 422),
)
async def change_member(
    request: Request,
    scope: Scope,
    workspace_id: Identifier,
    user_id: MemberUserId,
    body: ChangeMemberRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Give a member another role. Needs an owner; the last one stays it."""
    check_acts_in(scope, workspace_id)
    scope.require(Role.OWNER, "member.update", resource_type="workspace")

    async def effect() -> MemberBody:
        return await _shown(scope, await member_changes.change(scope, user_id, Role(body.role)))

    return await answer_once(request, scope, idempotency_key, body.model_dump(), 200, effect)


@router.delete("/{id}/members/{userId}", status_code=204, responses=documented(403, 404, 409))
async def remove_member(
    request: Request,
    scope: Scope,
    workspace_id: Identifier,
    user_id: MemberUserId,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Remove a member, and the workspace's tokens that they made. Needs an owner, or is oneself."""
    check_acts_in(scope, workspace_id)
    is_self = scope.caller.kind is PrincipalKind.USER and scope.caller.principal_id == user_id
    if not is_self:
        scope.require(Role.OWNER, "member.remove", resource_type="workspace")

    async def effect() -> dict[str, str]:
        await member_changes.remove(scope, user_id)
        return {}

    return await answer_once(request, scope, idempotency_key, {}, 204, effect)


async def _shown(scope: RequestScope, row: WorkspaceMemberRow) -> MemberBody:
    return _body(row, await names_of_members(scope.session))


def _body(row: WorkspaceMemberRow, names: dict[str, str]) -> MemberBody:
    return MemberBody(
        id=row.id,
        user_id=row.user_id,
        name=names.get(row.user_id, ""),
        role=row.role,
        joined_at=row.joined_at.astimezone(UTC).isoformat(),
    )
