"""How much of each metric a workspace, or one secret of it, uses, and how much it may."""

from dataclasses import dataclass

from sqlmodel.ext.asyncio.session import AsyncSession

from domain.compute import COMPUTE_CONFIG_CONSUMER
from domain.errors import BulkheadError, Reason
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
# Not the workspace's row: the worker may only read that, and its rotations add tokens.
_HOLD = "SELECT pg_advisory_xact_lock(hashtextextended('quotas/' || %(id)s, 0))"

# What helps where it is not to remove some.
_WAYS_OUT = {
    QuotaMetric.API_TOKENS: "revoke some that nobody needs any more (a rotation that keeps the old "
    "token adds one each time; `bulkhead secrets rotation set SECRET --retire destroy` has it "
    "revoke the old one)",
    QuotaMetric.SECRET_ROTATIONS: "wait until some have ended, or cancel some",
    QuotaMetric.SECRET_VERSIONS: "destroy versions that nobody needs any more",
}


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
    """Let nobody else pass here for the workspace before this transaction ends.

    Counts that are read after it are exact: whoever adds a counted thing comes through here.
    """
    await run_sql(session, _HOLD, {"id": workspace_id})


def refuse_beyond(quota: Quota, wanted: int = 1) -> None:
    """Refuse more of what was counted than remains of it.

    Raises:
        BulkheadError: QUOTA_EXCEEDED.
    """
    if quota.remaining < wanted:
        whose = "secret" if quota.metric in OF_A_SECRET else "workspace"
        raise BulkheadError(
            Reason.QUOTA_EXCEEDED,
            f"The {whose} has {quota.usage} of {quota.limit} in `{quota.metric}`, and would need "
            f"{wanted} more; {_WAYS_OUT.get(quota.metric, 'remove some')}, or ask the operator for "
            "more.",
            metadata={
                "metric": quota.metric,
                "limit": str(quota.limit),
                "usage": str(quota.usage),
            },
        )
