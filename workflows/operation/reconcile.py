"""ReconcileOperations: the other half of the outbox, on a schedule."""

from temporalio import workflow
from temporalio.common import Priority, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.workflow import ParentClosePolicy

from activities.sweeps import SweepActivities
from domain.names import abandon_workflow_id_of
from workflows.operation.abandon import AbandonOperation
from workflows.policies import HEARTBEAT_TIMEOUT, SERVICE_CALL


@workflow.defn
class ReconcileOperations:
    """Start what was never started, abandon what Temporal lost, and forget what is old."""

    @workflow.run
    async def run(self) -> int:
        """Return how many operations were found lost."""
        lost = await workflow.execute_activity_method(
            SweepActivities.deliver_operations,
            activity_id="deliver_operations",
            start_to_close_timeout=SERVICE_CALL.attempt,
            schedule_to_close_timeout=SERVICE_CALL.total,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=SERVICE_CALL.retry,
        )
        for typed in lost:
            owner_id, operation_id = typed.operation.owner_id, typed.operation.operation_id
            try:
                await workflow.start_child_workflow(
                    AbandonOperation.run,
                    typed,
                    id=abandon_workflow_id_of(typed.type, owner_id, operation_id),
                    id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                    parent_close_policy=ParentClosePolicy.ABANDON,
                    priority=Priority(fairness_key=typed.operation.workspace_id),
                    static_summary=f"abandon {typed.operation.operation_id}",
                )
            except WorkflowAlreadyStartedError:
                continue
        for forget, name in (
            (SweepActivities.forget_idempotency_keys, "forget_idempotency_keys"),
            (SweepActivities.forget_worker_bootstraps, "forget_worker_bootstraps"),
        ):
            await workflow.execute_activity_method(
                forget,
                activity_id=name,
                start_to_close_timeout=SERVICE_CALL.attempt,
                schedule_to_close_timeout=SERVICE_CALL.total,
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                retry_policy=SERVICE_CALL.retry,
            )
        return len(lost)
