"""Quotas, as requests that add something meet them."""

from api.scope import RequestScope
from domain.errors import BulkheadError, Reason
from domain.quota import QuotaMetric
from infra.database.queries.quota import Quota, read_quota


async def check_quota(scope: RequestScope, metric: QuotaMetric) -> None:
    """Refuse one more of a metric that is used up.

    Raises:
        BulkheadError: QUOTA_EXCEEDED.
    """
    refuse_beyond(await read_quota(scope.session, metric))


def refuse_beyond(quota: Quota) -> None:
    """Refuse one more of what was counted, if nothing remains of it.

    Raises:
        BulkheadError: QUOTA_EXCEEDED.
    """
    if quota.remaining == 0:
        raise BulkheadError(
            Reason.QUOTA_EXCEEDED,
            f"The workspace has {quota.usage} of {quota.limit} in `{quota.metric}`; remove one, "
            "or ask the operator for more.",
            metadata={
                "metric": quota.metric,
                "limit": str(quota.limit),
                "usage": str(quota.usage),
            },
        )
