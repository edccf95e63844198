"""How much of each metric a workspace, or one secret of it, uses, and how much it may."""

from dataclasses import dataclass

from sqlmodel.ext.asyncio.session import AsyncSession

from domain.compute import COMPUTE_CONFIG_CONSUMER
from domain.identifiers import Prefix
from domain.install import INSTALL_CONSUMER
from domain.operation import OperationState, OperationType
from domain.package import REGISTRY_CONNECTION_CONSUMER
from domain.quota import OF_A_SECRET, QUOTAS, QuotaMetric
from domain.secret import ROTATION_CONSUMER, VersionState
from infra.database.statements import run_sql

# Other tools may call what they install by any other name.
_IS_REGISTERED = (
    f"consumer_type NOT IN"
    f" ('{COMPUTE_CONFIG_CONSUMER}', '{REGISTRY_CONNECTION_CONSUMER}', '{ROTATION_CONSUMER}')"
    f" AND NOT (consumer_type = '{INSTALL_CONSUMER}'"
    f" AND consumer_id ~ '^{Prefix.INSTALL}_[0-9a-f]{{32}}$')"
)
_COUNTED = {
    QuotaMetric.CLUSTERS: "clusters",
    QuotaMetric.COMPUTE_CONFIGS: "compute_configs",
    QuotaMetric.MACHINES: "machines WHERE kind = 'cloud'",
    QuotaMetric.INSTALLS: "installs",
    QuotaMetric.API_TOKENS: "api_tokens",
    QuotaMetric.REGIONS: "regions",
    QuotaMetric.SECRETS: "secrets",
    QuotaMetric.SECRET_ROTATIONS: (
        f"operations WHERE type = '{OperationType.SECRET_ROTATE}'"
        f" AND state = '{OperationState.RUNNING}' AND waiting_for IS NULL"
    ),
    QuotaMetric.SECRET_VERSIONS: (
        f"secret_versions WHERE secret_id = %(secret)s"
        f" AND state NOT IN ('{VersionState.DESTROYED}', '{VersionState.ABANDONED}')"
    ),
    QuotaMetric.SECRET_REFERENCES: (
        f"secret_references WHERE secret_id = %(secret)s AND {_IS_REGISTERED}"
    ),
}
_READ = {
    metric: (
        f"SELECT (SELECT count(*) FROM {rows}) AS used,"  # noqa: S608 - rows as the lines above have them
        ' (SELECT "limit" FROM quotas WHERE metric = %(metric)s) AS allowed'
    )
    for metric, rows in _COUNTED.items()
}
_LOCK_WORKSPACE = "SELECT 1 FROM workspaces WHERE id = %(id)s FOR NO KEY UPDATE"


@dataclass(frozen=True, slots=True)
class Quota:
    """A metric's limit and its use in one workspace, or by one secret."""

    metric: QuotaMetric
    limit: int
    usage: int

    @property
    def remaining(self) -> int:
        """How many more there may be."""
        return max(self.limit - self.usage, 0)


async def read_quota(
    session: AsyncSession, metric: QuotaMetric, secret_id: str | None = None
) -> Quota:
    """Count what the transaction's workspace uses of a metric, or one secret of it.

    Args:
        session: bound to the workspace.
        metric: what is counted.
        secret_id: whose, for a metric that is counted for each secret.
    """
    parameters = {"metric": metric.value}
    if metric in OF_A_SECRET:
        assert secret_id is not None  # noqa: S101 - the caller knows the metric
        parameters["secret"] = secret_id
    found = (await run_sql(session, _READ[metric], parameters)).one()
    limit = QUOTAS[metric].default_limit if found.allowed is None else found.allowed
    return Quota(metric, limit, found.used)


async def hold_quotas(session: AsyncSession, workspace_id: str) -> None:
    """Let no other request pass here for the workspace before this transaction ends.

    Counts that are read after it are exact: whoever adds a counted thing comes through here.
    """
    await run_sql(session, _LOCK_WORKSPACE, {"id": workspace_id})
