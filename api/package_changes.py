"""What requests change about packages: rules, rows, the operation, audit lines.

Nothing here asks a registry: what it answered is given. Each function runs in the request's
transaction and takes the package's row lock first.
"""

from functools import partial
from typing import Any, Final

from sqlalchemy.exc import IntegrityError

from api.fields import check_etag, check_id, not_found
from api.package_requests import CreatePackageVersionRequest, HelmSourceRequest
from api.scope import RequestScope
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id, new_id
from domain.operation import OperationType
from domain.package import ChartPlace, PinKind, ProductState, ResolvedChart
from domain.secret_use import secret_uses_in
from infra.database.queries.package import (
    count_installs_of,
    find_package,
    find_package_version,
    find_pinned_version,
    find_version_called,
    products_of,
)
from infra.database.records.operation import package_operation_of, plan_operation
from infra.database.records.package import add_version, touch
from infra.database.tables import OperationRow, PackageRow, PackageVersionRow
from infra.temporal.start import start_operation

# As many products as an error's sentence can name.
_NAMED: Final = 5

_SOURCE: Final = ("body", "sources", "0")


def place_of(url: str, chart: str, path: tuple[str, ...]) -> ChartPlace:
    """Return the place of a chart that a request names.

    Raises:
        BulkheadError: INVALID_ARGUMENT, at that part of the request.
    """
    try:
        return ChartPlace.of(url, chart)
    except BulkheadError as error:
        raise BulkheadError(error.reason, error.message, path=path) from None


def check_source(source: HelmSourceRequest) -> ChartPlace:
    """Return the place of the chart of which a package shall be made.

    Raises:
        BulkheadError: INVALID_ARGUMENT.
    """
    if source.path:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "A chart in a registry has no path inside of it; leave this out.",
            path=(*_SOURCE, "path"),
        )
    for path, _ in secret_uses_in(source.values, (*_SOURCE, "values")):
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "A package refers to no secrets: each install has those of its own workspace.",
            path=path,
        )
    return place_of(source.repo_url, source.chart, (*_SOURCE, "repo_url"))


async def create(
    scope: RequestScope,
    *,
    name: str,
    display_image_url: str | None,
    source: HelmSourceRequest,
    idempotency_key: str | None,
) -> OperationRow:
    """Plan a package with the chart's version as its first.

    Raises:
        BulkheadError: CONFLICT for a name that is taken; INVALID_ARGUMENT for the source.
    """
    package = _new(scope, name, check_source(source), display_image_url=display_image_url)
    operation = plan_operation(
        scope.rows,
        OperationType.PACKAGE_CREATE,
        package,
        scope.caller,
        request={
            "name": name,
            # The contract shows one always.
            "idempotency_key": idempotency_key or scope.caller.request_id or "",
            "revision": source.target_revision,
            "values": source.values,
        },
    )
    await _insert(scope, package)
    scope.audit(OperationType.PACKAGE_CREATE, "package", package.id, operation_id=operation.id)
    scope.after_commit.append(partial(_start, scope, operation))
    return operation


async def import_published(
    scope: RequestScope,
    *,
    name: str,
    place: ChartPlace,
    chart: ResolvedChart,
    version: CreatePackageVersionRequest,
    **optional: Any,  # noqa: ANN401 - further columns of PackageRow
) -> PackageRow:
    """Add a package whose chart was found, with its first version.

    Raises:
        BulkheadError: CONFLICT for a name that is taken; INVALID_ARGUMENT for the chart.
    """
    package = _new(scope, name, place, **optional)
    if package.description is None:
        package.description = chart.description
    found = _version_of(scope, package, chart, version)
    package.latest_version_id = found.id
    await _insert(scope, package)
    scope.audit("package.import", "package", package.id, semver=found.semver, ref=found.ref)
    return package


async def check_publishable(
    scope: RequestScope, package_id: str, version: CreatePackageVersionRequest
) -> PackageRow:
    """Return the package that shall get a version.

    Raises:
        BulkheadError: NOT_FOUND; CONFLICT for a version that is published.
    """
    package = await find(scope, package_id)
    if await find_version_called(scope.session, package.id, version.semver) is not None:
        raise _is_published(version.semver)
    return package


async def publish(
    scope: RequestScope,
    package_id: str,
    chart: ResolvedChart,
    version: CreatePackageVersionRequest,
) -> PackageVersionRow:
    """Add a version whose chart was found.

    Raises:
        BulkheadError: NOT_FOUND; CONFLICT for a version that is published; INVALID_ARGUMENT for a
            chart of another version or name.
    """
    package = await find(scope, package_id, lock=True)
    before = await find_pinned_version(scope.session, package.id, {"kind": PinKind.LATEST})
    found = _version_of(scope, package, chart, version)
    if before is not None:
        # What the package adds to the chart's defaults stays until it is said anew.
        found.default_values = before.default_values
    try:
        await scope.rows.write(scope.session)
    except IntegrityError:
        raise _is_published(version.semver) from None
    latest = await find_pinned_version(scope.session, package.id, {"kind": PinKind.LATEST})
    touch(package, found.id if latest is None else latest.id)
    scope.audit(
        "package_version.create",
        "package",
        package.id,
        package_version_id=found.id,
        semver=found.semver,
        ref=found.ref,
    )
    return found


async def delete(scope: RequestScope, package_id: str, if_match: str) -> None:
    """Remove a package and its versions; the charts stay where they are.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED; FAILED_PRECONDITION while a product, also one that is
            archived, or an install refers to it.
    """
    package = await find(scope, package_id, lock=True)
    check_etag(if_match, package.version)
    products = await products_of(scope.session, package.id, _NAMED + 1)
    installs = await count_installs_of(scope.session, package.id)
    if products or installs:
        raise _is_used(products, installs)
    try:
        await scope.session.delete(package)
        await scope.session.flush()
    except IntegrityError:
        # A product or an install that came in between.
        raise _is_used({}, 1) from None
    scope.audit("package.delete", "package", package.id, name=package.name)


async def find(scope: RequestScope, package_id: str, *, lock: bool = False) -> PackageRow:
    """Return a package that was created to its end.

    Raises:
        BulkheadError: NOT_FOUND.
    """
    package = await find_package(scope.session, check_id(Prefix.PACKAGE, package_id), lock=lock)
    if package is None or package.latest_version_id is None:
        raise not_found(Prefix.PACKAGE)
    return package


async def find_version(scope: RequestScope, package_id: str, version_id: str) -> PackageVersionRow:
    """Return a version of a package.

    Raises:
        BulkheadError: NOT_FOUND.
    """
    package = await find(scope, package_id)
    version = None
    if is_id(Prefix.PACKAGE_VERSION, version_id):
        version = await find_package_version(scope.session, version_id)
    if version is None or version.package_id != package.id:
        raise BulkheadError(
            Reason.NOT_FOUND, "The package has no such version.", path=("path", "version_id")
        )
    return version


def _new(
    scope: RequestScope,
    name: str,
    place: ChartPlace,
    **optional: Any,  # noqa: ANN401 - further columns of PackageRow
) -> PackageRow:
    return PackageRow(
        workspace_id=scope.caller.workspace_id,
        id=new_id(Prefix.PACKAGE),
        name=name,
        source_kind=place.kind,
        source_url=place.url,
        chart=place.chart,
        **optional,
    )


async def _insert(scope: RequestScope, package: PackageRow) -> None:
    scope.rows.add(package)
    try:
        await scope.rows.write(scope.session)
    except IntegrityError:
        raise BulkheadError(
            Reason.CONFLICT,
            "A package of this name exists, or is being made. Take another name, or publish "
            "another version of that one.",
            path=("body", "name"),
        ) from None


def _version_of(
    scope: RequestScope,
    package: PackageRow,
    chart: ResolvedChart,
    version: CreatePackageVersionRequest,
) -> PackageVersionRow:
    if chart.semver != version.semver:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            f"The chart at this reference says that it is version {chart.semver}. A package's "
            "version is its chart's: send that one, or a reference to another chart.",
            path=("body", "semver"),
            metadata={"chart_semver": chart.semver},
        )
    return add_version(
        scope.rows,
        package,
        chart,
        input_schema=version.input_schema,
        compatibility=version.stored_compatibility(),
    )


async def _start(scope: RequestScope, operation: OperationRow) -> None:
    client = await scope.clients.temporal.client()
    await start_operation(client, operation.type, package_operation_of(operation))


def _is_published(semver: str) -> BulkheadError:
    return BulkheadError(
        Reason.CONFLICT,
        f"Version {semver} is published, and versions never change. Publish a higher one.",
        path=("body", "semver"),
    )


def _is_used(products: dict[str, ProductState], installs: int) -> BulkheadError:
    archived = [name for name, state in products.items() if state is ProductState.ARCHIVED]
    offered = [name for name in products if name not in archived]
    found = []
    if offered:
        found.append(f"products, which can be archived and not deleted: {_some(offered)}")
    if archived:
        found.append(f"archived products, which can be unarchived: {_some(archived)}")
    if installs:
        found.append(f"installs to delete first: {installs}")
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"The package cannot be deleted while something refers to it ({'; '.join(found)}). Nothing "
        "of a package is offered whose products are archived.",
        metadata={"product_ids": ",".join(list(products)[:_NAMED]), "installs": str(installs)},
    )


def _some(names: list[str]) -> str:
    more = " and more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
