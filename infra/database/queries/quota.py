"""How much of each metric a workspace uses, and how much it may."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.quota import QUOTAS, QuotaMetric

_COUNTED = {
    QuotaMetric.CLUSTERS: "clusters",
    QuotaMetric.COMPUTE_CONFIGS: "compute_configs",
    QuotaMetric.MACHINES: "machines WHERE kind = 'cloud'",
    QuotaMetric.INSTALLS: "installs",
    QuotaMetric.API_TOKENS: "api_tokens",
    QuotaMetric.REGIONS: "regions",
    QuotaMetric.SECRETS: "secrets",
}
_READ = {
    metric: text(
        f"SELECT (SELECT count(*) FROM {rows}),"  # noqa: S608 - rows as the lines above have them
        ' (SELECT "limit" FROM quotas WHERE metric = :metric)'
    )
    for metric, rows in _COUNTED.items()
}
_LOCK_WORKSPACE = text("SELECT 1 FROM workspaces WHERE id = :id FOR NO KEY UPDATE")


@dataclass(frozen=True, slots=True)
class Quota:
    """A metric's limit and its use in one workspace."""

    metric: QuotaMetric
    limit: int
    usage: int

    @property
    def remaining(self) -> int:
        """How many more there may be."""
        return max(self.limit - self.usage, 0)


async def read_quota(session: AsyncSession, metric: QuotaMetric) -> Quota:
    """Count what the transaction's workspace uses of a metric."""
    usage, limit = (await session.execute(_READ[metric], {"metric": metric})).one()
    return Quota(metric, QUOTAS[metric].default_limit if limit is None else limit, usage)


async def hold_quotas(session: AsyncSession, workspace_id: str) -> None:
    """Let no other request pass here for the workspace before this transaction ends.

    Counts that are read after it are exact: whoever adds a counted thing comes through here.
    """
    await session.execute(_LOCK_WORKSPACE, {"id": workspace_id})
