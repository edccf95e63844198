"""What is in customers' accounts: of one machine, and what nobody wants."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from typing import Literal

from fastapi import APIRouter
from sqlmodel import col
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api.errors import documented
from api.fields import Cursor, Identifier, Limit, check_id, not_found
from api.inventory_bodies import InventoryBody, inventory_body, no_inventory
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.scope import Scope
from domain.cloud import Provider
from domain.identifiers import Prefix
from infra.database.queries.compute import latest_inventory
from infra.database.queries.machine import find_machine
from infra.database.queries.pages import page_of
from infra.database.tables import LeakRow
from infra.database.tables.columns import unix, unix_or_none

router = APIRouter(tags=["machines"])


class LeakBody(TypedDict):
    """Something that carries the workspace's tags and that nobody wants.

    While it is open, what was surely made by the platform is tried to be removed with each sweep,
    as `attempts` counts. What somebody else may have made under our tags is left to a person:
    `attempts` stays 0. `resolved_at` says when it was gone.
    """

    id: str
    state: Literal["open", "resolved"]
    compute_config_id: str
    provider: Provider
    kind: str
    cloud_id: str
    name: str
    place: str
    stack_id: str | None
    attempts: int
    last_error: str | None
    first_seen_at: int
    last_seen_at: int
    resolved_at: int | None


class LeakList(TypedDict):
    """One page."""

    data: list[LeakBody]
    has_more: bool
    next_cursor: str | None


@router.get(
    "/machines/{id}/inventory", response_model=InventoryBody, responses=documented(403, 404)
)
async def get_machine_inventory(scope: Scope, machine_id: Identifier) -> Response:
    """Get the last look into a machine's account, also of a machine that is gone."""
    known = check_id(Prefix.MACHINE, machine_id)
    inventory = await latest_inventory(scope.session, machine_id=known)
    if inventory is not None:
        return JSONResponse(inventory_body(inventory))
    if await find_machine(scope.session, known) is None:
        raise not_found(Prefix.MACHINE)
    return JSONResponse(no_inventory(known))


@router.get("/leaks", response_model=LeakList, responses=documented(403))
async def list_leaks(
    scope: Scope,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    state: Literal["open", "resolved", "all"] = "open",
) -> Response:
    """List what is left in the workspace's accounts and wanted by nobody, newest first."""
    resolved = col(LeakRow.resolved_at)
    conditions = {
        "open": [resolved.is_(None)],
        "resolved": [resolved.is_not(None)],
        "all": [],
    }[state]
    before = position_of(cursor, Prefix.LEAK)
    page = await page_of(scope.session, LeakRow, *conditions, before=before, limit=limit)
    return JSONResponse(page_body(page, _body))


def _body(row: LeakRow) -> LeakBody:
    return LeakBody(
        id=row.id,
        state="open" if row.resolved_at is None else "resolved",
        compute_config_id=row.compute_config_id,
        provider=row.provider,
        kind=row.kind,
        cloud_id=row.cloud_id,
        name=row.name,
        place=row.place,
        stack_id=row.stack_id,
        attempts=row.attempts,
        last_error=row.last_error,
        first_seen_at=unix(row.first_seen_at),
        last_seen_at=unix(row.last_seen_at),
        resolved_at=unix_or_none(row.resolved_at),
    )
