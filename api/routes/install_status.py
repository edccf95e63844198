"""How an install is: its state and health, its objects, and its pods."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from typing import Final, NotRequired

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api.errors import documented
from api.fields import Identifier, check_id, not_found
from api.install_reading import readable_install
from api.scope import Context, Scope, open_scope
from domain.identifiers import Prefix
from domain.install import InstallState
from domain.operation import OperationState
from infra.database.queries.install import find_install, find_render
from infra.database.queries.operation import find_operation
from infra.database.tables import InstallRow, OperationRow
from infra.database.tables.columns import unix_or_none
from infra.kubernetes.pods import Pod, PodReader

router = APIRouter(prefix="/installs", tags=["installs"])

# The words of Argo CD for the states of an operation; one that was terminated has failed there.
_PHASES: Final = {
    OperationState.RUNNING: "Running",
    OperationState.SUCCEEDED: "Succeeded",
    OperationState.FAILED: "Failed",
    OperationState.CANCELLED: "Failed",
}


class ResourceHealth(TypedDict):
    """How an object is."""

    status: str
    message: NotRequired[str]


class ResourceStatus(TypedDict):
    """The contract's ResourceStatus."""

    group: NotRequired[str]
    kind: str
    name: str
    message: NotRequired[str]
    namespace: NotRequired[str]
    version: NotRequired[str]
    status: NotRequired[str]
    health: NotRequired[ResourceHealth]


class StatusBody(TypedDict):
    """The contract's InstallStatus; `health_message` and `release_revision` are ours.

    `updated_at` is when the install was seen last; null: never.
    """

    install_id: str
    health: str | None
    sync: str | None
    revision: str | None
    resources: list[ResourceStatus] | None
    operation_phase: str | None
    updated_at: int | None
    state: InstallState
    reconciling: bool
    health_message: str | None
    release_revision: int | None


class PodBody(TypedDict):
    """The contract's Pod; from `phase` on it is ours, in the words of Kubernetes.

    `reason`: why it, or a container of it, does not run; null: nothing is known to be wrong.
    """

    name: str
    containers: list[str]
    phase: str
    ready: bool
    restarts: int
    reason: str | None


class PodList(TypedDict):
    """The contract's PodList: all of them."""

    data: list[PodBody]


@router.get("/{id}/status", response_model=StatusBody, responses=documented(403, 404))
async def get_status(scope: Scope, install_id: Identifier) -> Response:
    """Get how an install is, as it was seen last."""
    install = await find_install(scope.session, check_id(Prefix.INSTALL, install_id))
    if install is None:
        raise not_found(Prefix.INSTALL)
    revision = operation = None
    if install.current_render_id is not None:
        render = await find_render(scope.session, install.id, install.current_render_id)
        revision = None if render is None else render.render_hash
        if render is not None and render.operation_id is not None:
            operation = await find_operation(scope.session, render.operation_id)
    if install.active_operation_id is not None:
        operation = await find_operation(scope.session, install.active_operation_id)
    return JSONResponse(_status_body(install, revision, operation))


@router.get("/{id}/pods", response_model=PodList, responses=documented(403, 404, 409))
async def list_pods(request: Request, context: Context, install_id: Identifier) -> Response:
    """List an install's pods with their containers, as its cluster has them now."""
    # No transaction is held while another system is asked.
    async with open_scope(request, context) as scope:
        place = await readable_install(scope, install_id)
    async with PodReader(scope.clients.openbao, place) as reader:
        pods = await reader.list_pods()
    return JSONResponse(PodList(data=[_pod_body(pod) for pod in pods]))


def _pod_body(pod: Pod) -> PodBody:
    return PodBody(
        name=pod.name,
        containers=pod.container_names,
        phase=pod.phase,
        ready=pod.is_ready,
        restarts=pod.restarts,
        reason=pod.reason,
    )


def _phase_of(operation: OperationRow) -> str:
    if operation.state is OperationState.RUNNING and operation.cancel_requested_at is not None:
        return "Terminating"
    return _PHASES[operation.state]


def _status_body(
    install: InstallRow, revision: str | None, operation: OperationRow | None
) -> StatusBody:
    return StatusBody(
        install_id=install.id,
        health=install.health,
        sync=install.sync,
        revision=revision,
        resources=install.resources,  # type: ignore[typeddict-item] # as the observer writes them
        operation_phase=None if operation is None else _phase_of(operation),
        updated_at=unix_or_none(install.observed_at),
        state=install.state,
        reconciling=install.active_operation_id is not None,
        health_message=install.health_message,
        release_revision=install.release_revision,
    )
