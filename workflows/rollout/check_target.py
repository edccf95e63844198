"""CheckTarget: one install of a rollout that bakes is looked at from the host of its cluster."""

from temporalio import workflow

from activities.rollout_hosts import RolloutHostActivities
from domain.names import task_queue_of_host
from domain.rollout_work import TargetPlace
from workflows.policies import HEARTBEAT_TIMEOUT
from workflows.rollout.policies import CHECK_SERVICES


@workflow.defn
class CheckTarget:
    """Ask the install's Services once more; when that is done again is in its row."""

    @workflow.run
    async def run(self, place: TargetPlace, host: str) -> bool:
        """Return whether it is not well."""
        return await workflow.execute_activity_method(
            RolloutHostActivities.check_services,
            place,
            task_queue=task_queue_of_host(host),
            activity_id="check_services",
            start_to_close_timeout=CHECK_SERVICES.attempt,
            schedule_to_close_timeout=CHECK_SERVICES.total,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=CHECK_SERVICES.retry,
        )
