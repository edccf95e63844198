"""What is to be installed, and where: the version that an offer gives, and the cluster for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.scope import RequestScope
from domain.cluster import ClusterState
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id
from domain.package import PinKind
from infra.database.queries.compatibility import misfit_of
from infra.database.queries.install import (
    clusters_of_region,
    find_cluster_to_use,
)
from infra.database.queries.package import (
    find_offer,
    find_package,
    find_pinned_version,
    find_visible_version,
)
from infra.database.queries.workspace import find_region
from infra.database.tables import ClusterRow, InstallRow, PackageVersionRow


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be installed; `pinned_semver`: and by itself it shall stay at this version."""

    version: PackageVersionRow
    product_id: str | None = None
    pinned_semver: str | None = None

    @property
    def package_workspace_id(self) -> str:
        """The vendor's workspace."""
        return self.version.workspace_id


async def source_of_product(scope: RequestScope, product_id: str) -> Source:
    """Return what a product gives now.

    Raises:
        BulkheadError: NOT_FOUND, for one that is not offered too.
    """
    found = (
        await find_offer(scope.session, product_id) if is_id(Prefix.PRODUCT, product_id) else None
    )
    if found is None:
        raise _missing(
            field="product_id", what="There is no such product, or it is not offered to you."
        )
    return Source(found.version, product_id=found.product.id)


async def source_of_package(scope: RequestScope, package_id: str, pin: Mapping[str, Any]) -> Source:
    """Return the version to which a pin of one of the workspace's own packages leads.

    Raises:
        BulkheadError: NOT_FOUND for the package or the version.
    """
    package = None
    if is_id(Prefix.PACKAGE, package_id):
        package = await find_package(scope.session, package_id)
    if package is None or package.latest_version_id is None:
        raise _missing(field="package_id", what="There is no such package in this workspace.")
    version = await find_pinned_version(scope.session, package.id, dict(pin))
    if version is None:
        raise _missing(field="package_version_pin", what="The package has no such version.")
    pinned = version.semver if pin["kind"] == PinKind.PINNED else None
    return Source(version, pinned_semver=pinned)


async def version_of(
    scope: RequestScope, install: InstallRow, version_id: str
) -> PackageVersionRow:
    """Return a version of an install's package.

    Raises:
        BulkheadError: NOT_FOUND.
    """
    version = None
    if is_id(Prefix.PACKAGE_VERSION, version_id):
        version = await find_visible_version(
            scope.session, install.package_workspace_id, install.package_id, version_id=version_id
        )
    if version is None:
        raise _missing(
            field="package_version_id",
            what="The install's package has no such version that you can see.",
        )
    return version


async def choose_cluster(
    scope: RequestScope, version: PackageVersionRow, region_id: str, cluster_id: str | None
) -> ClusterRow:
    """Return the cluster that was named, or the region's one with the fewest installs that fits.

    Nobody deletes it before the end of the transaction.

    Raises:
        BulkheadError: NOT_FOUND for the region or the cluster; INVALID_ARGUMENT for a cluster of
            another region; FAILED_PRECONDITION when none is active and fits.
    """
    region = await find_region(scope.session, region_id)
    if region is None:
        raise _missing(
            field="region_id", what="There is no such region in this workspace; create it first."
        )
    if cluster_id is not None:
        return await _named_cluster(scope, version, region_id, cluster_id)
    reasons = []
    for cluster in await clusters_of_region(scope.session, region_id):
        why = await misfit(scope, version, cluster)
        if why is None:
            held = await find_cluster_to_use(scope.session, cluster.id)
            if held is not None and held.state is ClusterState.ACTIVE:
                return held
        else:
            reasons.append(why)
    said = f" {reasons[0]}" if reasons else ""
    raise BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"No active cluster of this region fits.{said} Create one in it, or name another region.",
        path=("body", "region_id"),
    )


async def misfit(
    scope: RequestScope, version: PackageVersionRow, cluster: ClusterRow
) -> str | None:
    """Return why a version does not fit a cluster; None: it does."""
    return await misfit_of(scope.session, version, cluster)


def check_active(cluster: ClusterRow) -> None:
    """Return when a cluster's API can be asked.

    Raises:
        BulkheadError: FAILED_PRECONDITION.
    """
    if cluster.state is not ClusterState.ACTIVE:
        way = "wait until it is active"
        if cluster.state is ClusterState.SUSPENDED:
            way = f"`bulkhead clusters resume {cluster.id}` wakes it"
        elif cluster.state is ClusterState.DELETING:
            way = "it does not come back: take another one"
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"The cluster is {cluster.state}, and its API is what has to be asked; {way}.",
            metadata={"state": cluster.state, "cluster_id": cluster.id},
        )


async def _named_cluster(
    scope: RequestScope, version: PackageVersionRow, region_id: str, cluster_id: str
) -> ClusterRow:
    cluster = None
    if is_id(Prefix.CLUSTER, cluster_id):
        cluster = await find_cluster_to_use(scope.session, cluster_id)
    if cluster is None:
        raise _missing(field="cluster_id", what="There is no such cluster in this workspace.")
    if cluster.region_id != region_id:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "The cluster is in another region than the one that is named.",
            path=("body", "cluster_id"),
            metadata={"region_id": cluster.region_id},
        )
    check_active(cluster)
    why = await misfit(scope, version, cluster)
    if why is not None:
        raise BulkheadError(Reason.FAILED_PRECONDITION, why, path=("body", "cluster_id"))
    return cluster


def _missing(*, field: str, what: str) -> BulkheadError:
    return BulkheadError(Reason.NOT_FOUND, what, path=("body", field))
