"""CreateCluster: from a row that says what is wanted to a Kubernetes API that answers."""

from temporalio import workflow

from activities.control_planes import ControlPlaneActivities
from activities.openbao import OpenBaoActivities
from domain.operation import ClusterOperation, Step
from workflows.cluster.bring_up import reach_active, start_and_wait
from workflows.policies import HOST_CALL, SERVICE_CALL
from workflows.saga import Saga


@workflow.defn
class CreateCluster:
    """Bring one cluster from pending to active, or leave nothing behind."""

    @workflow.run
    async def run(self, operation: ClusterOperation) -> None:
        """Make authorities, credentials and processes; each is taken back on failure or cancel."""
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
            await reach_active(saga, operation, credentials)
