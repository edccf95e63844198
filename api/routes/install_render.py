"""Renders: what a version and values came to, what applying it does, and how two of them differ."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

import asyncio
import difflib
from functools import partial
from typing import Annotated, Any, Final

import yaml
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api import install_changes
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
from api.install_bodies import PlanBody, RenderBody, plan_body, render_body
from api.install_requests import ApproveRequest, CreateRenderRequest
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.routes.install import require_admin
from api.scope import RequestScope, Scope
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id
from domain.install import RenderState
from domain.operation import WAITING_FOR_APPROVAL
from infra.database.queries.install import find_install, find_render, page_of_renders
from infra.database.queries.operation import find_operation
from infra.database.tables import RenderRow

router = APIRouter(prefix="/installs", tags=["installs"])

RenderId = Annotated[str, Path(alias="render_id")]
_Against = Annotated[
    str | None,
    Query(
        max_length=55,
        pattern=PRINTABLE,
        description="The id of another render; without it, the one that is deployed.",
    ),
]

# A reader of more than this looks at the objects themselves.
_MOST_LINES: Final = 20_000


class RenderList(TypedDict):
    """One page."""

    data: list[RenderBody]
    has_more: bool
    next_cursor: str | None


class DiffBody(TypedDict):
    """How the objects of two renders differ, as lines of a unified diff for each object.

    A datum of a Secret is a keyed digest in both: that it differs can be seen, and nothing else.
    """

    render_id: str
    against: str | None
    diff: str
    truncated: bool


@router.post(
    "/{id}/renders",
    status_code=201,
    response_model=RenderBody,
    responses=documented(403, 404, 409, 422),
)
async def create_render(
    request: Request,
    scope: Scope,
    install_id: Identifier,
    body: CreateRenderRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Render the wanted version with the values as they are now, and deploy what is new in it."""
    require_admin(scope, "install.render", install_id)
    if body.extra_annotations:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "Annotations of renders are not offered by this version; leave this out.",
            path=("body", "extra_annotations"),
        )

    async def effect() -> RenderBody:
        _, rendered = await install_changes.render(
            scope,
            install_id,
            message=body.message or None,
            skip_unchanged=body.skip_unchanged is not False,
        )
        return render_body(rendered)

    return await answer_once(request, scope, idempotency_key, body.model_dump(), 201, effect)


@router.get("/{id}/renders", response_model=RenderList, responses=documented(403, 404))
async def list_renders(
    scope: Scope, install_id: Identifier, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Response:
    """List an install's renders, newest first."""
    await _check_install(scope, install_id)
    before = position_of(cursor, Prefix.RENDER)
    page = await page_of_renders(scope.session, install_id, before=before, limit=limit)
    return JSONResponse(page_body(page, render_body))


@router.get("/{id}/renders/{render_id}", response_model=RenderBody, responses=documented(403, 404))
async def get_render(scope: Scope, install_id: Identifier, render_id: RenderId) -> Response:
    """Get a render."""
    return JSONResponse(render_body(await _find(scope, install_id, render_id)))


@router.get(
    "/{id}/renders/{render_id}/plan", response_model=PlanBody, responses=documented(403, 404, 409)
)
async def get_plan(scope: Scope, install_id: Identifier, render_id: RenderId) -> Response:
    """Get what applying a render does, or did, and the digest by which it is approved."""
    found = await _find(scope, install_id, render_id)
    plan = found.plan or {}
    if "changes" not in plan or found.plan_digest is None:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"No plan is kept of this render, which is {found.state}."
            + (" Ask again in a moment." if found.state is RenderState.RUNNING else ""),
        )
    waits = False
    if found.operation_id is not None and found.state is RenderState.RUNNING:
        operation = await find_operation(scope.session, found.operation_id)
        waits = operation is not None and operation.waiting_for == WAITING_FOR_APPROVAL
    return JSONResponse(plan_body(found, plan, found.plan_digest, waits=waits))


@router.get(
    "/{id}/renders/{render_id}/diff", response_model=DiffBody, responses=documented(403, 404, 409)
)
async def get_diff(
    scope: Scope, install_id: Identifier, render_id: RenderId, against: _Against = None
) -> Response:
    """Compare the objects of a render with those of another one."""
    found = await _find(scope, install_id, render_id)
    before = await _compared(scope, found, against)
    old = [] if before is None else _objects_of(before)
    # It takes seconds for the largest releases that there can be.
    lines = await asyncio.to_thread(_difference, old, _objects_of(found))
    return JSONResponse(
        DiffBody(
            render_id=found.id,
            against=None if before is None else before.id,
            diff="".join(f"{line}\n" for line in lines[:_MOST_LINES]),
            truncated=len(lines) > _MOST_LINES,
        )
    )


@router.post("/{id}:approve", response_model=RenderBody, responses=documented(403, 404, 409, 422))
async def approve_plan(
    request: Request,
    scope: Scope,
    install_id: Identifier,
    body: ApproveRequest,
    if_match: OptionalIfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Approve the plan for which an install's operation waits, by the digest of what was seen."""
    require_admin(scope, "install.approve", install_id)
    approve = partial(install_changes.approve, scope, install_id, if_match, body.digest)

    async def effect() -> RenderBody:
        return render_body(await approve())

    return await answer_once(request, scope, idempotency_key, body.model_dump(), 200, effect)


async def _check_install(scope: RequestScope, install_id: str) -> None:
    if await find_install(scope.session, check_id(Prefix.INSTALL, install_id)) is None:
        raise not_found(Prefix.INSTALL)


async def _find(scope: RequestScope, install_id: str, render_id: str) -> RenderRow:
    await _check_install(scope, install_id)
    found = await find_render(scope.session, install_id, check_id(Prefix.RENDER, render_id))
    if found is None:
        raise not_found(Prefix.RENDER)
    return found


async def _compared(scope: RequestScope, found: RenderRow, against: str | None) -> RenderRow | None:
    """Return the render with which another one is compared; None: nothing is deployed."""
    if against is None:
        install = await find_install(scope.session, found.install_id)
        assert install is not None  # noqa: S101 - a foreign key holds it
        if install.current_render_id is None:
            return None
        return await find_render(scope.session, found.install_id, install.current_render_id)
    other = None
    if is_id(Prefix.RENDER, against):
        other = await find_render(scope.session, found.install_id, against)
    if other is None:
        raise BulkheadError(
            Reason.NOT_FOUND, "The install has no such render.", path=("query", "against")
        )
    return other


def _objects_of(render: RenderRow) -> list[dict[str, Any]]:
    if render.manifest is None:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"No objects are kept of the render {render.id}, which is {render.state}.",
            metadata={"render_id": render.id},
        )
    return render.manifest


def _difference(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[str]:
    before, after = _by_name(old), _by_name(new)
    lines: list[str] = []
    for name in sorted(before.keys() | after.keys()):
        lines += difflib.unified_diff(
            before.get(name, []),
            after.get(name, []),
            name if name in before else "/dev/null",
            name if name in after else "/dev/null",
            lineterm="",
        )
        if len(lines) > _MOST_LINES:
            break
    return lines


def _by_name(objects: list[dict[str, Any]]) -> dict[str, list[str]]:
    named = {}
    for each in objects:
        metadata = each.get("metadata") or {}
        group = str(each.get("apiVersion", "")).rpartition("/")[0]
        parts = (group, each.get("kind"), metadata.get("namespace"), metadata.get("name"))
        name = "/".join(str(part) for part in parts if part)
        text = yaml.dump(each, Dumper=yaml.CSafeDumper, sort_keys=True, allow_unicode=True)
        named[name] = text.splitlines()
    return named
