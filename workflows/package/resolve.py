"""ResolveChart: which chart an address leads to, for a request that waits."""

from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

from activities.packages import PackageActivities
from domain.package import ResolvedChart, ResolveRequest
from workflows.policies import HEARTBEAT_TIMEOUT, Policy

# The request waits for 25 s: a second try, and then it says so.
_LOOK_UP: Final = Policy(
    timedelta(seconds=20),
    timedelta(seconds=23),
    RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_attempts=2),
)


@workflow.defn
class ResolveChart:
    """Look a chart up and check it; nothing is written."""

    @workflow.run
    async def run(self, request: ResolveRequest) -> ResolvedChart:
        """Return what the chart is."""
        return await workflow.execute_activity_method(
            PackageActivities.look_up_chart,
            request,
            start_to_close_timeout=_LOOK_UP.attempt,
            schedule_to_close_timeout=_LOOK_UP.total,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=_LOOK_UP.retry,
        )
