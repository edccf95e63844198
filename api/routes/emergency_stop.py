"""Emergency stops: while one is in force, nothing new begins in its scope."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import StringConstraints
from sqlmodel import col
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api.emergency_stop_changes import add_stop, lift_stop
from api.errors import documented
from api.fields import (
    TEXT,
    Body,
    Cursor,
    IdempotencyKey,
    Identifier,
    Limit,
    check_id,
    not_found,
)
from api.idempotency import answer_once
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.scope import RequestScope, Scope
from domain.caller import Role
from domain.identifiers import Prefix
from domain.rollout import StopScope
from infra.database.queries.emergency_stop import find_stop
from infra.database.queries.pages import page_of
from infra.database.tables import EmergencyStopRow
from infra.database.tables.columns import unix, unix_or_none

router = APIRouter(prefix="/emergency_stops", tags=["emergency_stops"])

StopReason = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=TEXT)]
Subject = Annotated[str, StringConstraints(min_length=1, max_length=54, pattern=r"^[a-z0-9_]+$")]


class CreateEmergencyStopRequest(Body):
    """What shall stop. `subject` is the product, provider or region, where `scope` is one."""

    scope: Literal["workspace", "product", "provider", "region", "all"]
    subject: Subject | None = None
    reason: StopReason


class EmergencyStopBody(TypedDict):
    """A stop. Who stopped what is not shown of another workspace's stop of everything."""

    id: str
    scope: StopScope
    subject: str | None
    reason: str
    state: Literal["in_force", "lifted"]
    stopped_by: str | None
    lifted_by: str | None
    created_at: int
    lifted_at: int | None


class EmergencyStopList(TypedDict):
    """One page."""

    data: list[EmergencyStopBody]
    has_more: bool
    next_cursor: str | None


@router.post(
    "", status_code=201, response_model=EmergencyStopBody, responses=documented(403, 404, 409, 422)
)
async def create_emergency_stop(
    request: Request,
    scope: Scope,
    body: CreateEmergencyStopRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Stop. What runs comes to the end of its step; within a second nothing new begins."""
    scope.require(Role.ADMIN, "emergency_stop.create", resource_type="workspace")

    async def effect() -> EmergencyStopBody:
        row = await add_stop(scope, StopScope(body.scope), body.subject or "", body.reason)
        return _body(scope, row)

    return await answer_once(request, scope, idempotency_key, body.model_dump(), 201, effect)


@router.get("", response_model=EmergencyStopList, responses=documented(403))
async def list_emergency_stops(
    scope: Scope,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    state: Literal["in_force", "lifted", "all"] = "all",
) -> Response:
    """List the workspace's stops, and those of everything, newest first."""
    lifted = col(EmergencyStopRow.lifted_at)
    conditions = {
        "in_force": [lifted.is_(None)],
        "lifted": [lifted.is_not(None)],
        "all": [],
    }[state]
    before = position_of(cursor, Prefix.EMERGENCY_STOP)
    page = await page_of(scope.session, EmergencyStopRow, *conditions, before=before, limit=limit)
    return JSONResponse(page_body(page, lambda row: _body(scope, row)))


@router.get("/{id}", response_model=EmergencyStopBody, responses=documented(403, 404))
async def get_emergency_stop(scope: Scope, stop_id: Identifier) -> Response:
    """Get a stop."""
    row = await find_stop(scope.session, check_id(Prefix.EMERGENCY_STOP, stop_id))
    if row is None:
        raise not_found(Prefix.EMERGENCY_STOP)
    return JSONResponse(_body(scope, row))


@router.post("/{id}:lift", response_model=EmergencyStopBody, responses=documented(403, 404, 409))
async def lift_emergency_stop(
    request: Request, scope: Scope, stop_id: Identifier, idempotency_key: IdempotencyKey = None
) -> Response:
    """Let everything go on where it stopped, within seconds; a lifted one stays lifted."""
    known = check_id(Prefix.EMERGENCY_STOP, stop_id)
    scope.require(
        Role.ADMIN, "emergency_stop.lift", resource_type="emergency_stop", resource_id=known
    )

    async def effect() -> EmergencyStopBody:
        return _body(scope, await lift_stop(scope, known))

    return await answer_once(request, scope, idempotency_key, {}, 200, effect)


def _body(scope: RequestScope, row: EmergencyStopRow) -> EmergencyStopBody:
    is_own = row.workspace_id == scope.caller.workspace_id
    return EmergencyStopBody(
        id=row.id,
        scope=row.scope,
        subject=row.subject or None,
        reason=row.reason,
        state="in_force" if row.lifted_at is None else "lifted",
        stopped_by=row.stopped_by if is_own else None,
        lifted_by=row.lifted_by if is_own else None,
        created_at=unix(row.created_at),
        lifted_at=unix_or_none(row.lifted_at),
    )
