"""Operations: what every 202 answers with, and how to wait for one or stop it."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, Final, Literal, NotRequired

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api.cancellations import send_cancellation
from api.errors import documented
from api.fields import (
    PRINTABLE,
    Cursor,
    IdempotencyKey,
    Identifier,
    Limit,
    check_etag,
    check_id,
    not_found,
)
from api.idempotency import answer_once
from api.inventory_bodies import InventoryBody, inventory_body
from api.links import Links
from api.operation_facts import metadata_of, response_of
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.scope import Context, RequestScope, Scope, open_scope
from domain.caller import Role
from domain.caller import Scope as SecretScope
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id
from domain.names import workflow_id_of
from domain.operation import (
    BOOKKEEPING_PREFIX,
    WAITING_FOR_EMERGENCY_STOP,
    OperationState,
    OwnerType,
    StepStatus,
)
from domain.rollout import StopOwner
from infra.database.queries.compute import latest_inventory
from infra.database.queries.emergency_stop import stop_that_holds
from infra.database.queries.operation import (
    find_operation,
    find_operation_with_steps,
    page_of_operations,
)
from infra.database.records.operation import request_cancellation
from infra.database.tables import OperationRow, OperationStepRow
from infra.database.tables.columns import unix, unix_or_none

router = APIRouter(prefix="/operations", tags=["operations"])

# A waiting request reads again after this long even when nothing was notified: the listening
# connection may be the one that is down.
_REREAD_SECONDS: Final = 5.0

_OWNER_PREFIXES: Final = {
    "cluster": Prefix.CLUSTER,
    "install": Prefix.INSTALL,
    "machine": Prefix.MACHINE,
    "package": Prefix.PACKAGE,
    "secret": Prefix.SECRET,
    "workspace": Prefix.WORKSPACE,
}

# The published kinds of owner, and ours (`secret`). Those that this platform does not have yet own
# nothing.
OwnerKind = Literal[
    "install",
    "repository_change_request",
    "repository",
    "workspace",
    "machine",
    "secret",
    "cluster",
    "package",
]


class OperationFailure(TypedDict):
    """Why it ended, for a person; `reason` is the stable cause."""

    message: str
    reason: NotRequired[str]
    step_name: NotRequired[str]


class OperationStepBody(TypedDict):
    """One thing that the operation does. `started_at` is 0 before it starts.

    `attempt`, `duration_ms`, `progress`, `next_try_at` and `gives_up_at` are ours; many a step
    takes less than the contract's whole second. What fails is tried again until `gives_up_at`;
    null: until it succeeds.
    """

    name: str
    status: StepStatus
    execution_type: str
    started_at: int
    completed_at: int | None
    duration_ms: int | None
    attempt: int
    error_message: str | None
    progress: str | None
    next_try_at: int | None
    gives_up_at: int | None
    retryable: bool
    skippable: bool


class HoldingStopBody(TypedDict):
    """The stop that holds an operation. The reason of another workspace is not shown."""

    id: str
    by: StopOwner
    reason: str | None


class OperationBody(TypedDict):
    """The contract's Operation; `duration_ms`, `etag`, `waiting_for` and what follows are ours.

    `cancellable`: a cancel can be asked for, and was not yet. `inventory` is the last look into a
    cloud's account, where one was taken, and `emergency_stop` what holds the operation; both are
    shown with the steps.
    """

    id: str
    workspace_id: str | None
    organization_id: str | None
    owner_type: OwnerType
    owner_id: str
    parent_operation_id: str | None
    state: OperationState
    done: bool
    html_url: str
    metadata: dict[str, Any]
    response: dict[str, Any] | None
    error: OperationFailure | None
    last_error: OperationFailure | None
    started_at: int
    completed_at: int | None
    duration_ms: int | None
    etag: str
    waiting_for: str | None
    cancellable: bool
    cancel_requested_at: int | None
    steps: NotRequired[list[OperationStepBody]]
    inventory: NotRequired[InventoryBody]
    emergency_stop: NotRequired[HoldingStopBody]


class OperationList(TypedDict):
    """One page."""

    data: list[OperationBody]
    has_more: bool
    next_cursor: str | None


@router.get("", response_model=OperationList, responses=documented(403))
async def list_operations(
    request: Request,
    scope: Scope,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    owner_type: OwnerKind | None = None,
    owner_id: Annotated[str | None, Query(max_length=55, pattern=PRINTABLE)] = None,
) -> Response:
    """List operations, newest first and without steps; of one owner if both filters are given.

    Those of secrets are there for who may read secrets.
    """
    owner = _owner_of(owner_type, owner_id)
    if owner_type == "secret":
        _require(scope, SecretScope.SECRETS_READ, "operation.list")
    page = await page_of_operations(
        scope.session,
        owner=owner,
        with_secrets=SecretScope.SECRETS_READ in scope.scopes,
        before=position_of(cursor, Prefix.OPERATION),
        limit=limit,
    )
    return JSONResponse(page_body(page, partial(operation_body, links=Links.of(request))))


@router.get("/{id}", response_model=OperationBody, responses=documented(403, 404))
async def get_operation(request: Request, scope: Scope, operation_id: Identifier) -> Response:
    """Get an operation with its steps."""
    return JSONResponse(await _read_with_steps(request, scope, operation_id))


@router.post("/{id}:wait", response_model=OperationBody, responses=documented(403, 404))
async def wait_for_operation(
    request: Request,
    context: Context,
    operation_id: Identifier,
    timeout: Annotated[int, Query(ge=1, le=60, description="Seconds.")] = 30,  # noqa: ASYNC109 - the contract's name
) -> Response:
    """Answer when the operation has ended, or with how far it is when the time is over."""
    changes = request.app.state.clients.changes
    deadline = time.monotonic() + timeout
    with changes.watch(operation_id) as changed:
        while True:
            changed.clear()
            # A transaction of its own each time: none is held while waiting, and a token that is
            # revoked meanwhile learns nothing more.
            async with open_scope(request, context) as scope:
                body = await _read_with_steps(request, scope, operation_id)
            remaining = deadline - time.monotonic()
            if body["done"] or remaining <= 0 or changes.closing:
                return JSONResponse(body)
            await _wait(changed, min(remaining, _REREAD_SECONDS))


@router.post(
    "/{id}:cancel",
    status_code=202,
    response_model=OperationBody,
    responses=documented(403, 404, 409, 422),
)
async def cancel(
    request: Request,
    scope: Scope,
    operation_id: Identifier,
    idempotency_key: IdempotencyKey = None,
    if_match: Annotated[str | None, Header(min_length=1, max_length=64)] = None,
) -> Response:
    """Ask an operation to stop and to undo what it did; read it to see how it ends."""
    scope.require(
        Role.ADMIN, "operation.cancel", resource_type="operation", resource_id=operation_id
    )
    known = await find_operation(scope.session, check_id(Prefix.OPERATION, operation_id))
    if known is not None and known.owner_type is OwnerType.SECRET:
        _require(scope, SecretScope.SECRETS_WRITE, "operation.cancel", operation_id)

    async def effect() -> OperationBody:
        operation = await _lock_cancellable(scope, operation_id, if_match)
        await request_cancellation(scope.session, operation.id, scope.caller.kind)
        await scope.session.refresh(operation)
        scope.audit(
            "operation.cancel", operation.owner_type, operation.owner_id, operation_id=operation.id
        )
        scope.after_commit.append(
            partial(send_cancellation, scope, operation.type, operation.owner_id, operation.id)
        )
        return operation_body(operation, links=Links.of(request))

    return await answer_once(request, scope, idempotency_key, {}, 202, effect)


def operation_body(
    row: OperationRow, steps: Sequence[OperationStepRow] | None = None, *, links: Links
) -> OperationBody:
    """Render an operation; with its steps if they are given."""
    body = OperationBody(
        id=row.id,
        workspace_id=row.workspace_id,
        organization_id=None,
        owner_type=row.owner_type,
        owner_id=row.owner_id,
        parent_operation_id=row.parent_operation_id,
        state=row.state,
        done=row.state is not OperationState.RUNNING,
        html_url=links.operation(row.id, workflow_id_of(row.type, row.owner_id, row.id)),
        metadata=metadata_of(row),
        response=response_of(row) if row.state is OperationState.SUCCEEDED else None,
        error=_failure(row.error),
        last_error=_failure(row.last_error),
        started_at=unix(row.started_at),
        completed_at=unix_or_none(row.completed_at),
        duration_ms=_milliseconds(row.started_at, row.completed_at),
        etag=str(row.version),
        waiting_for=row.waiting_for,
        cancellable=(
            row.state is OperationState.RUNNING
            and row.cancellable
            and row.cancel_requested_at is None
        ),
        cancel_requested_at=unix_or_none(row.cancel_requested_at),
    )
    if steps is not None:
        body["steps"] = [
            _step_body(step) for step in steps if not step.name.startswith(BOOKKEEPING_PREFIX)
        ]
    return body


def _failure(stored: dict[str, Any] | None) -> OperationFailure | None:
    if stored is None:
        return None
    failure = OperationFailure(message=stored["message"])
    if "reason" in stored:
        failure["reason"] = stored["reason"]
    if "step_name" in stored:
        failure["step_name"] = stored["step_name"]
    return failure


def _step_body(step: OperationStepRow) -> OperationStepBody:
    is_tried_again = step.retryable and step.status is StepStatus.RUNNING
    return OperationStepBody(
        name=step.name,
        status=step.status,
        execution_type="system",
        started_at=0 if step.started_at is None else unix(step.started_at),
        completed_at=unix_or_none(step.completed_at),
        duration_ms=_milliseconds(step.started_at, step.completed_at),
        attempt=step.attempt,
        error_message=step.error_message,
        progress=step.progress,
        next_try_at=unix_or_none(step.next_try_at if is_tried_again else None),
        gives_up_at=unix_or_none(step.gives_up_at if is_tried_again else None),
        retryable=step.retryable,
        skippable=False,
    )


def _milliseconds(begin: datetime | None, end: datetime | None) -> int | None:
    if begin is None or end is None:
        return None
    return round((end - begin) / timedelta(milliseconds=1))


async def _read_with_steps(
    request: Request, scope: RequestScope, operation_id: str
) -> OperationBody:
    found = await find_operation_with_steps(scope.session, check_id(Prefix.OPERATION, operation_id))
    if found is None:
        raise not_found(Prefix.OPERATION)
    if found[0].owner_type is OwnerType.SECRET:
        _require(scope, SecretScope.SECRETS_READ, "operation.get", operation_id)
    body = operation_body(*found, links=Links.of(request))
    if found[0].owner_type is OwnerType.MACHINE:
        inventory = await latest_inventory(scope.session, operation_id=operation_id)
        if inventory is not None:
            body["inventory"] = inventory_body(inventory)
    if body["waiting_for"] == WAITING_FOR_EMERGENCY_STOP:
        stop = await stop_that_holds(scope.session, found[0])
        if stop is not None:
            body["emergency_stop"] = HoldingStopBody(id=stop.id, by=stop.by, reason=stop.reason)
    return body


def _require(scope: RequestScope, needed: SecretScope, action: str, operation_id: str = "") -> None:
    scope.require_scope(needed, action, resource_type="operation", resource_id=operation_id)


async def _lock_cancellable(
    scope: RequestScope, operation_id: str, if_match: str | None
) -> OperationRow:
    operation = await find_operation(
        scope.session, check_id(Prefix.OPERATION, operation_id), lock=True
    )
    if operation is None:
        raise not_found(Prefix.OPERATION)
    if if_match is not None:
        check_etag(if_match, operation.version)
    if operation.state is not OperationState.RUNNING:
        raise _cannot_cancel(why=f"It has ended: {operation.state}.")
    if not operation.cancellable:
        raise _cannot_cancel(why="It can only be finished by now; wait for its end.")
    return operation


def _cannot_cancel(*, why: str) -> BulkheadError:
    return BulkheadError(
        Reason.FAILED_PRECONDITION, f"This operation cannot be cancelled. {why}", status=422
    )


def _owner_of(owner_type: OwnerKind | None, owner_id: str | None) -> tuple[str, str] | None:
    if owner_type is None and owner_id is None:
        return None
    if owner_type is None or owner_id is None:
        missing = "owner_type" if owner_type is None else "owner_id"
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "owner_type and owner_id filter together; send both or none.",
            path=("query", missing),
            status=400,
        )
    prefix = _OWNER_PREFIXES.get(owner_type)
    if prefix is not None and not is_id(prefix, owner_id):
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            f"This is not the id of a {owner_type}.",
            path=("query", "owner_id"),
            status=400,
        )
    return owner_type, owner_id


async def _wait(changed: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await changed.wait()
    except TimeoutError:
        return
