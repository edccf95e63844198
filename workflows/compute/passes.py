"""How the clock's passes over accounts are run: one activity a pass, which may be repeated."""

from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.types import MethodAsyncNoParam

from activities.account_upkeep import AccountUpkeepActivities
from workflows.policies import HEARTBEAT_TIMEOUT, SERVICE_CALL, Policy

# Each account is asked for seconds, four at a time, and removals wait until a thing is gone. What a
# pass does not come to, the next one does: accounts are visited in no order.
_PASS: Final = Policy(timedelta(minutes=30), timedelta(minutes=50), SERVICE_CALL.retry)


async def run_pass(
    activity: MethodAsyncNoParam[AccountUpkeepActivities, dict[str, int]],
) -> dict[str, int]:
    """Run one pass and return what it did."""
    return await workflow.execute_activity_method(
        activity,
        start_to_close_timeout=_PASS.attempt,
        schedule_to_close_timeout=_PASS.total,
        heartbeat_timeout=HEARTBEAT_TIMEOUT,
        retry_policy=_PASS.retry,
    )
