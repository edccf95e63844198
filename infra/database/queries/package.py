"""Packages, versions and products: a workspace's own, and what it sees of other workspaces'."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.package import Channel, PinKind, ProductState
from infra.database.tables import (
    PackageRow,
    PackageVersionRow,
    ProductRow,
    RegistryConnectionRow,
)

_OFFERED_PRODUCT: Final = select(ProductRow).from_statement(
    text("SELECT * FROM offered_product(:product)")
)
_OFFERED_VERSION: Final = select(PackageVersionRow).from_statement(
    text("SELECT * FROM offered_version(:product)")
)


@dataclass(frozen=True, slots=True)
class Offer:
    """A product that a workspace may install, and the version that it gives now.

    Attributes:
        product: `workspace_id` is the vendor's. Read it, and never change it.
        version: the pinned one, else the newest release, else the newest of all.
    """

    product: ProductRow
    version: PackageVersionRow


async def find_offer(session: AsyncSession, product_id: str) -> Offer | None:
    """Return what a product offers to the transaction's workspace.

    None: there is no such product, or it is archived, or another's that is not published.
    """
    parameters = {"product": product_id}
    product = (await session.execute(_OFFERED_PRODUCT, parameters)).scalar_one_or_none()
    version = (await session.execute(_OFFERED_VERSION, parameters)).scalar_one_or_none()
    return None if product is None or version is None else Offer(product, version)


async def find_visible_version(
    session: AsyncSession,
    workspace_id: str,
    package_id: str,
    *,
    version_id: str | None = None,
    semver: str | None = None,
) -> PackageVersionRow | None:
    """Return a version of a package that is the workspace's own, or that it has installed.

    Args:
        session: the transaction of whoever asks.
        workspace_id: the package's: the vendor's.
        package_id: which package.
        version_id: which version, by its id,
        semver: or by what it is called.
    """
    found = await visible_versions(session, workspace_id, package_id)
    return next((each for each in found if version_id == each.id or semver == each.semver), None)


async def visible_versions(
    session: AsyncSession, workspace_id: str, package_id: str
) -> Sequence[PackageVersionRow]:
    """Return all versions of a package that is the workspace's own, or that it has installed."""
    query = select(PackageVersionRow).from_statement(
        text("SELECT * FROM visible_versions(:workspace, :package)")
    )
    parameters = {"workspace": workspace_id, "package": package_id}
    return (await session.execute(query, parameters)).scalars().all()


async def find_package(
    session: AsyncSession, package_id: str, *, lock: bool = False
) -> PackageRow | None:
    """Read a package of the workspace; with `lock` nobody else changes it."""
    query = select(PackageRow).where(PackageRow.id == package_id)
    if lock:
        query = query.with_for_update(key_share=True)
    return (await session.exec(query)).one_or_none()


async def find_package_version(session: AsyncSession, version_id: str) -> PackageVersionRow | None:
    """Read a version of one of the workspace's own packages."""
    query = select(PackageVersionRow).where(PackageVersionRow.id == version_id)
    return (await session.exec(query)).one_or_none()


async def find_version_called(
    session: AsyncSession, package_id: str, semver: str
) -> PackageVersionRow | None:
    """Read the version of one of the workspace's own packages that has this semantic version."""
    query = select(PackageVersionRow).where(
        PackageVersionRow.package_id == package_id, PackageVersionRow.semver == semver
    )
    return (await session.exec(query)).one_or_none()


async def find_pinned_version(
    session: AsyncSession, package_id: str, pin: dict[str, Any]
) -> PackageVersionRow | None:
    """Return the version of one of the workspace's own packages to which a pin leads.

    `latest` is the newest release; without one, the newest pre-release.
    """
    query = select(PackageVersionRow).where(PackageVersionRow.package_id == package_id)
    if pin["kind"] == PinKind.PINNED:
        query = query.where(PackageVersionRow.semver == pin["version"])
    newest_first = (
        (col(PackageVersionRow.channel) == Channel.STABLE).desc(),
        col(PackageVersionRow.sort_key).desc(),
        col(PackageVersionRow.id).desc(),
    )
    return (await session.exec(query.order_by(*newest_first).limit(1))).first()


async def products_of(
    session: AsyncSession, package_id: str, limit: int
) -> dict[str, ProductState]:
    """Return the first products of a package, archived ones too, with their states."""
    query = select(ProductRow.id, ProductRow.state).where(ProductRow.package_id == package_id)
    found = await session.exec(query.order_by(ProductRow.id).limit(limit))
    return {product_id: ProductState(state) for product_id, state in found}


async def count_installs_of(session: AsyncSession, package_id: str) -> int:
    """Count the installs of one of the workspace's own packages, whosever they are."""
    statement = text("SELECT count_installs_of(:package)")
    return int((await session.execute(statement, {"package": package_id})).scalar_one())


async def default_versions_of(
    session: AsyncSession, products: Sequence[ProductRow]
) -> dict[str, str]:
    """Return the ids of the versions that products give now, by the ids of the products."""
    if not products:
        return {}
    package_ids = {product.package_id for product in products}
    query = select(
        PackageVersionRow.id,
        PackageVersionRow.package_id,
        PackageVersionRow.semver,
    ).where(col(PackageVersionRow.package_id).in_(package_ids))
    newest_last = (
        col(PackageVersionRow.channel) == Channel.STABLE,
        col(PackageVersionRow.sort_key),
        col(PackageVersionRow.id),
    )
    called: dict[tuple[str, str], str] = {}
    latest: dict[str, str] = {}
    for version_id, package_id, semver in await session.exec(query.order_by(*newest_last)):
        called[package_id, semver] = latest[package_id] = version_id
    found = {
        product.id: latest.get(product.package_id)
        if product.version_pin["kind"] == PinKind.LATEST
        else called.get((product.package_id, product.version_pin["version"]))
        for product in products
    }
    return {product_id: version_id for product_id, version_id in found.items() if version_id}


async def find_product(
    session: AsyncSession, product_id: str, *, lock: bool = False
) -> ProductRow | None:
    """Read a product of the workspace; with `lock` nobody else changes it."""
    query = select(ProductRow).where(ProductRow.id == product_id)
    if lock:
        query = query.with_for_update(key_share=True)
    return (await session.exec(query)).one_or_none()


async def find_connection(
    session: AsyncSession, connection_id: str, *, lock: bool = False
) -> RegistryConnectionRow | None:
    """Read a registry connection of the workspace."""
    query = select(RegistryConnectionRow).where(RegistryConnectionRow.id == connection_id)
    if lock:
        query = query.with_for_update()
    return (await session.exec(query)).one_or_none()
