"""Packages: charts with immutable versions."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from functools import partial
from typing import Any, Final, Literal

from fastapi import APIRouter, Request
from sqlmodel import col
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api import package_changes
from api.chart_lookup import look_up
from api.errors import documented
from api.fields import Cursor, IdempotencyKey, Identifier, IfMatch, Limit
from api.idempotency import answer_once, stored_answer
from api.links import Links
from api.package_bodies import PackageBody, PackageVersionBody, package_body, version_body
from api.package_changes import place_of
from api.package_requests import (
    CreatePackageRequest,
    CreatePackageVersionRequest,
    ImportPackageRequest,
)
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.routes.operation import OperationBody, operation_body
from api.scope import Context, RequestScope, Scope, open_scope
from domain.caller import Role
from domain.identifiers import Prefix
from domain.package import ChartPlace
from infra.database.queries.pages import page_of
from infra.database.tables import PackageRow, PackageVersionRow

router = APIRouter(prefix="/packages", tags=["packages"])

_CREATED: Final = 201


class PackageList(TypedDict):
    """One page."""

    data: list[PackageBody]
    has_more: bool
    next_cursor: str | None


class PackageVersionList(TypedDict):
    """One page."""

    data: list[PackageVersionBody]
    has_more: bool
    next_cursor: str | None


@router.get("", response_model=PackageList, responses=documented(403))
async def list_packages(
    request: Request,
    scope: Scope,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    view: Literal["basic", "full"] = "basic",  # noqa: ARG001 - both show all: it is little
) -> Response:
    """List the workspace's packages, newest first."""
    before = position_of(cursor, Prefix.PACKAGE)
    is_created = col(PackageRow.latest_version_id).is_not(None)
    page = await page_of(scope.session, PackageRow, is_created, before=before, limit=limit)
    return JSONResponse(page_body(page, partial(package_body, links=Links.of(request))))


@router.post("", status_code=202, response_model=OperationBody, responses=documented(403, 409, 422))
async def create_package(
    request: Request,
    scope: Scope,
    body: CreatePackageRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Make a package of a chart, whose version becomes the package's first."""
    scope.require(Role.ADMIN, "package.create", resource_type="workspace")

    async def effect() -> OperationBody:
        operation = await package_changes.create(
            scope,
            name=body.name,
            display_image_url=body.display_image_url,
            source=body.sources[0],
            idempotency_key=idempotency_key,
        )
        return operation_body(operation, links=Links.of(request))

    return await answer_once(
        request, scope, idempotency_key, body.model_dump(mode="json"), 202, effect
    )


@router.get("/{id}", response_model=PackageBody, responses=documented(403, 404))
async def get_package(
    request: Request,
    scope: Scope,
    package_id: Identifier,
    view: Literal["basic", "full"] = "basic",  # noqa: ARG001 - both show all: it is little
) -> Response:
    """Get a package."""
    package = await package_changes.find(scope, package_id)
    return JSONResponse(package_body(package, links=Links.of(request)))


@router.delete("/{id}", status_code=204, responses=documented(403, 404, 409))
async def delete_package(
    request: Request,
    scope: Scope,
    package_id: Identifier,
    if_match: IfMatch,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Delete a package to which no product and no install refers; its charts stay."""
    scope.require(Role.ADMIN, "package.delete", resource_type="package", resource_id=package_id)

    async def effect() -> dict[str, Any]:
        await package_changes.delete(scope, package_id, if_match)
        return {}

    return await answer_once(request, scope, idempotency_key, {}, 204, effect)


@router.get("/{id}/versions", response_model=PackageVersionList, responses=documented(403, 404))
async def list_versions(
    scope: Scope, package_id: Identifier, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Response:
    """List a package's versions, the last published first."""
    package = await package_changes.find(scope, package_id)
    before = position_of(cursor, Prefix.PACKAGE_VERSION)
    is_its = col(PackageVersionRow.package_id) == package.id
    page = await page_of(scope.session, PackageVersionRow, is_its, before=before, limit=limit)
    return JSONResponse(page_body(page, version_body))


@router.post(
    "/{id}/versions",
    status_code=201,
    response_model=PackageVersionBody,
    responses=documented(403, 404, 409, 422, 504),
)
async def publish_version(
    request: Request, context: Context, package_id: Identifier, body: CreatePackageVersionRequest
) -> Response:
    """Publish a version, which never changes; its chart is found now, and kept by its digest."""
    async with open_scope(request, context) as scope:
        _require_publisher(scope, package_id)
        package = await package_changes.check_publishable(scope, package_id, body)
    place = ChartPlace(package.source_kind, package.source_url, package.chart)
    # No transaction is held while the registry is asked.
    chart = await look_up(scope, place, body, ("body", "ref"))
    async with open_scope(request, context) as scope:
        _require_publisher(scope, package_id)
        version = await package_changes.publish(scope, package_id, chart, body)
        await scope.rows.write(scope.session)
        answer = version_body(version)
    return JSONResponse(answer, _CREATED)


@router.get(
    "/{id}/versions/{version_id}", response_model=PackageVersionBody, responses=documented(403, 404)
)
async def get_version(scope: Scope, package_id: Identifier, version_id: str) -> Response:
    """Get a version."""
    version = await package_changes.find_version(scope, package_id, version_id)
    return JSONResponse(version_body(version))


@router.get(
    "/{id}/versions/{version_id}/inputs",
    response_model=dict[str, Any],
    responses=documented(403, 404),
)
async def get_inputs(scope: Scope, package_id: Identifier, version_id: str) -> Response:
    """Get the JSON Schema of the values that a version takes."""
    version = await package_changes.find_version(scope, package_id, version_id)
    return JSONResponse(version.input_schema)


@router.post(
    ":import",
    status_code=201,
    response_model=PackageBody,
    responses=documented(403, 409, 422, 504),
)
async def import_package(
    request: Request,
    context: Context,
    body: ImportPackageRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Make a package of a published chart, with its first version, while the request waits."""
    intent = body.model_dump(mode="json")
    place = place_of(body.oci_ref, "", ("body", "oci_ref"))
    async with open_scope(request, context) as scope:
        scope.require(Role.ADMIN, "package.import", resource_type="workspace")
        known = await stored_answer(request, scope, idempotency_key, intent)
        if known is not None:
            return known
    # No transaction is held while the registry is asked.
    chart = await look_up(scope, place, body.version, ("body", "version", "ref"))
    async with open_scope(request, context) as scope:
        scope.require(Role.ADMIN, "package.import", resource_type="workspace")

        async def effect() -> PackageBody:
            package = await package_changes.import_published(
                scope,
                name=body.name,
                place=place,
                chart=chart,
                version=body.version,
                description=body.description,
                display_image_url=body.display_image_url,
            )
            return package_body(package, links=Links.of(request))

        return await answer_once(request, scope, idempotency_key, intent, _CREATED, effect)


def _require_publisher(scope: RequestScope, package_id: str) -> None:
    scope.require(
        Role.ADMIN, "package_version.create", resource_type="package", resource_id=package_id
    )
