"""SuspendCluster: the processes stop, the data stays."""

from temporalio import workflow

from activities.control_planes import ControlPlaneActivities
from activities.records import RecordActivities
from domain.operation import Step
from domain.owned_operation import ClusterOperation
from workflows.policies import HOST_CALL
from workflows.saga import Saga


@workflow.defn
class SuspendCluster:
    """Stop one control plane, or have it running again."""

    @workflow.run
    async def run(self, operation: ClusterOperation) -> None:
        """Stop the components; a failure or a cancel starts them again."""
        async with Saga(operation) as saga:
            await saga.step(
                Step.STOP_COMPONENTS,
                ControlPlaneActivities.stop_components,
                operation.control_plane,
                HOST_CALL,
                on_host=True,
                undo=ControlPlaneActivities.restart_components,
            )
            await saga.succeed(RecordActivities.record_suspended, operation)
