"""PlanTarget: what a version would do to one install, before anybody approves it."""

from temporalio import workflow

from activities.rollout_hosts import RolloutHostActivities
from domain.names import task_queue_of_host
from domain.rollout_work import TargetPlace
from workflows.policies import HEARTBEAT_TIMEOUT
from workflows.rollout.policies import PLAN


@workflow.defn
class PlanTarget:
    """Render and plan on the host of the install's control plane; nothing is applied."""

    @workflow.run
    async def run(self, place: TargetPlace, host: str) -> None:
        """Have the digest of the plan in the target's row."""
        await workflow.execute_activity_method(
            RolloutHostActivities.plan_target,
            place,
            task_queue=task_queue_of_host(host),
            activity_id="plan",
            start_to_close_timeout=PLAN.attempt,
            schedule_to_close_timeout=PLAN.total,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=PLAN.retry,
        )
