"""PreflightMachines: what an account offers, for a request that waits."""

from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

from activities.preflight import PreflightActivities
from domain.compute import PreflightRequest, PreflightResult
from workflows.policies import HEARTBEAT_TIMEOUT, Policy

# The request waits for 20 s: a second try, and then it says so.
_ASK: Final = Policy(
    timedelta(seconds=15),
    timedelta(seconds=18),
    RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_attempts=2),
)


@workflow.defn
class PreflightMachines:
    """Ask an account for sizes, prices and limits; nothing is written."""

    @workflow.run
    async def run(self, request: PreflightRequest) -> PreflightResult:
        """Return what each place has."""
        return await workflow.execute_activity_method(
            PreflightActivities.preflight,
            request,
            start_to_close_timeout=_ASK.attempt,
            schedule_to_close_timeout=_ASK.total,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=_ASK.retry,
        )
