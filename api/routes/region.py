"""Regions: labels that group a workspace's clusters."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from pydantic import AfterValidator, Field, StringConstraints
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api.errors import documented
from api.fields import PRINTABLE, Body, Cursor, IdempotencyKey, Limit, Name
from api.idempotency import answer_once
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.quotas import check_quota
from api.scope import RequestScope, Scope
from domain.caller import Role
from domain.identifiers import Prefix, new_id
from domain.quota import QuotaMetric
from infra.database.queries.pages import page_of
from infra.database.tables import RegionRow
from infra.database.tables.columns import unix

router = APIRouter(prefix="/regions", tags=["regions"])


def _check_icon(value: str) -> str:
    # Whatever shows the icon must not be made to run something (javascript:, a page in data:), nor
    # to load anything in the clear.
    if value and not value.lower().startswith("data:image/") and not _is_https(value):
        message = "This is not an address of an image; begin it with https:// or data:image/."
        raise ValueError(message)
    return value


def _is_https(value: str) -> bool:
    try:
        address = urlsplit(value)
    except ValueError:
        return False
    return address.scheme == "https" and bool(address.hostname)


class CreateRegionRequest(Body):
    """A region to be made."""

    name: Name
    icon: Annotated[
        str,
        StringConstraints(max_length=256, pattern=PRINTABLE),
        Field(json_schema_extra={"format": "uri"}),
        AfterValidator(_check_icon),
    ] = ""


class RegionBody(TypedDict):
    """The contract's Region."""

    id: str
    name: str
    icon: str | None
    workspace_id: str
    created_at: int


class RegionList(TypedDict):
    """One page."""

    data: list[RegionBody]
    has_more: bool
    next_cursor: str | None


@router.get("", response_model=RegionList, responses=documented(403))
async def list_regions(
    scope: Scope, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Response:
    """List the workspace's regions, newest first."""
    before = position_of(cursor, Prefix.REGION)
    page = await page_of(scope.session, RegionRow, before=before, limit=limit)
    return JSONResponse(page_body(page, region_body))


@router.post("", status_code=201, response_model=RegionBody, responses=documented(403, 409, 422))
async def create_region(
    request: Request,
    scope: Scope,
    body: CreateRegionRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Create a region."""
    scope.require(Role.ADMIN, "region.create", resource_type="workspace")

    async def effect() -> RegionBody:
        return region_body(await _create(scope, body))

    return await answer_once(request, scope, idempotency_key, body.model_dump(), 201, effect)


def region_body(row: RegionRow) -> RegionBody:
    """Render a region."""
    return RegionBody(
        id=row.id,
        name=row.name,
        icon=row.icon,
        workspace_id=row.workspace_id,
        created_at=unix(row.created_at),
    )


async def _create(scope: RequestScope, body: CreateRegionRequest) -> RegionRow:
    await check_quota(scope, QuotaMetric.REGIONS)
    row = RegionRow(
        workspace_id=scope.caller.workspace_id,
        id=new_id(Prefix.REGION),
        name=body.name,
        icon=body.icon or None,
    )
    scope.rows.add(row)
    scope.audit("region.create", "region", row.id)
    await scope.rows.write(scope.session)
    return row
