"""Installs: copies of packages on clusters, as the people who own the clusters see them."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api import install_changes, install_settings
from api.errors import documented
from api.fields import (
    PRINTABLE,
    Cursor,
    IdempotencyKey,
    Identifier,
    IfMatch,
    Limit,
    OptionalIfMatch,
    RequiredIdempotencyKey,
    check_id,
    not_found,
)
from api.idempotency import answer_once, intent_of_caller
from api.install_bodies import (
    InstallBody,
    InstallLifecycleMutation,
    granted_body,
    install_body,
    lifecycle_state,
    render_body,
)
from api.install_changes import NewInstall
from api.install_places import Source, source_of_package, source_of_product
from api.install_requests import (
    AutomaticUpdatesRequest,
    ChangeInstallRequest,
    CreateInstallRequest,
    HoldRequest,
    RestoreInstallRequest,
    UpdateInstallVersionRequest,
)
from api.links import Links
from api.pages import DEFAULT_LIMIT, page_of_items, position_of
from api.routes.operation import OperationBody, operation_body
from api.scope import RequestScope, Scope
from domain.caller import Role
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from domain.package import PinKind
from domain.secret_use import secret_uses_in
from infra.database.queries.install import (
    find_granted_install,
    find_install,
    granted_installs,
    names_of_customers,
    page_of_installs,
)
from infra.database.queries.package import find_visible_version
from infra.database.queries.workspace import find_workspace
from infra.database.tables import InstallRow, RenderRow

router = APIRouter(prefix="/installs", tags=["installs"])

_ProductId = Annotated[str, Query(min_length=1, max_length=55, pattern=PRINTABLE)]

# Returns the install, and the render that is planned, if one is.
_Verb = Callable[[], Awaitable[tuple[InstallRow, RenderRow | None]]]


class InstallList(TypedDict):
    """One page."""

    data: list[InstallBody]
    has_more: bool
    next_cursor: str | None


@router.get("", response_model=InstallList, responses=documented(403))
async def list_installs(
    request: Request,
    scope: Scope,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    product_id: _ProductId | None = None,
) -> Response:
    """List installs, newest first; of one product also those that customers granted."""
    links, own_id = Links.of(request), scope.caller.workspace_id
    before = position_of(cursor, Prefix.INSTALL)
    page = await page_of_installs(scope.session, product_id=product_id, before=before, limit=limit)
    own_name = await workspace_name(scope)
    bodies = [install_body(row, own_name, links=links) for row in page.rows]
    has_more = page.has_more
    if product_id is not None:
        granted = await granted_installs(scope.session, own_id, product_id, before, limit + 1)
        names = await names_of_customers(scope.session, {row.workspace_id for row in granted})
        bodies += [granted_body(row, names[row.workspace_id], links=links) for row in granted]
        bodies.sort(key=lambda body: body["id"], reverse=True)
        has_more = has_more or len(bodies) > limit
    return JSONResponse(page_of_items(bodies[:limit], has_more=has_more))


@router.post(
    "", status_code=202, response_model=OperationBody, responses=documented(403, 404, 409, 422)
)
async def create_install(
    request: Request,
    scope: Scope,
    body: CreateInstallRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Install a product, or a package of one's own, on a cluster."""
    scope.require(Role.ADMIN, "install.create", resource_type="workspace")

    async def effect() -> OperationBody:
        wanted = NewInstall(
            source=await _source(scope, body),
            region_id=body.region_id,
            cluster_id=body.cluster_id,
            values=body.initial_values,
            labels=body.labels,
            channel=body.channel,
            consent=None if body.grant is None else body.grant.consent,
            idempotency_key=idempotency_key,
        )
        operation = await install_changes.create(scope, wanted)
        return operation_body(operation, links=Links.of(request))

    intent = body.model_dump(mode="json", exclude_unset=True)
    intent = _intent(scope, intent, "initial_values")
    return await answer_once(request, scope, idempotency_key, intent, 202, effect)


@router.get("/{id}", response_model=InstallBody, responses=documented(403, 404))
async def get_install(request: Request, scope: Scope, install_id: Identifier) -> Response:
    """Get an install; of one that a customer granted, what the grant shows."""
    links = Links.of(request)
    row = await find_install(scope.session, check_id(Prefix.INSTALL, install_id))
    if row is not None:
        return JSONResponse(install_body(row, await workspace_name(scope), links=links))
    granted = await find_granted_install(scope.session, scope.caller.workspace_id, install_id)
    if granted is None:
        raise not_found(Prefix.INSTALL)
    names = await names_of_customers(scope.session, {granted.workspace_id})
    return JSONResponse(granted_body(granted, names[granted.workspace_id], links=links))


@router.patch("/{id}", response_model=InstallBody, responses=documented(403, 404, 409, 422))
async def change_install(
    request: Request,
    scope: Scope,
    install_id: Identifier,
    body: ChangeInstallRequest,
    if_match: IfMatch,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Change what an install is chosen by and when it may be moved, and its next values."""
    require_admin(scope, "install.update", install_id)
    changes = body.model_dump(mode="json", include=body.model_fields_set)

    async def effect() -> InstallBody:
        row = await install_settings.change(scope, install_id, if_match, changes)
        return install_body(row, await workspace_name(scope), links=Links.of(request))

    intent = _intent(scope, changes, "values")
    return await answer_once(request, scope, idempotency_key, intent, 200, effect)


@router.delete(
    "/{id}", status_code=202, response_model=OperationBody, responses=documented(403, 404, 409)
)
async def delete_install(
    request: Request,
    scope: Scope,
    install_id: Identifier,
    if_match: IfMatch,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Take an install off its cluster, with all that is its; whatever runs on it is stopped."""
    require_admin(scope, "install.delete", install_id)

    async def effect() -> OperationBody:
        operation = await install_changes.delete(scope, install_id, if_match)
        return operation_body(operation, links=Links.of(request))

    return await answer_once(request, scope, idempotency_key, {}, 202, effect)


@router.post(
    "/{id}:update",
    status_code=202,
    response_model=InstallLifecycleMutation,
    responses=documented(403, 404, 409, 422),
)
async def update_install(
    request: Request,
    scope: Scope,
    install_id: Identifier,
    body: UpdateInstallVersionRequest,
    if_match: IfMatch,
    idempotency_key: RequiredIdempotencyKey,
) -> Response:
    """Bring an install to another version of its package."""
    require_admin(scope, "install.update_version", install_id)
    verb = partial(install_changes.update, scope, install_id, if_match, body.package_version_id)
    return await _mutate(request, scope, verb, idempotency_key, body.model_dump(), 202)


@router.post(
    "/{id}:restore",
    status_code=202,
    response_model=InstallLifecycleMutation,
    responses=documented(403, 404, 409, 422),
)
async def restore_install(
    request: Request,
    scope: Scope,
    install_id: Identifier,
    body: RestoreInstallRequest,
    if_match: IfMatch,
    idempotency_key: RequiredIdempotencyKey,
) -> Response:
    """Apply the objects of an earlier render once more, as they were."""
    require_admin(scope, "install.restore", install_id)
    verb = partial(install_changes.restore, scope, install_id, if_match, body.render_id)
    return await _mutate(request, scope, verb, idempotency_key, body.model_dump(), 202)


@router.patch(
    "/{id}/automatic_updates",
    response_model=InstallLifecycleMutation,
    responses=documented(403, 404, 409, 422),
)
async def set_automatic_updates(
    request: Request,
    scope: Scope,
    install_id: Identifier,
    body: AutomaticUpdatesRequest,
    if_match: IfMatch,
    idempotency_key: RequiredIdempotencyKey,
) -> Response:
    """Have new versions of the install's channel come by themselves, or not."""
    require_admin(scope, "install.automatic_updates", install_id)

    async def verb() -> tuple[InstallRow, RenderRow | None]:
        enabled = body.automatic_updates_enabled
        row = await install_settings.set_automatic_updates(
            scope, install_id, if_match, enabled=enabled
        )
        return row, None

    return await _mutate(request, scope, verb, idempotency_key, body.model_dump(), 200)


@router.post("/{id}:hold", response_model=InstallBody, responses=documented(403, 404, 409, 422))
async def hold_install(
    request: Request,
    scope: Scope,
    install_id: Identifier,
    body: HoldRequest,
    if_match: OptionalIfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Keep rollouts and automatic updates from an install, from now on."""
    require_admin(scope, "install.hold", install_id)

    async def effect() -> InstallBody:
        row = await install_settings.hold(
            scope, install_id, if_match, reason=body.reason, until=body.until
        )
        return install_body(row, await workspace_name(scope), links=Links.of(request))

    return await answer_once(request, scope, idempotency_key, body.model_dump(), 200, effect)


@router.post("/{id}:release_hold", response_model=InstallBody, responses=documented(403, 404, 409))
async def release_hold(
    request: Request,
    scope: Scope,
    install_id: Identifier,
    if_match: OptionalIfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Let rollouts and automatic updates move an install again."""
    require_admin(scope, "install.release_hold", install_id)

    async def effect() -> InstallBody:
        row = await install_settings.release_hold(scope, install_id, if_match)
        return install_body(row, await workspace_name(scope), links=Links.of(request))

    return await answer_once(request, scope, idempotency_key, {}, 200, effect)


def require_admin(scope: RequestScope, action: str, install_id: str) -> None:
    """Refuse a caller who is no admin, and have the attempt audited."""
    scope.require(Role.ADMIN, action, resource_type="install", resource_id=install_id)


async def workspace_name(scope: RequestScope) -> str:
    """Return the name of the workspace in which the request acts."""
    row = await find_workspace(scope.session, scope.caller.workspace_id)
    assert row is not None  # noqa: S101 - the caller acts in it
    return row.name


async def _source(scope: RequestScope, body: CreateInstallRequest) -> Source:
    pin = body.package_version_pin
    if body.product_id is not None:
        if body.package_id is not None or pin is not None:
            field = "package_version_pin" if body.package_id is None else "package_id"
            raise _wrong(field=field, why="Name either a product or a package, not both.")
        return await source_of_product(scope, body.product_id)
    if body.package_id is None:
        raise _wrong(field="product_id", why="Name a product, or a package with its version pin.")
    if pin is None:
        raise _wrong(
            field="package_version_pin", why='Say which version: {"kind": "latest"} or pinned.'
        )
    if (pin.kind is PinKind.PINNED) != (pin.version is not None):
        raise _wrong(
            field="package_version_pin",
            why="`version` belongs to the kind `pinned`, and is needed there.",
        )
    return await source_of_package(scope, body.package_id, pin.model_dump(mode="json"))


async def _mutate(
    request: Request,
    scope: RequestScope,
    verb: _Verb,
    idempotency_key: str,
    intent: Mapping[str, Any],
    status: int,
) -> Response:
    async def effect() -> InstallLifecycleMutation:
        install, rendered = await verb()
        seen = partial(
            find_visible_version, scope.session, install.package_workspace_id, install.package_id
        )
        current = None
        if install.current_version_id is not None:
            current = await seen(version_id=install.current_version_id)
        desired = await seen(version_id=install.desired_version_id)
        return InstallLifecycleMutation(
            install=lifecycle_state(install, current, desired),
            render=None if rendered is None else render_body(rendered),
        )

    return await answer_once(request, scope, idempotency_key, intent, status, effect)


def _intent(scope: RequestScope, intent: dict[str, Any], field: str) -> dict[str, Any]:
    """Return the intent; where its values hand a secret on, as that of who may do so."""
    uses = secret_uses_in(intent.get(field, {}), ("body", field))
    return intent_of_caller(scope, intent) if uses else intent


def _wrong(*, field: str, why: str) -> BulkheadError:
    return BulkheadError(Reason.INVALID_ARGUMENT, why, path=("body", field))
