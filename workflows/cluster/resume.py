"""ResumeCluster: a suspended control plane answers again, with certificates that are valid."""

from temporalio import workflow

from activities.control_planes import ControlPlaneActivities
from domain.operation import Step
from domain.owned_operation import ClusterOperation
from workflows.cluster.bring_up import reach_active, start_and_wait
from workflows.policies import HOST_CALL
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
            await start_and_wait(saga, operation)
            await reach_active(saga, operation, credentials)
