"""On schedules: installs get new versions of their secrets, and of what they are."""

from temporalio import workflow
from temporalio.types import MethodAsyncNoParam

from activities.install_sweeps import InstallSweepActivities
from workflows.policies import HEARTBEAT_TIMEOUT, SERVICE_CALL


@workflow.defn
class SyncSecretsOfInstalls:
    """Start an operation for each install that does not work with the versions that it should."""

    @workflow.run
    async def run(self) -> int:
        """Return how many were started."""
        return await _start(InstallSweepActivities.start_due_secret_syncs)


@workflow.defn
class UpdateInstalls:
    """Start an update of each install whose channel or product has a newer version for it."""

    @workflow.run
    async def run(self) -> int:
        """Return how many were started."""
        return await _start(InstallSweepActivities.start_due_updates)


async def _start(activity: MethodAsyncNoParam[InstallSweepActivities, int]) -> int:
    return await workflow.execute_activity_method(
        activity,
        start_to_close_timeout=SERVICE_CALL.attempt,
        schedule_to_close_timeout=SERVICE_CALL.total,
        heartbeat_timeout=HEARTBEAT_TIMEOUT,
        retry_policy=SERVICE_CALL.retry,
    )
