"""What creating, resuming and renewing have in common: a control plane that answers."""

from activities.control_planes import ControlPlaneActivities
from activities.records import ReachedActive, RecordActivities
from domain.cluster import Validity
from domain.operation import Step
from domain.owned_operation import ClusterOperation
from workflows.policies import HOST_CALL, UNTIL_READY
from workflows.saga import Saga


async def start_and_wait(saga: Saga, operation: ClusterOperation) -> None:
    """Start the components and wait until a client can use them; taken back by a stop."""
    await saga.step(
        Step.START_COMPONENTS,
        ControlPlaneActivities.start_components,
        operation.control_plane,
        HOST_CALL,
        on_host=True,
        undo=ControlPlaneActivities.stop_components,
    )
    await wait_until_ready(saga, operation)


async def wait_until_ready(saga: Saga, operation: ClusterOperation) -> None:
    """Wait until a client can use the control plane."""
    await saga.step(
        Step.WAIT_UNTIL_READY,
        ControlPlaneActivities.wait_until_ready,
        operation.control_plane,
        UNTIL_READY,
        on_host=True,
    )


async def reach_active(saga: Saga, operation: ClusterOperation, credentials: Validity) -> None:
    """Record the cluster as active, with how long its certificates last."""
    await saga.succeed(RecordActivities.record_active, reached(operation, credentials))


def reached(operation: ClusterOperation, credentials: Validity) -> ReachedActive:
    """Return what is recorded of a cluster whose control plane answers."""
    return ReachedActive(
        operation=operation,
        renew_after=credentials.renew_after,
        expire_at=credentials.expire_at,
    )
