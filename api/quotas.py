"""Quotas, as requests that add something meet them."""

from api.scope import RequestScope
from domain.quota import QuotaMetric
from infra.database.queries.quota import hold_quotas, read_quota, refuse_beyond


async def check_quota(scope: RequestScope, metric: QuotaMetric, wanted: int = 1) -> None:
    """Refuse more of a metric than remains of it; nobody else uses it before the transaction ends.

    Raises:
        BulkheadError: QUOTA_EXCEEDED.
    """
    await hold_quotas(scope.session, scope.caller.workspace_id)
    refuse_beyond(await read_quota(scope.session, metric), wanted)
