"""Leaf certificates, renewed long before they end, while the cluster's API keeps answering."""

from temporalio import workflow

from activities.control_planes import ControlPlaneActivities
from activities.sweeps import SweepActivities, Swept
from domain.operation import Step
from domain.owned_operation import ClusterOperation
from workflows.cluster.bring_up import reach_active, wait_until_ready
from workflows.policies import HEARTBEAT_TIMEOUT, HOST_CALL, SERVICE_CALL
from workflows.saga import Saga


@workflow.defn
class RenewCertificates:
    """Renew one cluster's leaves.

    There is nothing to undo: new leaves are as good as the old ones. A pass that fails or is
    cancelled leaves the cluster active, and the schedule's next one takes it up.
    """

    @workflow.run
    async def run(self, operation: ClusterOperation) -> None:
        """Write new leaves, then have each component use them, one at a time."""
        plane = operation.control_plane
        async with Saga(operation) as saga:
            credentials = await saga.step(
                Step.RENEW_LEAVES,
                ControlPlaneActivities.renew_leaves,
                plane,
                HOST_CALL,
                on_host=True,
            )
            await saga.step(
                Step.RELOAD_COMPONENTS,
                ControlPlaneActivities.reload_components,
                plane,
                HOST_CALL,
                on_host=True,
            )
            await wait_until_ready(saga, operation)
            await reach_active(saga, operation, credentials)


@workflow.defn
class RenewClusterCertificates:
    """On a schedule: start a renewal for each cluster whose certificates are due."""

    @workflow.run
    async def run(self) -> Swept:
        """Plan and start; each renewal is an operation of its own."""
        return await workflow.execute_activity_method(
            SweepActivities.start_due_renewals,
            activity_id="start_due_renewals",
            start_to_close_timeout=SERVICE_CALL.attempt,
            schedule_to_close_timeout=SERVICE_CALL.total,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=SERVICE_CALL.retry,
        )
