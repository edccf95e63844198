"""How an install's live objects differ from what was rendered: as is known, and looked at now."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api.errors import documented
from api.fields import Cursor, Identifier, Limit, check_id, not_found
from api.install_bodies import FindingBody, InstallBody, finding_body, install_body
from api.install_changes import busy
from api.install_places import check_active
from api.links import Links
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.routes.install import require_admin, workspace_name
from api.scope import Context, RequestScope, Scope, open_scope
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from domain.install import InstallState
from domain.install_drift import InstallDriftRequest
from infra.database.queries.cluster import find_cluster
from infra.database.queries.install import find_install, page_of_findings
from infra.database.queries.operation import find_operation
from infra.database.tables import InstallRow
from infra.temporal.waits import compare_install

router = APIRouter(prefix="/installs", tags=["installs"])


class FindingList(TypedDict):
    """One page."""

    data: list[FindingBody]
    has_more: bool
    next_cursor: str | None


@router.get("/{id}/drift", response_model=FindingList, responses=documented(403, 404))
async def list_findings(
    scope: Scope, install_id: Identifier, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Response:
    """List what of an install's live objects is, or was, not as it was rendered, newest first."""
    install = await _find(scope, install_id)
    before = position_of(cursor, Prefix.INSTALL_DRIFT)
    page = await page_of_findings(scope.session, install.id, before=before, limit=limit)
    return JSONResponse(page_body(page, finding_body))


@router.post(
    "/{id}:detect_drift", response_model=InstallBody, responses=documented(403, 404, 409, 504)
)
async def detect_drift(request: Request, context: Context, install_id: Identifier) -> Response:
    """Compare an install with its render now; what differs is corrected where that is asked for."""
    async with open_scope(request, context) as scope:
        require_admin(scope, "install.detect_drift", install_id)
        install = await _find(scope, install_id)
        wanted = await _comparison(scope, install)
        scope.audit("install.detect_drift", "install", install.id)
    # No transaction is held while the cluster is asked.
    client = await scope.clients.temporal.client()
    await compare_install(client, scope.caller.request_id or "", wanted)
    async with open_scope(request, context) as scope:
        looked_at = await _find(scope, install_id)
        if looked_at.drift_looked_at == install.drift_looked_at:
            raise BulkheadError(
                Reason.ABORTED, "The install was moved while it was looked at; ask again."
            )
        name = await workspace_name(scope)
        return JSONResponse(install_body(looked_at, name, links=Links.of(request)))


async def _find(scope: RequestScope, install_id: str) -> InstallRow:
    install = await find_install(scope.session, check_id(Prefix.INSTALL, install_id))
    if install is None:
        raise not_found(Prefix.INSTALL)
    return install


async def _comparison(scope: RequestScope, install: InstallRow) -> InstallDriftRequest:
    """Return what is to be compared where.

    Raises:
        BulkheadError: CONFLICT while an operation runs; FAILED_PRECONDITION while nothing is
            deployed, or its cluster cannot be asked.
    """
    if install.active_operation_id is not None:
        running = await find_operation(scope.session, install.active_operation_id)
        if running is not None:
            raise busy(running)
    if install.state not in (InstallState.HEALTHY, InstallState.DEGRADED):
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"The install is {install.state}: no render is deployed with which it could be "
            "compared.",
        )
    cluster = await find_cluster(scope.session, install.cluster_id)
    assert cluster is not None  # noqa: S101 - a foreign key holds it
    check_active(cluster)
    return InstallDriftRequest(
        workspace_id=install.workspace_id, install_id=install.id, host=cluster.host
    )
