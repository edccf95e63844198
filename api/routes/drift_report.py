"""How machines in clouds differ at their provider from what their stacks say."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from typing import Annotated, Any, Final, NotRequired

from fastapi import APIRouter, Path, Request
from pydantic import StringConstraints
from sqlmodel import col
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api.errors import documented
from api.fields import (
    PRINTABLE,
    Body,
    Cursor,
    IdempotencyKey,
    Identifier,
    Limit,
    check_id,
    not_found,
)
from api.idempotency import REPLAYED, fingerprint_of, used_for_another_request
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.scope import Context, RequestScope, Scope, open_scope
from domain.caller import Role
from domain.compute import DriftRequest, DriftState
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.machine import MachineKind
from infra.database.queries.compute import find_drift_report
from infra.database.queries.idempotency import StoredAnswer, answer_key, bind_key, reserve_key
from infra.database.queries.machine import find_machine
from infra.database.queries.pages import page_of
from infra.database.tables import DriftReportRow, MachineRow
from infra.database.tables.columns import unix
from infra.temporal.waits import detect_drift

router = APIRouter(prefix="/machines", tags=["machines"])

ReportId = Annotated[str, Path(max_length=54)]

_CREATED: Final = 201


class CreateDriftReportRequest(Body):
    """Why somebody looks."""

    trigger: Annotated[str, StringConstraints(max_length=100, pattern=PRINTABLE)] = ""


class ProviderSnapshot(TypedDict):
    """The server in its provider's own words, without user data."""

    provider: str
    raw_attrs: dict[str, Any]


class DriftReportBody(TypedDict):
    """The contract's DriftReport; `trigger` is ours."""

    id: str
    machine_id: str
    state: DriftState
    trigger: NotRequired[str]
    delta: dict[str, Any]
    provider_snapshot: NotRequired[ProviderSnapshot]
    etag: str
    created_at: int
    started_at: int
    expires_at: int


class DriftReportList(TypedDict):
    """One page."""

    data: list[DriftReportBody]
    has_more: bool
    next_cursor: str | None


@router.post(
    "/{id}/drift_reports",
    status_code=201,
    response_model=DriftReportBody,
    responses=documented(403, 404, 409, 422, 504),
)
async def create_drift_report(
    request: Request,
    context: Context,
    machine_id: Identifier,
    body: CreateDriftReportRequest | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Compare a machine with what its provider has, now; nothing is mended."""
    trigger = (body.trigger if body is not None else "") or None
    async with open_scope(request, context) as scope:
        scope.require(
            Role.ADMIN, "machine.detect_drift", resource_type="machine", resource_id=machine_id
        )
        machine = await _find(scope, machine_id)
        report_id = new_id(Prefix.DRIFT_REPORT)
        if idempotency_key is not None:
            fingerprint = fingerprint_of(request, {"trigger": trigger})
            bound = await _bind(scope, idempotency_key, fingerprint, report_id)
            if isinstance(bound, StoredAnswer):
                return JSONResponse(bound.answer, bound.status, REPLAYED)
            report_id = bound
        _check_has_server(machine)
        scope.audit("machine.detect_drift", "machine", machine.id, report_id=report_id)
    # No transaction is held while the provider is asked.
    wanted = DriftRequest(
        workspace_id=machine.workspace_id,
        machine_id=machine.id,
        report_id=report_id,
        trigger=trigger,
        caller=scope.caller,
    )
    await detect_drift(await scope.clients.temporal.client(), wanted)
    async with open_scope(request, context) as scope:
        answer = report_body(await _written(scope, machine.id, report_id))
        if idempotency_key is not None:
            await answer_key(scope.session, idempotency_key, _CREATED, dict(answer))
    return JSONResponse(answer, _CREATED)


@router.get("/{id}/drift_reports", response_model=DriftReportList, responses=documented(403, 404))
async def list_drift_reports(
    scope: Scope,
    machine_id: Identifier,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    state: DriftState | None = None,
) -> Response:
    """List a machine's reports, newest first; those in one state if that is given."""
    machine = await _find(scope, machine_id)
    conditions = [col(DriftReportRow.machine_id) == machine.id]
    if state is not None:
        conditions.append(col(DriftReportRow.state) == state)
    before = position_of(cursor, Prefix.DRIFT_REPORT)
    page = await page_of(scope.session, DriftReportRow, *conditions, before=before, limit=limit)
    return JSONResponse(page_body(page, report_body))


@router.get(
    "/{id}/drift_reports/{report_id}",
    response_model=DriftReportBody,
    responses=documented(403, 404),
)
async def get_drift_report(scope: Scope, machine_id: Identifier, report_id: ReportId) -> Response:
    """Get a report."""
    machine = await _find(scope, machine_id)
    report = await find_drift_report(scope.session, machine.id, report_id)
    if report is None:
        error = not_found(Prefix.DRIFT_REPORT)
        error.path = ("path", "report_id")
        raise error
    return JSONResponse(report_body(report))


def report_body(row: DriftReportRow) -> DriftReportBody:
    """Render a report."""
    body = DriftReportBody(
        id=row.id,
        machine_id=row.machine_id,
        state=row.state,
        delta=row.delta,
        etag=str(row.version),
        created_at=unix(row.created_at),
        started_at=unix(row.started_at),
        expires_at=unix(row.expires_at),
    )
    if row.trigger is not None:
        body["trigger"] = row.trigger
    if row.provider_snapshot:
        snapshot = row.provider_snapshot
        body["provider_snapshot"] = ProviderSnapshot(
            provider=snapshot["provider"], raw_attrs=snapshot["raw_attrs"]
        )
    return body


async def _find(scope: RequestScope, machine_id: str) -> MachineRow:
    machine = await find_machine(scope.session, check_id(Prefix.MACHINE, machine_id))
    if machine is None:
        raise not_found(Prefix.MACHINE)
    return machine


async def _written(scope: RequestScope, machine_id: str, report_id: str) -> DriftReportRow:
    report = await find_drift_report(scope.session, machine_id, report_id)
    if report is None:
        raise BulkheadError(
            Reason.ABORTED, "The machine was deleted while its account was asked about it."
        )
    return report


def _check_has_server(machine: MachineRow) -> None:
    if machine.kind is not MachineKind.CLOUD or machine.provider_id is None:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "The machine has no server in a cloud's account now, so that there is nothing to "
            "compare.",
            metadata={"kind": machine.kind, "state": machine.state},
        )


async def _bind(
    scope: RequestScope, key: str, fingerprint: bytes, report_id: str
) -> StoredAnswer | str:
    """Return the id of the report that a key stands for, or its answer when there is one."""
    stored = await reserve_key(scope.session, scope.caller.workspace_id, key, fingerprint)
    if stored is None:
        await bind_key(scope.session, key, {"report_id": report_id})
        return report_id
    if stored.fingerprint != fingerprint:
        raise used_for_another_request()
    if stored.is_answered:
        return stored
    bound: str = stored.answer["report_id"]
    return bound
