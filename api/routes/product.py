"""Products: what a workspace offers of its packages."""

# ruff: noqa: FAST003 - the parameter is there, under its alias

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from api import product_changes
from api.errors import documented
from api.fields import (
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
from api.links import Links
from api.package_bodies import ProductBody, product_body
from api.package_requests import (
    ArchiveProductRequest,
    ChangeProductRequest,
    CreateProductRequest,
    pin_of,
)
from api.pages import DEFAULT_LIMIT, page_body, position_of
from api.scope import RequestScope, Scope
from domain.caller import Role
from domain.identifiers import Prefix
from infra.database.queries.package import default_versions_of, find_product
from infra.database.queries.pages import page_of
from infra.database.tables import ProductRow

router = APIRouter(prefix="/products", tags=["products"])

_NOUN: Final = "product"
_FAILURES: Final = documented(403, 404, 409, 422)


class ProductList(TypedDict):
    """One page."""

    data: list[ProductBody]
    has_more: bool
    next_cursor: str | None


@router.get("", response_model=ProductList, responses=documented(403))
async def list_products(
    request: Request, scope: Scope, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Response:
    """List the workspace's products, newest first."""
    before = position_of(cursor, Prefix.PRODUCT)
    page = await page_of(scope.session, ProductRow, before=before, limit=limit)
    versions = await default_versions_of(scope.session, page.rows)

    def render(row: ProductRow) -> ProductBody:
        return product_body(row, versions.get(row.id), links=Links.of(request))

    return JSONResponse(page_body(page, render))


@router.post("", status_code=201, response_model=ProductBody, responses=documented(403, 409, 422))
async def create_product(
    request: Request,
    scope: Scope,
    body: CreateProductRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Make a product of a package; published, every workspace may install it."""
    scope.require(Role.ADMIN, "product.create", resource_type="workspace")

    async def effect() -> ProductBody:
        product = await product_changes.create(
            scope,
            name=body.name,
            package_id=body.package_id,
            version_pin=pin_of(body.package_version_pin),
            custom_image=body.custom_image,
            custom_description=body.custom_description,
            marketplace_published=body.marketplace is not None and body.marketplace.published,
        )
        return await _body_of(request, scope, product)

    return await answer_once(
        request, scope, idempotency_key, body.model_dump(mode="json"), 201, effect
    )


@router.get("/{id}", response_model=ProductBody, responses=documented(403, 404))
async def get_product(request: Request, scope: Scope, product_id: Identifier) -> Response:
    """Get a product of the workspace."""
    product = await find_product(scope.session, check_id(Prefix.PRODUCT, product_id))
    if product is None:
        raise not_found(Prefix.PRODUCT)
    return JSONResponse(await _body_of(request, scope, product))


@router.patch("/{id}", response_model=ProductBody, responses=_FAILURES)
async def change_product(
    request: Request,
    scope: Scope,
    product_id: Identifier,
    body: ChangeProductRequest,
    if_match: IfMatch,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Change what is offered; installs that exist stay as they are."""
    _require_admin(scope, "product.update", product_id)
    plain = body.model_fields_set & {"name", "custom_image", "custom_description"}
    changes: dict[str, Any] = body.model_dump(include=plain)
    if body.package_version_pin is not None:
        changes["version_pin"] = pin_of(body.package_version_pin)
    if body.marketplace is not None:
        changes["marketplace_published"] = body.marketplace.published

    async def effect() -> ProductBody:
        product = await product_changes.change(scope, product_id, if_match, changes)
        return await _body_of(request, scope, product)

    intent = body.model_dump(mode="json", exclude_unset=True)
    return await answer_once(request, scope, idempotency_key, intent, 200, effect)


@router.post("/{id}:archive", response_model=ProductBody, responses=_FAILURES)
async def archive_product(
    request: Request,
    scope: Scope,
    product_id: Identifier,
    body: ArchiveProductRequest,
    if_match: IfMatch,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """End what a product offers; its installs stay."""
    _require_admin(scope, "product.archive", product_id)

    async def effect() -> ProductBody:
        product = await product_changes.archive(scope, product_id, if_match, body.archive_reason)
        return await _body_of(request, scope, product)

    return await answer_once(
        request, scope, idempotency_key, body.model_dump(mode="json"), 200, effect
    )


@router.post("/{id}:unarchive", response_model=ProductBody, responses=_FAILURES)
async def unarchive_product(
    request: Request,
    scope: Scope,
    product_id: Identifier,
    if_match: IfMatch,
    body: Body | None = None,  # noqa: ARG001 - the contract's is empty
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Offer a product again as before it was archived."""
    _require_admin(scope, "product.unarchive", product_id)

    async def effect() -> ProductBody:
        product = await product_changes.unarchive(scope, product_id, if_match)
        return await _body_of(request, scope, product)

    return await answer_once(request, scope, idempotency_key, {}, 200, effect)


async def _body_of(request: Request, scope: RequestScope, product: ProductRow) -> ProductBody:
    versions = await default_versions_of(scope.session, [product])
    return product_body(product, versions.get(product.id), links=Links.of(request))


def _require_admin(scope: RequestScope, action: str, product_id: str) -> None:
    scope.require(Role.ADMIN, action, resource_type=_NOUN, resource_id=product_id)
