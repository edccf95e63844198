"""AbandonOperation: closes what Temporal lost, and leaves no half-made thing behind."""

from temporalio import workflow

from activities.control_planes import ControlPlaneActivities
from activities.records import EndOperation, RecordActivities
from domain.errors import Reason
from domain.names import ABANDON_WORKFLOW
from domain.operation import (
    ClusterOperation,
    OperationState,
    OperationType,
    SecretOperation,
    Step,
    TypedOperation,
)
from workflows.cluster.delete import remove_cluster
from workflows.policies import HOST_CALL
from workflows.saga import Saga
from workflows.secret.rotate import abandon_rotation

_LOST = (
    "The workflow of this operation was ended from outside before it was done. What it had made "
    "is taken back; ask for it again."
)


@workflow.defn(name=ABANDON_WORKFLOW)
class AbandonOperation:
    """Take a lost operation back, or finish it where there is only forward; then close it."""

    @workflow.run
    async def run(self, lost: TypedOperation) -> None:
        """Do for the operation's type what its own workflow would have done when it failed."""
        operation = lost.operation
        saga = Saga(operation, forward_only=True)
        if isinstance(operation, SecretOperation):
            has_ended = await abandon_rotation(saga, operation)
        else:
            has_ended = await _abandon_on_cluster(saga, lost.type, operation)
        if not has_ended:
            await saga.succeed(
                RecordActivities.record_end,
                EndOperation(
                    operation=operation,
                    state=OperationState.FAILED,
                    reason=Reason.ABORTED,
                    message=_LOST,
                ),
            )


async def _abandon_on_cluster(
    saga: Saga, operation_type: OperationType, operation: ClusterOperation
) -> bool:
    """Return True when the operation was finished, and has ended."""
    match operation_type:
        case OperationType.CLUSTER_CREATE:
            await remove_cluster(saga, operation)
        case OperationType.CLUSTER_DELETE:
            await remove_cluster(saga, operation)
            await saga.succeed(RecordActivities.record_deleted, operation)
            return True
        case OperationType.CLUSTER_RESUME:
            await saga.step(
                Step.STOP_COMPONENTS,
                ControlPlaneActivities.stop_components,
                operation.control_plane,
                HOST_CALL,
                on_host=True,
            )
        case OperationType.CLUSTER_SUSPEND | OperationType.CLUSTER_RENEW_CERTIFICATES:
            await saga.step(
                Step.START_COMPONENTS,
                ControlPlaneActivities.restart_components,
                operation.control_plane,
                HOST_CALL,
                on_host=True,
            )
    return False
