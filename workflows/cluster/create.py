"""CreateCluster: from a row that says what is wanted to a Kubernetes API that answers."""

from temporalio import workflow

from activities.control_planes import ControlPlaneActivities
from activities.openbao import OpenBaoActivities
from activities.records import RecordActivities
from domain.operation import Step
from domain.owned_operation import ClusterOperation
from workflows.cluster.bring_up import reach_active, reached, start_and_wait
from workflows.machine_pool.create import create_machines
from workflows.policies import HOST_CALL, SERVICE_CALL
from workflows.saga import Saga


@workflow.defn
class CreateCluster:
    """Bring one cluster from pending to active, or leave nothing behind."""

    @workflow.run
    async def run(self, operation: ClusterOperation) -> None:
        """Make authorities, credentials, processes and first machines, or take all of them back."""
        plane = operation.control_plane
        async with Saga(operation) as saga:
            # The workspace's space stays: it belongs to the workspace, not to this cluster.
            await saga.step(
                Step.ENSURE_SECRET_SPACE,
                OpenBaoActivities.ensure_secret_space,
                plane,
                SERVICE_CALL,
            )
            await saga.step(
                Step.ENSURE_AUTHORITIES,
                OpenBaoActivities.ensure_authorities,
                plane,
                SERVICE_CALL,
                undo=OpenBaoActivities.remove_authorities,
            )
            credentials = await saga.step(
                Step.ENSURE_CREDENTIALS,
                ControlPlaneActivities.ensure_credentials,
                plane,
                HOST_CALL,
                on_host=True,
                undo=ControlPlaneActivities.remove_directory,
            )
            await start_and_wait(saga, operation)
            if operation.pool_ids:
                await saga.record(
                    "serving", RecordActivities.record_serving, reached(operation, credentials)
                )
                await create_machines(saga, operation, operation.pool_ids)
            await reach_active(saga, operation, credentials)
