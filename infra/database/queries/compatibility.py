"""Whether a version of a package fits a cluster, by what the rows know of both."""

from collections.abc import Collection, Mapping

from sqlmodel.ext.asyncio.session import AsyncSession

from domain.package import ClusterFacts, incompatibility
from infra.database.statements import run_sql
from infra.database.tables import ClusterRow, PackageVersionRow
from infra.tools.pins import KUBERNETES

# Providers are those in whose clouds a cluster has machines; a customer's own servers are in none.
_CLUSTERS = """
SELECT c.id, c.provider, c.region_id, c.network_profile,
    coalesce(region_name(c.workspace_id, c.region_id), '') AS region_name,
    ARRAY(SELECT DISTINCT f.provider::text FROM machines m
        JOIN compute_configs f ON f.workspace_id = m.workspace_id AND f.id = m.compute_config_id
        WHERE m.workspace_id = c.workspace_id AND m.cluster_id = c.id AND m.kind = 'cloud'
    ) AS providers
FROM unnest(%(workspaces)s::text[], %(clusters)s::text[]) AS t (workspace, cluster)
JOIN clusters c ON c.workspace_id = t.workspace AND c.id = t.cluster
"""


async def misfit_of(
    session: AsyncSession, version: PackageVersionRow, cluster: ClusterRow
) -> str | None:
    """Return, as a sentence, why a version does not fit a cluster; None: it does."""
    misfits = await misfits_among(session, version, {(cluster.workspace_id, cluster.id)})
    return misfits.get(cluster.id)


async def misfits_among(
    session: AsyncSession, version: PackageVersionRow, clusters: Collection[tuple[str, str]]
) -> Mapping[str, str]:
    """Return, by the ids of the clusters that a version does not fit, why it does not.

    Args:
        session: the sweeper's, or one in the workspace of all of them.
        version: the version.
        clusters: their workspaces' ids and their own.
    """
    if not version.compatibility:
        return {}
    parameters = {
        "workspaces": [workspace_id for workspace_id, _ in clusters],
        "clusters": [cluster_id for _, cluster_id in clusters],
    }
    found = {}
    for row in await run_sql(session, _CLUSTERS, parameters):
        facts = ClusterFacts(
            cluster_type=row.provider,
            kubernetes=KUBERNETES.version,
            region_id=row.region_id,
            region_name=row.region_name,
            providers=frozenset(row.providers),
            network_profile=row.network_profile,
        )
        why = incompatibility(version.compatibility, facts)
        if why is not None:
            found[row.id] = why
    return found
