"""Versions of secrets: added, listed, enabled, disabled and destroyed; never shown a value."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from enum import StrEnum
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import StringConstraints
from sqlmodel import col
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api import version_changes
from api.errors import documented
from api.fields import (
    TEXT,
    Body,
    Cursor,
    IdempotencyKey,
    Identifier,
    IfMatch,
    Limit,
    check_id,
    not_found,
)
from api.idempotency import answer_once
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.routes.secret import Encoding, Value
from api.scope import Context, RequestScope, Scope, open_scope
from api.secret_additions import NewVersion
from api.secret_bodies import SecretVersionBody, version_body
from api.secret_saga import add_version
from api.secret_space import in_secret_space
from domain.caller import Scope as SecretScope
from domain.identifiers import Prefix, is_id
from domain.secret import SecretState, SecretValue, ValueEncoding, VersionState
from infra.database.queries.pages import page_of
from infra.database.queries.secret import find_secret, find_version, is_visible_version
from infra.database.records.secret import complete_destroying, read_version
from infra.database.tables import SecretVersionRow

router = APIRouter(prefix="/secrets", tags=["secrets"])

VersionId = Annotated[str, Path(alias="vid")]


class CreateSecretVersionRequest(Body):
    """A version to be added; `current` stays where it is."""

    value: Value
    value_encoding: Encoding = ValueEncoding.UTF8
    comment: Annotated[str, StringConstraints(max_length=200, pattern=TEXT)] | None = None


class ShownState(StrEnum):
    """The states of the contract."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    DESTROYED = "destroyed"


_STATES = {
    ShownState.ENABLED: (VersionState.ENABLED,),
    ShownState.DISABLED: (VersionState.DISABLED, VersionState.DESTROYING),
    ShownState.DESTROYED: (VersionState.DESTROYED,),
}


class SecretVersionList(TypedDict):
    """One page."""

    data: list[SecretVersionBody]
    has_more: bool
    next_cursor: str | None


@router.post(
    "/{id}/versions",
    status_code=201,
    response_model=SecretVersionBody,
    responses=documented(403, 404, 409),
)
async def create_secret_version(
    request: Request,
    context: Context,
    secret_id: Identifier,
    body: CreateSecretVersionRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Add a version. It is `latest`; `current` moves only when a PATCH or a rotation moves it."""
    addition = NewVersion(
        secret_id=secret_id,
        value=SecretValue.of_text(body.value, body.value_encoding),
        comment=body.comment,
    )
    return await add_version(
        request, context, idempotency_key, body.model_dump(mode="json"), addition
    )


@router.get("/{id}/versions", response_model=SecretVersionList, responses=documented(403, 404))
async def list_secret_versions(
    scope: Scope,
    secret_id: Identifier,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    state: ShownState | None = None,
) -> Response:
    """List a secret's versions, newest first."""
    await _find_active(scope, secret_id, "secret_version.list")
    conditions = [col(SecretVersionRow.secret_id) == secret_id, is_visible_version()]
    if state is not None:
        conditions.append(col(SecretVersionRow.state).in_(_STATES[state]))
    before = position_of(cursor, Prefix.SECRET_VERSION)
    page = await page_of(scope.session, SecretVersionRow, *conditions, before=before, limit=limit)
    return JSONResponse(page_body(page, version_body))


@router.get(
    "/{id}/versions/{vid}", response_model=SecretVersionBody, responses=documented(403, 404)
)
async def get_secret_version(
    scope: Scope, secret_id: Identifier, version_id: VersionId
) -> Response:
    """Get what is known about a version."""
    await _find_active(scope, secret_id, "secret_version.get")
    version = None
    if is_id(Prefix.SECRET_VERSION, version_id):
        version = await find_version(scope.session, secret_id, version_id)
    if version is None:
        raise version_changes.no_such_version()
    return JSONResponse(version_body(version))


@router.post(
    "/{id}/versions/{vid}:enable",
    response_model=SecretVersionBody,
    responses=documented(403, 404, 409),
)
async def enable_secret_version(
    request: Request,
    scope: Scope,
    secret_id: Identifier,
    version_id: VersionId,
    if_match: IfMatch,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Make a version readable again."""
    _require_write(scope, "secret_version.enable", secret_id)

    async def effect() -> SecretVersionBody:
        wanted = version_changes.Wanted(secret_id, version_id, if_match)
        return version_body(await version_changes.enable(scope, wanted))

    return await answer_once(request, scope, idempotency_key, {}, 200, effect)


@router.post(
    "/{id}/versions/{vid}:disable",
    response_model=SecretVersionBody,
    responses=documented(403, 404, 409),
)
async def disable_secret_version(
    scope: Scope,
    secret_id: Identifier,
    version_id: VersionId,
    if_match: IfMatch,
    force: bool | None = None,  # noqa: FBT001 - a query parameter
) -> Response:
    """Make a version unreadable until it is enabled again."""
    _require_write(scope, "secret_version.disable", secret_id)
    wanted = version_changes.Wanted(secret_id, version_id, if_match, force=bool(force))
    return JSONResponse(version_body(await version_changes.disable(scope, wanted)))


@router.post(
    "/{id}/versions/{vid}:destroy",
    response_model=SecretVersionBody,
    responses=documented(403, 404, 409),
)
async def destroy_secret_version(
    request: Request,
    context: Context,
    secret_id: Identifier,
    version_id: VersionId,
    if_match: IfMatch,
    force: bool | None = None,  # noqa: FBT001 - a query parameter
) -> Response:
    """Destroy a version's value for good, and prove that it is gone; what is known of it stays.

    When the secret store does not answer, the version is unreadable by then (`disabled`), and its
    value is destroyed as soon as the store is back.
    """
    async with open_scope(request, context) as scope:
        _require_write(scope, "secret_version.destroy", secret_id)
        wanted = version_changes.Wanted(secret_id, version_id, if_match, force=bool(force))
        place = await version_changes.begin_to_destroy(scope, wanted)
        if place is None:
            version = await find_version(scope.session, secret_id, version_id)
    if place is not None:
        workspace_id = place.workspace_id
        values = scope.clients.openbao.values
        await in_secret_space(scope.clients, workspace_id, partial(values.destroy, place))
        async with scope.clients.database.workspace(workspace_id) as session:
            await complete_destroying(session, place)
            version = await read_version(session, place)
    if version is None:
        raise version_changes.no_such_version()
    return JSONResponse(version_body(version))


async def _find_active(scope: RequestScope, secret_id: str, action: str) -> None:
    scope.require_scope(
        SecretScope.SECRETS_READ, action, resource_type="secret", resource_id=secret_id
    )
    secret = await find_secret(scope.session, check_id(Prefix.SECRET, secret_id))
    if secret is None or secret.state is not SecretState.ACTIVE:
        raise not_found(Prefix.SECRET)


def _require_write(scope: RequestScope, action: str, secret_id: str) -> None:
    scope.require_scope(
        SecretScope.SECRETS_WRITE, action, resource_type="secret", resource_id=secret_id
    )
