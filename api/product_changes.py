"""What requests change about products: rules, rows and audit lines.

Each function runs in the request's transaction and takes the product's row lock first.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.exc import IntegrityError

from api.fields import check_etag, check_id, not_found
from api.scope import RequestScope
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id, new_id
from domain.package import PinKind, ProductState
from infra.database.queries.package import find_package, find_product, find_version_called
from infra.database.tables import ProductRow

_UNPROCESSABLE = 422


async def create(
    scope: RequestScope,
    *,
    name: str,
    package_id: str,
    version_pin: dict[str, Any],
    **optional: Any,  # noqa: ANN401 - further columns of ProductRow
) -> ProductRow:
    """Add a product of one of the workspace's packages.

    Raises:
        BulkheadError: NOT_FOUND, as 422, for the package or the version that is pinned.
    """
    package = None
    if is_id(Prefix.PACKAGE, package_id):
        package = await find_package(scope.session, package_id)
    if package is None or package.latest_version_id is None:
        raise _no_such_package()
    await _check_pin(scope, package_id, version_pin)
    product = ProductRow(
        workspace_id=scope.caller.workspace_id,
        id=new_id(Prefix.PRODUCT),
        package_id=package_id,
        name=name,
        version_pin=version_pin,
        state=ProductState.ACTIVE,
        **optional,
    )
    scope.rows.add(product)
    try:
        await scope.rows.write(scope.session)
    except IntegrityError:
        # It was deleted in between.
        raise _no_such_package() from None
    scope.audit(
        "product.create",
        "product",
        product.id,
        package_id=package_id,
        published=str(product.marketplace_published).lower(),
    )
    return product


async def change(
    scope: RequestScope, product_id: str, if_match: str, changes: Mapping[str, Any]
) -> ProductRow:
    """Write what a PATCH asks for; installs that exist stay as they are.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED; FAILED_PRECONDITION for an archived product; NOT_FOUND,
            as 422, for the version that is pinned.
    """
    product = await hold(scope, product_id, if_match)
    if product.state is ProductState.ARCHIVED:
        raise _illegal(why="The product is archived: unarchive it first.")
    if "version_pin" in changes:
        await _check_pin(scope, product.package_id, changes["version_pin"])
    changed = {name for name, value in changes.items() if getattr(product, name) != value}
    for name in changed:
        setattr(product, name, changes[name])
    if changed:
        _touch(product)
        details: dict[str, str | int | None] = {"fields": ",".join(sorted(changed))}
        if "marketplace_published" in changed:
            details["published"] = str(product.marketplace_published).lower()
        scope.audit("product.update", "product", product.id, **details)
    return product


async def archive(
    scope: RequestScope, product_id: str, if_match: str, reason: str | None
) -> ProductRow:
    """End what a product offers; its installs stay, and can be brought to later versions.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED; FAILED_PRECONDITION, as 422, when it is archived.
    """
    product = await hold(scope, product_id, if_match)
    if product.state is ProductState.ARCHIVED:
        raise _illegal(why="The product is archived already.")
    product.state = ProductState.ARCHIVED
    product.archived_at = datetime.now(UTC)
    product.archive_reason = reason
    _touch(product)
    scope.audit("product.archive", "product", product.id)
    return product


async def unarchive(scope: RequestScope, product_id: str, if_match: str) -> ProductRow:
    """Offer a product again as before.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED; FAILED_PRECONDITION, as 422, when it is not archived.
    """
    product = await hold(scope, product_id, if_match)
    if product.state is not ProductState.ARCHIVED:
        raise _illegal(why="The product is not archived.")
    product.state = ProductState.ACTIVE
    product.archived_at = product.archive_reason = None
    _touch(product)
    scope.audit("product.unarchive", "product", product.id)
    return product


async def hold(scope: RequestScope, product_id: str, if_match: str) -> ProductRow:
    """Lock a product of the workspace.

    Raises:
        BulkheadError: NOT_FOUND, or ABORTED.
    """
    product = await find_product(scope.session, check_id(Prefix.PRODUCT, product_id), lock=True)
    if product is None:
        raise not_found(Prefix.PRODUCT)
    check_etag(if_match, product.version)
    return product


async def _check_pin(scope: RequestScope, package_id: str, pin: Mapping[str, Any]) -> None:
    if pin["kind"] == PinKind.LATEST:
        return
    if await find_version_called(scope.session, package_id, pin["version"]) is None:
        raise BulkheadError(
            Reason.NOT_FOUND,
            "The package has no such version; publish it first, or pin another one.",
            path=("body", "package_version_pin", "version"),
            status=_UNPROCESSABLE,
        )


def _no_such_package() -> BulkheadError:
    return BulkheadError(
        Reason.NOT_FOUND,
        "There is no such package in this workspace.",
        path=("body", "package_id"),
        status=_UNPROCESSABLE,
    )


def _illegal(*, why: str) -> BulkheadError:
    return BulkheadError(Reason.FAILED_PRECONDITION, why, status=_UNPROCESSABLE)


def _touch(product: ProductRow) -> None:
    product.version += 1
    product.updated_at = datetime.now(UTC)
