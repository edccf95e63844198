"""CreateCluster: from a row that says what is wanted to a Kubernetes API that answers."""

from temporalio import workflow

from activities.control_planes import ControlPlaneActivities
from activities.openbao import OpenBaoActivities
from activities.records import ReachedActive, RecordActivities
from domain.operation import ClusterOperation, Step
from workflows.policies import HOST_CALL, SERVICE_CALL, UNTIL_READY
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
            await saga.step(
                Step.START_COMPONENTS,
                ControlPlaneActivities.start_components,
                plane,
                HOST_CALL,
                on_host=True,
                undo=ControlPlaneActivities.stop_components,
            )
            await saga.step(
                Step.WAIT_UNTIL_READY,
                ControlPlaneActivities.wait_until_ready,
                plane,
                UNTIL_READY,
                on_host=True,
            )
            await saga.succeed(
                RecordActivities.record_active,
                ReachedActive(
                    operation=operation,
                    renew_after=credentials.renew_after,
                    expire_at=credentials.expire_at,
                ),
            )
