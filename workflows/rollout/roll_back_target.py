"""RollBackTarget: one install of a rollout returns to the render that it had."""

from temporalio import workflow

from activities.rollouts import RolloutActivities
from domain.names import ROLLOUTS_TASK_QUEUE
from domain.rollout_work import TargetPlace
from workflows.rollout.policies import AWAIT, AWAIT_HEARTBEAT, DECIDE


@workflow.defn
class RollBackTarget:
    """Begin in one decision, and wait for the end, as `MoveTarget` does."""

    @workflow.run
    async def run(self, place: TargetPlace, host: str) -> bool:
        """Return whether an operation was begun."""
        del host
        # Local: milliseconds, twice the targets a second, and a repeat finds what was begun.
        begun = await workflow.execute_local_activity_method(
            RolloutActivities.begin_target_rollback,
            place,
            activity_id="begin",
            start_to_close_timeout=DECIDE.attempt,
            retry_policy=DECIDE.retry,
        )
        if begun is None:
            return False
        await workflow.execute_activity_method(
            RolloutActivities.await_target_rollback,
            begun,
            task_queue=ROLLOUTS_TASK_QUEUE,
            activity_id="await_end",
            start_to_close_timeout=AWAIT.attempt,
            heartbeat_timeout=AWAIT_HEARTBEAT,
            retry_policy=AWAIT.retry,
        )
        return True
