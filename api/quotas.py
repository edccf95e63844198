"""Quotas, as requests that add something meet them."""

from api.scope import RequestScope
from domain.errors import BulkheadError, Reason
from domain.quota import OF_A_SECRET, QuotaMetric
from infra.database.queries.quota import Quota, hold_quotas, read_quota

# What helps where it is not to remove some.
_WAYS_OUT = {
    QuotaMetric.SECRET_ROTATIONS: "wait until some have ended, or cancel some",
    QuotaMetric.SECRET_VERSIONS: "destroy versions that nobody needs any more",
}


async def check_quota(scope: RequestScope, metric: QuotaMetric, wanted: int = 1) -> None:
    """Refuse more of a metric than remains of it; nobody else uses it before the transaction ends.

    Raises:
        BulkheadError: QUOTA_EXCEEDED.
    """
    await hold_quotas(scope.session, scope.caller.workspace_id)
    refuse_beyond(await read_quota(scope.session, metric), wanted)


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
