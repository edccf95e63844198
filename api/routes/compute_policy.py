"""Where a workspace lets machines and snapshots be, which only an owner sets."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field, StringConstraints
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api.errors import documented
from api.fields import Body, Identifier, IfMatch, check_etag, check_id, not_found
from api.places import check_place
from api.scope import RequestScope, Scope
from domain.caller import Role
from domain.cloud import Provider
from domain.identifiers import Prefix
from infra.database.queries.compute import find_policy
from infra.database.queries.workspace import find_workspace
from infra.database.tables import ComputePolicyRow

router = APIRouter(prefix="/workspaces", tags=["workspaces"])

AllowedPlace = Annotated[
    str,
    StringConstraints(
        max_length=80, pattern=rf"^({'|'.join(Provider)})/[a-z][a-z0-9]*(-[a-z0-9]+)*$"
    ),
]


class ChangeComputePolicyRequest(Body):
    """What shall be different: places such as `hcloud/fsn1`. Null or none of them: everywhere."""

    allowed_places: Annotated[list[AllowedPlace], Field(max_length=200)] | None = None


class ComputePolicyBody(TypedDict):
    """Where machines and snapshots may be; an empty list: everywhere."""

    workspace_id: str
    allowed_places: list[str]
    etag: str


@router.get(
    "/{id}/compute_policy", response_model=ComputePolicyBody, responses=documented(403, 404)
)
async def get_compute_policy(scope: Scope, workspace_id: Identifier) -> Response:
    """Get where the workspace lets machines and snapshots be."""
    await _check_workspace(scope, workspace_id, lock=False)
    return JSONResponse(_body(workspace_id, await find_policy(scope.session)))


@router.patch(
    "/{id}/compute_policy",
    response_model=ComputePolicyBody,
    responses=documented(403, 404, 409, 422),
)
async def change_compute_policy(
    scope: Scope, workspace_id: Identifier, body: ChangeComputePolicyRequest, if_match: IfMatch
) -> Response:
    """Change where machines and snapshots may be; those that are elsewhere stay."""
    await _check_workspace(scope, workspace_id, lock=True)
    scope.require(Role.OWNER, "compute_policy.update", resource_type="workspace")
    policy = await find_policy(scope.session)
    check_etag(if_match, _etag_of([] if policy is None else policy.allowed_places))
    if "allowed_places" in body.model_fields_set:
        policy = await _set(scope, policy, _checked(body.allowed_places or []))
    return JSONResponse(_body(workspace_id, policy))


def _checked(places: Sequence[str]) -> list[str]:
    for position, place in enumerate(places):
        provider, _, name = place.partition("/")
        check_place(Provider(provider), name, ("body", "allowed_places", str(position)))
    return sorted(set(places))


async def _set(
    scope: RequestScope, policy: ComputePolicyRow | None, places: list[str]
) -> ComputePolicyRow | None:
    before = [] if policy is None else policy.allowed_places
    if places == before:
        return policy
    workspace_id = scope.caller.workspace_id
    scope.audit(
        "compute_policy.update",
        "workspace",
        workspace_id,
        allowed_places=",".join(places) or "everywhere",
    )
    if not places:
        # No row stands for everywhere: an empty list of what is allowed could be read as nowhere.
        await scope.session.delete(policy)
        return None
    if policy is None:
        policy = ComputePolicyRow(workspace_id=workspace_id, allowed_places=places)
        scope.session.add(policy)
    else:
        policy.allowed_places = places
        policy.version += 1
        policy.updated_at = datetime.now(UTC)
    await scope.session.flush()
    return policy


async def _check_workspace(scope: RequestScope, workspace_id: str, *, lock: bool) -> None:
    known = check_id(Prefix.WORKSPACE, workspace_id) == scope.caller.workspace_id
    if not known or await find_workspace(scope.session, workspace_id, lock=lock) is None:
        raise not_found(Prefix.WORKSPACE)


def _body(workspace_id: str, policy: ComputePolicyRow | None) -> ComputePolicyBody:
    places = [] if policy is None else policy.allowed_places
    return ComputePolicyBody(
        workspace_id=workspace_id, allowed_places=places, etag=_etag_of(places)
    )


def _etag_of(places: list[str]) -> str:
    # Of the list itself: the row, and with it any count of its changes, comes and goes.
    return hashlib.sha256(json.dumps(places).encode()).hexdigest()[:16]
