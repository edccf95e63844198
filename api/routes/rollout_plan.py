"""What a rollout of plans alone planned for an install, as the install's own people see it."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api.errors import documented
from api.fields import Identifier, check_id, not_found
from api.scope import Scope
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from infra.database.queries.install import find_install, find_rollout_preview
from infra.database.tables import RolloutPreviewRow
from infra.database.tables.columns import unix

router = APIRouter(prefix="/installs", tags=["installs"])


class RolloutPlanBody(TypedDict):
    """What a rollout would do to an install, as in PlanBody; data of Secrets are hidden.

    Its vendor sees `plan_digest`, and nothing else of this.
    """

    install_id: str
    rollout_id: str
    package_version_id: str
    semver: str
    plan_digest: str
    render_hash: str
    changes: list[dict[str, Any]]
    needs: list[dict[str, Any]]
    counts: dict[str, int]
    hooks: list[Any]
    created_at: int


@router.get("/{id}/rollout_plan", response_model=RolloutPlanBody, responses=documented(403, 404))
async def get_rollout_plan(scope: Scope, install_id: Identifier) -> Response:
    """Get what the last rollout of plans alone would do to an install."""
    if await find_install(scope.session, check_id(Prefix.INSTALL, install_id)) is None:
        raise not_found(Prefix.INSTALL)
    found = await find_rollout_preview(scope.session, install_id)
    if found is None:
        raise BulkheadError(Reason.NOT_FOUND, "No rollout has planned anything for the install.")
    return JSONResponse(_body(found))


def _body(row: RolloutPreviewRow) -> RolloutPlanBody:
    return RolloutPlanBody(
        install_id=row.install_id,
        rollout_id=row.rollout_id,
        package_version_id=row.package_version_id,
        semver=row.semver,
        plan_digest=row.plan_digest,
        render_hash=row.render_hash,
        changes=row.plan["changes"],
        needs=row.plan["needs"],
        counts=row.plan["counts"],
        hooks=row.plan["hooks"],
        created_at=unix(row.created_at),
    )
