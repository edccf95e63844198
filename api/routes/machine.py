"""Machines: the servers of clusters, as the people who own them see them."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field, StringConstraints
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api import machine_changes, machine_plans
from api.errors import documented
from api.fields import (
    PRINTABLE,
    Body,
    Cursor,
    IdempotencyKey,
    Identifier,
    IfMatch,
    Limit,
    RequiredIdempotencyKey,
    check_id,
    not_found,
)
from api.idempotency import answer_once
from api.links import Links
from api.machine_bodies import MachineBody, basic_body, machine_body
from api.machine_requests import MachineName, MachineShapeRequest
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.routes.operation import OperationBody, operation_body
from api.scope import RequestScope, Scope
from domain.caller import Role
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from domain.machine import MachineState
from infra.database.queries.compute import suspensions_of
from infra.database.queries.machine import find_machine, page_of_machines
from infra.database.tables import OperationRow

router = APIRouter(prefix="/machines", tags=["machines"])

_ClusterId = Annotated[str, Query(min_length=1, max_length=54, pattern=PRINTABLE)]
_Force = Annotated[
    bool,
    Query(
        description="Do not wait for a cluster that does not answer: skip what would be done there."
        " Of a delete that runs already too."
    ),
]


class CreateMachineRequest(MachineShapeRequest):
    """Machines to be made in a cloud; a `count` above one makes a pool."""

    cluster_id: Annotated[str, StringConstraints(min_length=1, max_length=54, pattern=PRINTABLE)]
    node_claim: dict[str, Any] = Field(default_factory=dict)


class ChangeMachineRequest(Body):
    """What shall be different: the name that is shown. Null or empty: none."""

    name: MachineName | None = None


class SuspendMachineRequest(Body):
    """Why."""

    reason: Literal["manual", "downgrade"] = "manual"


class ResumeMachineRequest(Body):
    """Nothing."""


class MachineList(TypedDict):
    """One page."""

    data: list[MachineBody]
    has_more: bool
    next_cursor: str | None


class MachineOperationBody(OperationBody):
    """The contract's MachineOperation: an operation that says its id twice."""

    operation_id: str


@router.post(
    "",
    status_code=202,
    response_model=MachineOperationBody,
    responses=documented(403, 404, 409, 422),
)
async def create_machine(
    request: Request,
    scope: Scope,
    body: CreateMachineRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Make machines in a cloud for a cluster. Servers that you have join by worker bootstraps."""
    scope.require(Role.ADMIN, "machine.create", resource_type="workspace")
    if body.node_claim:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "Node claims are not offered by this version; name an instance_type, and leave this "
            "out.",
            path=("body", "node_claim"),
        )
    wanted = body.wanted("body")

    async def effect() -> MachineOperationBody:
        operation = await machine_plans.create(scope, body.cluster_id, wanted)
        return _operation_body(request, operation)

    intent = body.model_dump(mode="json", exclude_unset=True)
    return await answer_once(request, scope, idempotency_key, intent, 202, effect)


@router.get("", response_model=MachineList, responses=documented())
async def list_machines(
    scope: Scope,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    cluster_id: _ClusterId | None = None,
    state: MachineState | None = None,
    view: Literal["basic", "full"] = "full",
) -> Response:
    """List machines, newest first; of one cluster or in one state if that is given."""
    page = await page_of_machines(
        scope.session,
        cluster_id=cluster_id,
        state=state,
        before=position_of(cursor, Prefix.MACHINE),
        limit=limit,
    )
    suspensions = await suspensions_of(scope.session, page.rows)
    render = basic_body if view == "basic" else machine_body
    return JSONResponse(page_body(page, lambda row: render(row, suspensions.get(row.id))))


@router.get("/{id}", response_model=MachineBody, responses=documented(403, 404))
async def get_machine(scope: Scope, machine_id: Identifier) -> Response:
    """Get a machine."""
    machine = await find_machine(scope.session, check_id(Prefix.MACHINE, machine_id))
    if machine is None:
        raise not_found(Prefix.MACHINE)
    suspensions = await suspensions_of(scope.session, [machine])
    return JSONResponse(machine_body(machine, suspensions.get(machine.id)))


@router.patch("/{id}", response_model=MachineBody, responses=documented(403, 404, 409, 422))
async def change_machine(
    request: Request,
    scope: Scope,
    machine_id: Identifier,
    body: ChangeMachineRequest,
    if_match: IfMatch,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Rename a machine; its node keeps its name."""
    _require_admin(scope, "machine.update", machine_id)
    changes = body.model_dump(include=body.model_fields_set)

    async def effect() -> MachineBody:
        machine = await machine_changes.hold(scope, machine_id, if_match)
        if "name" in changes:
            machine_changes.rename(scope, machine, changes["name"] or None)
        suspensions = await suspensions_of(scope.session, [machine])
        return machine_body(machine, suspensions.get(machine.id))

    return await answer_once(request, scope, idempotency_key, changes, 200, effect)


@router.delete(
    "/{id}",
    status_code=202,
    response_model=MachineOperationBody,
    responses=documented(403, 404, 409),
)
async def delete_machine(
    request: Request,
    scope: Scope,
    machine_id: Identifier,
    if_match: IfMatch,
    idempotency_key: RequiredIdempotencyKey,
    force: _Force = False,  # noqa: FBT002 - a query parameter
) -> Response:
    """Drain a machine and take it out of its cluster; a join or repair that runs is stopped."""
    _require_admin(scope, "machine.delete", machine_id)
    verb = partial(machine_changes.delete, force=force)
    intent = {"force": True} if force else {}
    return await _answer_with_operation(
        request, scope, machine_id, if_match, idempotency_key, verb, intent
    )


@router.post(
    "/{id}:cordon",
    status_code=202,
    response_model=MachineOperationBody,
    responses=documented(403, 404, 409),
)
async def cordon_machine(
    request: Request,
    scope: Scope,
    machine_id: Identifier,
    if_match: IfMatch,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Let a machine take no new pods; those on it stay."""
    _require_admin(scope, "machine.cordon", machine_id)
    return await _answer_with_operation(
        request, scope, machine_id, if_match, idempotency_key, machine_changes.cordon
    )


@router.post(
    "/{id}:uncordon",
    status_code=202,
    response_model=MachineOperationBody,
    responses=documented(403, 404, 409),
)
async def uncordon_machine(
    request: Request,
    scope: Scope,
    machine_id: Identifier,
    if_match: IfMatch,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Let a machine take new pods again."""
    _require_admin(scope, "machine.uncordon", machine_id)
    return await _answer_with_operation(
        request, scope, machine_id, if_match, idempotency_key, machine_changes.uncordon
    )


@router.post(
    "/{id}:suspend",
    status_code=202,
    response_model=MachineOperationBody,
    responses=documented(403, 404, 409, 422),
)
async def suspend_machine(
    request: Request,
    scope: Scope,
    machine_id: Identifier,
    if_match: IfMatch,
    idempotency_key: RequiredIdempotencyKey,
    body: SuspendMachineRequest | None = None,
) -> Response:
    """Keep a machine in a cloud as a snapshot, and remove its server."""
    _require_admin(scope, "machine.suspend", machine_id)
    reason = "manual" if body is None else body.reason
    suspend = partial(machine_changes.suspend, reason=reason)
    return await _answer_with_operation(
        request, scope, machine_id, if_match, idempotency_key, suspend, {"reason": reason}
    )


@router.post(
    "/{id}:resume",
    status_code=202,
    response_model=MachineOperationBody,
    responses=documented(403, 404, 409, 422),
)
async def resume_machine(
    request: Request,
    scope: Scope,
    machine_id: Identifier,
    if_match: IfMatch,
    idempotency_key: RequiredIdempotencyKey,
    body: ResumeMachineRequest | None = None,  # noqa: ARG001 - checked, as by the contract
) -> Response:
    """Make a suspended machine a new server of its snapshot; its id stays."""
    _require_admin(scope, "machine.resume", machine_id)
    return await _answer_with_operation(
        request, scope, machine_id, if_match, idempotency_key, machine_changes.resume
    )


@router.post(
    "/{id}:replace",
    status_code=202,
    response_model=MachineOperationBody,
    responses=documented(403, 404, 409),
)
async def replace_machine(
    request: Request,
    scope: Scope,
    machine_id: Identifier,
    if_match: IfMatch,
    idempotency_key: RequiredIdempotencyKey,
) -> Response:
    """Make another machine of the same shape, and delete this one once the other is ready."""
    _require_admin(scope, "machine.replace", machine_id)
    return await _answer_with_operation(
        request, scope, machine_id, if_match, idempotency_key, machine_changes.replace
    )


def _require_admin(scope: RequestScope, action: str, machine_id: str) -> None:
    scope.require(Role.ADMIN, action, resource_type="machine", resource_id=machine_id)


async def _answer_with_operation(
    request: Request,
    scope: RequestScope,
    machine_id: str,
    if_match: str,
    idempotency_key: str | None,
    verb: machine_changes.Verb,
    intent: Mapping[str, Any] = MappingProxyType({}),
) -> Response:
    async def effect() -> MachineOperationBody:
        return _operation_body(request, await verb(scope, machine_id, if_match))

    return await answer_once(request, scope, idempotency_key, dict(intent), 202, effect)


def _operation_body(request: Request, operation: OperationRow) -> MachineOperationBody:
    body = operation_body(operation, links=Links.of(request))
    return MachineOperationBody(**body, operation_id=operation.id)
