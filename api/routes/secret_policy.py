"""A workspace's rules for its secrets, which only an owner sets."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api.errors import documented
from api.fields import Body, Identifier, IfMatch, check_etag, check_id, not_found
from api.scope import RequestScope, Scope
from domain.caller import Role
from domain.caller import Scope as SecretScope
from domain.identifiers import Prefix
from infra.database.queries.workspace import change_workspace, find_workspace
from infra.database.tables import WorkspaceRow

router = APIRouter(prefix="/workspaces", tags=["workspaces"])


class ChangeSecretPolicyRequest(Body):
    """What shall be different; what is left out stays."""

    force_allowed: bool = False
    accesses_per_minute: Annotated[int, Field(ge=1, le=100_000)] = 1


class SecretPolicyBody(TypedDict):
    """A workspace's rules for secrets.

    `force_allowed`: whether what is in use may be disabled, destroyed or deleted at once.
    `accesses_per_minute`: how often the value of one secret may be read through one API process.
    """

    workspace_id: str
    force_allowed: bool
    accesses_per_minute: int
    etag: str


@router.get("/{id}/secret_policy", response_model=SecretPolicyBody, responses=documented(403, 404))
async def get_secret_policy(scope: Scope, workspace_id: Identifier) -> Response:
    """Get the workspace's rules for secrets."""
    row = await _find(scope, workspace_id, lock=False)
    scope.require_scope(SecretScope.SECRETS_READ, "secret_policy.get", resource_type="workspace")
    return JSONResponse(_body(row))


@router.patch(
    "/{id}/secret_policy",
    response_model=SecretPolicyBody,
    responses=documented(403, 404, 409, 422),
)
async def change_secret_policy(
    scope: Scope, workspace_id: Identifier, body: ChangeSecretPolicyRequest, if_match: IfMatch
) -> Response:
    """Change the workspace's rules for secrets."""
    row = await _find(scope, workspace_id, lock=True)
    scope.require(Role.OWNER, "secret_policy.update", resource_type="workspace")
    check_etag(if_match, row.version)
    changes = {f"secret_{name}": getattr(body, name) for name in body.model_fields_set}
    if changes:
        scope.audit("secret_policy.update", "workspace", workspace_id, **changes)
        row = await change_workspace(scope.session, workspace_id, changes)
    return JSONResponse(_body(row))


async def _find(scope: RequestScope, workspace_id: str, *, lock: bool) -> WorkspaceRow:
    row = None
    if check_id(Prefix.WORKSPACE, workspace_id) == scope.caller.workspace_id:
        row = await find_workspace(scope.session, workspace_id, lock=lock)
    if row is None:
        raise not_found(Prefix.WORKSPACE)
    return row


def _body(row: WorkspaceRow) -> SecretPolicyBody:
    return SecretPolicyBody(
        workspace_id=row.id,
        force_allowed=row.secret_force_allowed,
        accesses_per_minute=row.secret_accesses_per_minute,
        etag=str(row.version),
    )
