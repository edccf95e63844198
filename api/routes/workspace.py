"""Workspaces."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

import dataclasses
import re
import secrets
import string
from typing import Annotated, Any, NotRequired

from fastapi import APIRouter, Request
from pydantic import StringConstraints
from sqlalchemy.exc import IntegrityError
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api.errors import documented
from api.fields import (
    Body,
    Cursor,
    IdempotencyKey,
    Identifier,
    IfMatch,
    Limit,
    Name,
    check_etag,
    check_id,
    not_found,
)
from api.idempotency import answer_once, intent_of_caller
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.scope import RequestScope, Scope, UserScope
from domain.caller import PrincipalKind, Role
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from infra.database.queries.access import act_in
from infra.database.queries.pages import page_of
from infra.database.queries.workspace import (
    add_workspace,
    change_workspace,
    find_workspace,
    first_workspace_id,
)
from infra.database.tables import WorkspaceMemberRow, WorkspaceRow
from infra.database.tables.columns import unix

router = APIRouter(prefix="/workspaces", tags=["workspaces"])

Slug = Annotated[
    str,
    StringConstraints(min_length=3, max_length=39, pattern=r"^[a-z0-9](?:[a-z0-9-]*[a-z0-9])$"),
]

# A slug made from a name leaves room for a dash and random characters when it is taken.
_DERIVED_LENGTH = 32
_SUFFIX_LENGTH = 6

_LOGS_WARNING = (
    "Admins of this workspace read the logs of its installs through the platform. Applications may "
    "write secrets into their logs; the platform passes them on as they are, and stores none of it."
)
_SUFFIX_ALPHABET = string.ascii_lowercase + string.digits


class CreateWorkspaceRequest(Body):
    """A workspace to be made; without a slug one is made from the name."""

    name: Name
    slug: Slug = ""


class ChangeWorkspaceRequest(Body):
    """What shall be different; what is absent stays. `install_logs_enabled` is ours."""

    name: Name = ""
    slug: Slug = ""
    install_logs_enabled: bool = False


class PlanBody(TypedDict):
    """Who pays; this platform itself bills nobody."""

    tier: str
    billed_by: str


class WorkspaceBody(TypedDict):
    """The contract's Workspace; the two about logs are ours."""

    id: str
    name: str
    slug: str
    plan: PlanBody
    workspace_class: str
    created_at: int
    updated_at: int
    etag: str
    install_logs_enabled: bool
    install_logs_warning: NotRequired[str]


class WorkspaceList(TypedDict):
    """One page."""

    data: list[WorkspaceBody]
    has_more: bool
    next_cursor: str | None


@router.get("", response_model=WorkspaceList, responses=documented(403))
async def list_workspaces(
    scope: UserScope, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Response:
    """List the workspaces in which the caller may act, newest first."""
    before = position_of(cursor, Prefix.WORKSPACE)
    page = await page_of(scope.session, WorkspaceRow, before=before, limit=limit)
    return JSONResponse(page_body(page, workspace_body))


@router.post("", status_code=201, response_model=WorkspaceBody, responses=documented(403, 409, 422))
async def create_workspace(
    request: Request,
    scope: UserScope,
    body: CreateWorkspaceRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Create a workspace, of which the caller becomes the owner."""
    if scope.caller.kind is not PrincipalKind.USER:
        raise BulkheadError(
            Reason.PERMISSION_DENIED,
            "A workspace is created by a user, who becomes its owner; this token is a workspace's.",
        )

    if idempotency_key is not None and not scope.caller.workspace_id:
        await _act_in_the_first(scope)

    async def effect() -> WorkspaceBody:
        return workspace_body(await _create(scope, body.name, body.slug))

    # The key is kept in another workspace, whose other members are none of the new one.
    intent = intent_of_caller(scope, body.model_dump())
    return await answer_once(request, scope, idempotency_key, intent, 201, effect)


@router.get("/{id}", response_model=WorkspaceBody, responses=documented(403, 404))
async def get_workspace(scope: Scope, workspace_id: Identifier) -> Response:
    """Get a workspace."""
    return JSONResponse(workspace_body(await _find(scope, workspace_id)))


@router.patch("/{id}", response_model=WorkspaceBody, responses=documented(403, 404, 409, 422))
async def change(
    request: Request,
    scope: Scope,
    workspace_id: Identifier,
    body: ChangeWorkspaceRequest,
    if_match: IfMatch,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Rename a workspace, or have the logs of its installs shown, which may carry secrets."""
    check_acts_in(scope, workspace_id)
    scope.require(Role.ADMIN, "workspace.update", resource_type="workspace")
    if "install_logs_enabled" in body.model_fields_set:
        scope.require(Role.OWNER, "workspace.install_logs", resource_type="workspace")
    changes = body.model_dump(include=body.model_fields_set)

    async def effect() -> WorkspaceBody:
        return workspace_body(await _change(scope, workspace_id, if_match, changes))

    return await answer_once(request, scope, idempotency_key, changes, 200, effect)


def workspace_body(row: WorkspaceRow) -> WorkspaceBody:
    """Render a workspace."""
    body = WorkspaceBody(
        id=row.id,
        name=row.name,
        slug=row.slug,
        plan=PlanBody(tier="standard", billed_by="platform"),
        workspace_class=row.workspace_class,
        created_at=unix(row.created_at),
        updated_at=unix(row.updated_at),
        etag=str(row.version),
        install_logs_enabled=row.install_logs_enabled,
    )
    if row.install_logs_enabled:
        body["install_logs_warning"] = _LOGS_WARNING
    return body


async def _act_in_the_first(scope: RequestScope) -> None:
    """Have the key kept where it is found again, although the user has one workspace more then."""
    first = await first_workspace_id(scope.session)
    if first is not None:
        await act_in(scope.session, first)
        scope.caller = dataclasses.replace(scope.caller, workspace_id=first)


async def _create(scope: RequestScope, name: str, slug: str) -> WorkspaceRow:
    workspace_id = new_id(Prefix.WORKSPACE)
    await act_in(scope.session, workspace_id)
    row = await add_workspace(scope.session, workspace_id, name, slug or _slug_of(name))
    if row is None and not slug:
        row = await add_workspace(scope.session, workspace_id, name, _slug_of(name, unique=True))
    if row is None:
        raise _slug_taken()
    scope.rows.add(
        WorkspaceMemberRow(
            workspace_id=workspace_id,
            user_id=scope.caller.principal_id,
            id=new_id(Prefix.MEMBER),
            role=Role.OWNER,
        )
    )
    scope.caller = dataclasses.replace(scope.caller, workspace_id=workspace_id, role=Role.OWNER)
    scope.audit("workspace.create", "workspace", workspace_id)
    await scope.rows.write(scope.session)
    return row


async def _change(
    scope: RequestScope, workspace_id: str, if_match: str, changes: dict[str, Any]
) -> WorkspaceRow:
    row = await find_workspace(scope.session, workspace_id, lock=True)
    if row is None:
        raise not_found(Prefix.WORKSPACE)
    check_etag(if_match, row.version)
    changed = {name: value for name, value in changes.items() if getattr(row, name) != value}
    if not changed:
        return row
    scope.audit("workspace.update", "workspace", workspace_id, fields=",".join(sorted(changed)))
    if "install_logs_enabled" in changed:
        verb = "enable" if changed["install_logs_enabled"] else "disable"
        scope.audit(f"workspace.install_logs.{verb}", "workspace", workspace_id)
    try:
        return await change_workspace(scope.session, workspace_id, changed)
    except IntegrityError as error:
        raise _slug_taken() from error


async def _find(scope: RequestScope, workspace_id: str) -> WorkspaceRow:
    check_acts_in(scope, workspace_id)
    row = await find_workspace(scope.session, workspace_id)
    if row is None:
        raise not_found(Prefix.WORKSPACE)
    return row


def check_acts_in(scope: RequestScope, workspace_id: str) -> None:
    """Refuse a path that names another workspace than the one in which the request acts.

    Raises:
        BulkheadError: NOT_FOUND.
    """
    # A user may belong to both the workspace in the path and another one that Akua-Context names;
    # the request acts in the latter, where the former does not exist.
    if check_id(Prefix.WORKSPACE, workspace_id) != scope.caller.workspace_id:
        raise not_found(Prefix.WORKSPACE)


def _slug_of(name: str, *, unique: bool = False) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", name.lower())[:_DERIVED_LENGTH].strip("-")
    suffix = "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(_SUFFIX_LENGTH))
    if len(words) < 3:  # noqa: PLR2004 - the contract's least length
        return f"{words or 'workspace'}-{suffix}"
    return f"{words}-{suffix}" if unique else words


def _slug_taken() -> BulkheadError:
    return BulkheadError(
        Reason.CONFLICT, "This slug is taken; choose another one.", path=("body", "slug")
    )
