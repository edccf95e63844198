"""Rollouts: one version of a product on many installs, in waves."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from api import rollout_changes
from api.errors import documented
from api.fields import (
    PRINTABLE,
    Body,
    Cursor,
    IdempotencyKey,
    Identifier,
    Limit,
    OptionalIfMatch,
    check_id,
    not_found,
)
from api.idempotency import answer_once, intent_of_caller
from api.links import Links
from api.pages import DEFAULT_LIMIT, numbered_page, numbers_of, page_body, position_of
from api.rollout_bodies import (
    RolloutBody,
    RolloutEventList,
    RolloutList,
    TargetList,
    event_body,
    rollout_body,
    target_body,
)
from api.rollout_requests import ApproveRolloutRequest, CreateRolloutRequest
from api.scope import RequestScope, Scope
from domain.caller import Role
from domain.identifiers import Prefix
from domain.rollout import RolloutState, TargetState
from infra.database.queries.rollout_view import (
    counts_of_waves,
    events_of,
    find_rollout,
    page_of_rollouts,
    targets_of,
)
from infra.database.tables import RolloutRow

router = APIRouter(prefix="/rollouts", tags=["rollouts"])

_ProductId = Annotated[str, Query(min_length=1, max_length=55, pattern=PRINTABLE)]
# No rollout has this many waves; what is larger than the column holds finds nothing.
_Wave = Annotated[int, Query(ge=0, le=1000)]

_VERB_ERRORS: Final = (403, 404, 409, 422)


class _NoBody(Body):
    """Nothing."""


@router.post(
    "", status_code=201, response_model=RolloutBody, responses=documented(403, 404, 409, 422)
)
async def create_rollout(
    request: Request,
    scope: Scope,
    body: CreateRolloutRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Bring a version of a product to the installs that granted it; `plan_only` only looks."""
    scope.require(Role.ADMIN, "rollout.create", resource_type="workspace")

    async def effect() -> RolloutBody:
        rollout = await rollout_changes.create(scope, body)
        return rollout_body(rollout, (), links=Links.of(request))

    intent = body.model_dump(mode="json", exclude_unset=True)
    return await answer_once(request, scope, idempotency_key, intent, 201, effect)


@router.get("", response_model=RolloutList, responses=documented())
async def list_rollouts(
    request: Request,
    scope: Scope,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    product_id: _ProductId | None = None,
    state: RolloutState | None = None,
) -> Response:
    """List rollouts, newest first, without their waves' targets; of a product or in a state."""
    page = await page_of_rollouts(
        scope.session,
        product_id=product_id,
        state=state,
        before=position_of(cursor, Prefix.ROLLOUT),
        limit=limit,
    )
    links = Links.of(request)
    return JSONResponse(page_body(page, lambda row: rollout_body(row, None, links=links)))


@router.get("/{id}", response_model=RolloutBody, responses=documented(403, 404))
async def get_rollout(request: Request, scope: Scope, rollout_id: Identifier) -> Response:
    """Get a rollout with its targets counted by wave and state."""
    return JSONResponse(await _shown(request, scope, await _find(scope, rollout_id)))


@router.get("/{id}/targets", response_model=TargetList, responses=documented(403, 404))
async def list_targets(
    scope: Scope,
    rollout_id: Identifier,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    state: TargetState | None = None,
    wave: _Wave | None = None,
) -> Response:
    """List a rollout's installs in the order in which they move."""
    rollout = await _find(scope, rollout_id)
    after = None if cursor is None else numbers_of(cursor, 2)
    rows = await targets_of(
        scope.session,
        rollout.id,
        state=state,
        wave=wave,
        after=None if after is None else (after[0], after[1]),
        limit=limit + 1,
    )
    page = numbered_page(rows, limit, target_body, lambda row: (row.wave, row.position))
    return JSONResponse(page)


@router.get("/{id}/events", response_model=RolloutEventList, responses=documented(403, 404))
async def list_rollout_events(
    scope: Scope, rollout_id: Identifier, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Response:
    """List what happened to a rollout, oldest first."""
    rollout = await _find(scope, rollout_id)
    after = -1 if cursor is None else numbers_of(cursor, 1)[0]
    rows = await events_of(scope.session, rollout.id, after=after, limit=limit + 1)
    return JSONResponse(numbered_page(rows, limit, event_body, lambda row: (row.sequence,)))


@router.post("/{id}:approve", response_model=RolloutBody, responses=documented(*_VERB_ERRORS))
async def approve_rollout(
    request: Request,
    scope: Scope,
    rollout_id: Identifier,
    body: ApproveRolloutRequest,
    if_match: OptionalIfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Let what was planned be done; refused when the plan is another one by now."""
    _require_admin(scope, "rollout.approve", rollout_id)
    approve = partial(rollout_changes.approve, digest=body.digest)
    # Whoever began a rollout is not the one to approve it.
    intent = intent_of_caller(scope, {"digest": body.digest})
    return await _answer_with_rollout(
        request, scope, rollout_id, if_match, idempotency_key, approve, intent
    )


@router.post("/{id}:pause", response_model=RolloutBody, responses=documented(*_VERB_ERRORS))
async def pause_rollout(
    request: Request,
    scope: Scope,
    rollout_id: Identifier,
    if_match: OptionalIfMatch = None,
    idempotency_key: IdempotencyKey = None,
    body: _NoBody | None = None,  # noqa: ARG001 - checked to be empty
) -> Response:
    """Begin nothing new; what moves already ends."""
    _require_admin(scope, "rollout.pause", rollout_id)
    return await _answer_with_rollout(
        request, scope, rollout_id, if_match, idempotency_key, rollout_changes.pause
    )


@router.post("/{id}:resume", response_model=RolloutBody, responses=documented(*_VERB_ERRORS))
async def resume_rollout(
    request: Request,
    scope: Scope,
    rollout_id: Identifier,
    if_match: OptionalIfMatch = None,
    idempotency_key: IdempotencyKey = None,
    body: _NoBody | None = None,  # noqa: ARG001 - checked to be empty
) -> Response:
    """Go on where a pause stopped it."""
    _require_admin(scope, "rollout.resume", rollout_id)
    return await _answer_with_rollout(
        request, scope, rollout_id, if_match, idempotency_key, rollout_changes.resume
    )


@router.post("/{id}:cancel", response_model=RolloutBody, responses=documented(*_VERB_ERRORS))
async def cancel_rollout(
    request: Request,
    scope: Scope,
    rollout_id: Identifier,
    if_match: OptionalIfMatch = None,
    idempotency_key: IdempotencyKey = None,
    body: _NoBody | None = None,  # noqa: ARG001 - checked to be empty
) -> Response:
    """End a rollout for good; what was moved stays moved."""
    _require_admin(scope, "rollout.cancel", rollout_id)
    return await _answer_with_rollout(
        request, scope, rollout_id, if_match, idempotency_key, rollout_changes.cancel
    )


@router.post("/{id}:rollback", response_model=RolloutBody, responses=documented(*_VERB_ERRORS))
async def roll_back_rollout(
    request: Request,
    scope: Scope,
    rollout_id: Identifier,
    if_match: OptionalIfMatch = None,
    idempotency_key: IdempotencyKey = None,
    body: _NoBody | None = None,  # noqa: ARG001 - checked to be empty
) -> Response:
    """Take back what was moved: each install returns to the render that it had."""
    _require_admin(scope, "rollout.rollback", rollout_id)
    return await _answer_with_rollout(
        request, scope, rollout_id, if_match, idempotency_key, rollout_changes.roll_back
    )


def _require_admin(scope: RequestScope, action: str, rollout_id: str) -> None:
    scope.require(Role.ADMIN, action, resource_type="rollout", resource_id=rollout_id)


async def _find(scope: RequestScope, rollout_id: str) -> RolloutRow:
    rollout = await find_rollout(scope.session, check_id(Prefix.ROLLOUT, rollout_id))
    if rollout is None:
        raise not_found(Prefix.ROLLOUT)
    return rollout


async def _shown(request: Request, scope: RequestScope, rollout: RolloutRow) -> RolloutBody:
    counts = await counts_of_waves(scope.session, rollout.id)
    return rollout_body(rollout, counts, links=Links.of(request))


async def _answer_with_rollout(
    request: Request,
    scope: RequestScope,
    rollout_id: str,
    if_match: str | None,
    idempotency_key: str | None,
    verb: rollout_changes.Verb,
    intent: Mapping[str, Any] = MappingProxyType({}),
) -> Response:
    async def effect() -> RolloutBody:
        return await _shown(request, scope, await verb(scope, rollout_id, if_match))

    return await answer_once(request, scope, idempotency_key, dict(intent), 200, effect)
