"""Whether a version of a package fits a cluster, by what the rows know of both."""

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.package import ClusterFacts, incompatibility
from infra.database.queries.install import providers_of_cluster
from infra.database.tables import ClusterRow, PackageVersionRow, RegionRow
from infra.tools.pins import KUBERNETES


async def misfit_of(
    session: AsyncSession, version: PackageVersionRow, cluster: ClusterRow
) -> str | None:
    """Return, as a sentence, why a version does not fit a cluster; None: it does."""
    if not version.compatibility:
        return None
    query = select(RegionRow.name).where(col(RegionRow.id) == cluster.region_id)
    facts = ClusterFacts(
        cluster_type=cluster.provider,
        kubernetes=KUBERNETES.version,
        region_id=cluster.region_id,
        region_name=(await session.exec(query)).first() or "",
        providers=await providers_of_cluster(session, cluster.id),
        network_profile=cluster.network_profile,
    )
    return incompatibility(version.compatibility, facts)
