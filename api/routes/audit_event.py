"""The audit log: who did or tried what in the workspace, and with which credential."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from sqlmodel import col
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api.errors import documented
from api.fields import Cursor, Limit
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.scope import Scope
from domain.caller import Role
from domain.identifiers import Prefix
from infra.database.queries.pages import page_of
from infra.database.tables import AuditEventRow
from infra.database.tables.columns import unix

router = APIRouter(prefix="/audit_events", tags=["audit_events"])

_LONGEST: Final = 128
Filter = Annotated[str | None, Query(min_length=1, max_length=_LONGEST, pattern=r"^[\x21-\x7e]+$")]


class AuditEventBody(TypedDict):
    """One line. `details` are facts for a reviewer, and never a value."""

    id: str
    workspace_id: str
    occurred_at: int
    actor_kind: str
    actor_id: str
    token_id: str | None
    request_id: str | None
    action: str
    resource_type: str
    resource_id: str
    outcome: str
    details: dict[str, Any]


class AuditEventList(TypedDict):
    """One page."""

    data: list[AuditEventBody]
    has_more: bool
    next_cursor: str | None


@router.get("", response_model=AuditEventList, responses=documented(403))
async def list_audit_events(
    scope: Scope,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    action: Filter = None,
    actor_id: Filter = None,
    resource_type: Filter = None,
    resource_id: Filter = None,
    outcome: Filter = None,
) -> Response:
    """List what was done and tried in the workspace, newest first."""
    scope.require(Role.ADMIN, "audit_event.list", resource_type="workspace")
    filters = {
        AuditEventRow.action: action,
        AuditEventRow.actor_id: actor_id,
        AuditEventRow.resource_type: resource_type,
        AuditEventRow.resource_id: resource_id,
        AuditEventRow.outcome: outcome,
    }
    page = await page_of(
        scope.session,
        AuditEventRow,
        *(col(column) == wanted for column, wanted in filters.items() if wanted is not None),
        before=position_of(cursor, Prefix.AUDIT_EVENT),
        limit=limit,
    )
    return JSONResponse(page_body(page, audit_event_body))


def audit_event_body(row: AuditEventRow) -> AuditEventBody:
    """Render a line."""
    return AuditEventBody(
        id=row.id,
        workspace_id=row.workspace_id,
        occurred_at=unix(row.occurred_at),
        actor_kind=row.actor_kind,
        actor_id=row.actor_id,
        token_id=row.token_id,
        request_id=row.request_id,
        action=row.action,
        resource_type=row.resource_type,
        resource_id=row.resource_id,
        outcome=row.outcome,
        details=row.details,
    )
