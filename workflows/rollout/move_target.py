"""MoveTarget: one install of a rollout gets the version, by an operation of its own."""

from temporalio import workflow

from activities.rollout_hosts import RolloutHostActivities
from activities.rollouts import RolloutActivities
from domain.names import ROLLOUTS_TASK_QUEUE, task_queue_of_host
from domain.rollout_work import TargetPlace
from workflows.policies import HEARTBEAT_TIMEOUT
from workflows.rollout.policies import AWAIT, AWAIT_HEARTBEAT, CHECK_IN_CLUSTER, DECIDE


@workflow.defn
class MoveTarget:
    """Begin in one decision, and wait for the end; where something is in the way, nothing begins.

    It takes nothing back: the operation undoes what it did when it fails, and a version that is
    not wanted any more is taken back with its wave.
    """

    @workflow.run
    async def run(self, place: TargetPlace, host: str) -> bool:
        """Return whether an operation was begun.

        Args:
            place: the target.
            host: where its control plane was when its turn came.
        """
        del host
        # Local: milliseconds, twice the targets a second, and a repeat finds what was begun.
        begun = await workflow.execute_local_activity_method(
            RolloutActivities.begin_target,
            place,
            activity_id="begin",
            start_to_close_timeout=DECIDE.attempt,
            retry_policy=DECIDE.retry,
        )
        if begun is None:
            return False
        unchecked = await workflow.execute_activity_method(
            RolloutActivities.await_target,
            begun,
            task_queue=ROLLOUTS_TASK_QUEUE,
            activity_id="await_end",
            start_to_close_timeout=AWAIT.attempt,
            heartbeat_timeout=AWAIT_HEARTBEAT,
            retry_policy=AWAIT.retry,
        )
        if unchecked:
            await workflow.execute_activity_method(
                RolloutHostActivities.check_in_cluster,
                begun,
                task_queue=task_queue_of_host(begun.host),
                activity_id="check_in_cluster",
                start_to_close_timeout=CHECK_IN_CLUSTER.attempt,
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                retry_policy=CHECK_IN_CLUSTER.retry,
            )
        return True
