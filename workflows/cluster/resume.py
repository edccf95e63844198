"""ResumeCluster: a suspended control plane answers again, with certificates that are valid."""

from temporalio import workflow

from activities.control_planes import ControlPlaneActivities
from activities.records import ReachedActive, RecordActivities
from domain.operation import ClusterOperation, Step
from workflows.policies import HOST_CALL, UNTIL_READY
from workflows.saga import Saga


@workflow.defn
class ResumeCluster:
    """Start one suspended control plane, or have it stopped as before."""

    @workflow.run
    async def run(self, operation: ClusterOperation) -> None:
        """Renew what ran out while it slept, start, and wait for its API."""
        plane = operation.control_plane
        async with Saga(operation) as saga:
            # Renewed certificates are no harm to a suspended cluster, so nothing is taken back.
            credentials = await saga.step(
                Step.ENSURE_CREDENTIALS,
                ControlPlaneActivities.ensure_credentials,
                plane,
                HOST_CALL,
                on_host=True,
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
