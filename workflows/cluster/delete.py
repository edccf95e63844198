"""DeleteCluster: nothing is left, and that is looked at rather than believed."""

from temporalio import workflow

from activities.control_planes import ControlPlaneActivities
from activities.openbao import OpenBaoActivities
from activities.records import RecordActivities
from domain.operation import Step
from domain.owned_operation import ClusterOperation
from workflows.policies import HOST_CALL, SERVICE_CALL, UNTIL_UNWOUND
from workflows.saga import Saga


@workflow.defn
class DeleteCluster:
    """Remove one cluster for good; forward only once it has begun."""

    @workflow.run
    async def run(self, operation: ClusterOperation) -> None:
        """Wait for whoever held the lock before, then remove everything and look."""
        async with Saga(operation) as saga:
            await saga.forward_only()
            if operation.predecessor_operation_id is not None:
                await saga.step(
                    Step.AWAIT_PREDECESSOR,
                    RecordActivities.await_predecessor,
                    operation,
                    UNTIL_UNWOUND,
                )
            await remove_cluster(saga, operation)
            await saga.succeed(RecordActivities.record_deleted, operation)


async def remove_cluster(saga: Saga, operation: ClusterOperation) -> None:
    """Stop, remove, and look: processes, directory, ports, authorities and keys."""
    plane = operation.control_plane
    await saga.step(
        Step.STOP_COMPONENTS,
        ControlPlaneActivities.stop_components,
        plane,
        HOST_CALL,
        on_host=True,
    )
    await saga.step(
        Step.REMOVE_DIRECTORY,
        ControlPlaneActivities.remove_directory,
        plane,
        HOST_CALL,
        on_host=True,
    )
    await saga.step(
        Step.REMOVE_AUTHORITIES, OpenBaoActivities.remove_authorities, plane, SERVICE_CALL
    )
    await saga.step(
        Step.VERIFY_REMOVED,
        ControlPlaneActivities.verify_removed,
        plane,
        HOST_CALL,
        on_host=True,
    )
