"""Suspensions of machines in clouds: when, why, and what their snapshots cost."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

import math
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal, NotRequired

from fastapi import APIRouter, Path
from sqlmodel import col
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api.errors import documented
from api.fields import Cursor, Identifier, Limit, check_id, not_found
from api.machine_bodies import SnapshotRef, snapshot_ref
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.scope import RequestScope, Scope
from domain.cloud import Provider
from domain.compute import SuspensionState
from domain.identifiers import Prefix
from infra.database.queries.compute import find_config, find_suspension
from infra.database.queries.machine import find_machine
from infra.database.queries.pages import page_of
from infra.database.tables import MachineRow, SuspensionEventRow
from infra.database.tables.columns import unix

router = APIRouter(prefix="/machines", tags=["machines"])

EventId = Annotated[str, Path(max_length=54)]

# The month by which providers bill storage.
_MONTH: Final = timedelta(days=30)


class SuspensionEventBody(TypedDict):
    """The contract's SuspensionEvent; `total_cost_cents` is what it has cost so far, or in all."""

    id: str
    machine_id: str
    state: SuspensionState
    started_at: int
    resumed_at: NotRequired[int]
    expires_at: int
    snapshot_ref: SnapshotRef
    monthly_cost_cents: int
    total_cost_cents: int
    reason: str
    etag: str


class SuspensionEventList(TypedDict):
    """One page."""

    data: list[SuspensionEventBody]
    has_more: bool
    next_cursor: str | None


@router.get(
    "/{id}/suspension_events", response_model=SuspensionEventList, responses=documented(403, 404)
)
async def list_suspension_events(
    scope: Scope,
    machine_id: Identifier,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    reason: Literal["manual", "downgrade"] | None = None,
) -> Response:
    """List a machine's suspensions, newest first; for one reason if that is given."""
    machine = await _find(scope, machine_id)
    conditions = [col(SuspensionEventRow.machine_id) == machine.id]
    if reason is not None:
        conditions.append(col(SuspensionEventRow.reason) == reason)
    before = position_of(cursor, Prefix.SUSPENSION)
    page = await page_of(scope.session, SuspensionEventRow, *conditions, before=before, limit=limit)
    provider = await _provider_of(scope, machine)
    return JSONResponse(page_body(page, lambda event: _body(event, provider)))


@router.get(
    "/{id}/suspension_events/{event_id}",
    response_model=SuspensionEventBody,
    responses=documented(403, 404),
)
async def get_suspension_event(scope: Scope, machine_id: Identifier, event_id: EventId) -> Response:
    """Get a suspension."""
    machine = await _find(scope, machine_id)
    event = await find_suspension(scope.session, machine.id, event_id)
    if event is None:
        error = not_found(Prefix.SUSPENSION)
        error.path = ("path", "event_id")
        raise error
    return JSONResponse(_body(event, await _provider_of(scope, machine)))


async def _find(scope: RequestScope, machine_id: str) -> MachineRow:
    machine = await find_machine(scope.session, check_id(Prefix.MACHINE, machine_id))
    if machine is None:
        raise not_found(Prefix.MACHINE)
    return machine


async def _provider_of(scope: RequestScope, machine: MachineRow) -> Provider | None:
    config = await find_config(scope.session, machine.compute_config_id or "")
    return None if config is None else config.provider


def _body(event: SuspensionEventRow, provider: Provider | None) -> SuspensionEventBody:
    body = SuspensionEventBody(
        id=event.id,
        machine_id=event.machine_id,
        state=event.state,
        started_at=unix(event.started_at),
        expires_at=unix(event.expires_at),
        snapshot_ref=snapshot_ref(event, provider),
        monthly_cost_cents=event.monthly_cost_cents,
        total_cost_cents=_cost(event),
        reason=event.reason,
        etag=str(event.version),
    )
    if event.resumed_at is not None:
        body["resumed_at"] = unix(event.resumed_at)
    return body


def _cost(event: SuspensionEventRow) -> int:
    end = event.resumed_at or min(datetime.now(UTC), event.expires_at)
    months = max(end - event.started_at, timedelta(0)) / _MONTH
    return math.ceil(event.monthly_cost_cents * months)
