"""AbandonOperation: closes what Temporal lost, and leaves no half-made thing behind."""

from temporalio import workflow

from activities.control_planes import ControlPlaneActivities
from activities.machines import MachineActivities
from activities.nodes import NodeActivities
from activities.records import EndOperation, RecordActivities
from domain.errors import Reason
from domain.machine import MachineKind
from domain.names import ABANDON_WORKFLOW
from domain.operation import CREDENTIAL_CHANGED, OperationState, OperationType, Step
from domain.owned_operation import (
    ClusterOperation,
    InstallOperation,
    MachineOperation,
    MachinePoolOperation,
    PackageOperation,
    SecretOperation,
    TypedOperation,
    WorkerBootstrapOperation,
)
from workflows.cluster.delete import remove_cluster
from workflows.install.create import abandon_creation as abandon_install
from workflows.install.delete import remove_install
from workflows.install.deploy import abandon_deployment
from workflows.machine.bootstrap import within
from workflows.machine.create import abandon_creation
from workflows.machine.delete import remove_machine
from workflows.machine.delete_cloud import remove_cloud_machine
from workflows.machine.replace import abandon_replacement
from workflows.machine.resume import abandon_resumption
from workflows.machine.suspend import abandon_suspension
from workflows.machine_pool.create import remove_machines
from workflows.parking import Parking
from workflows.policies import HOST_CALL, RESTARTED_WITHIN, SERVICE_CALL
from workflows.saga import Saga
from workflows.secret.rotate import abandon_rotation
from workflows.worker_bootstrap.revoke import revoke_bootstrap

_LOST = (
    "The workflow of this operation was ended from outside before it was done. What it had made "
    "is taken back; ask for it again."
)


@workflow.defn(name=ABANDON_WORKFLOW)
class AbandonOperation:
    """Take a lost operation back, or finish it where there is only forward; then close it."""

    def __init__(self) -> None:
        self._parking = Parking()

    @workflow.signal(name=CREDENTIAL_CHANGED)
    def credential_changed(self) -> None:
        """The secret of the machine's account has another version."""
        self._parking.credential_changed()

    @workflow.run
    async def run(self, lost: TypedOperation) -> None:
        """Do for the operation's type what its own workflow would have done when it failed."""
        operation = lost.operation
        saga = Saga(operation, forward_only=True, parking=self._parking, repeats=lost)
        match operation:
            case SecretOperation():
                has_ended = await abandon_rotation(saga, operation)
            case MachineOperation():
                has_ended = await _abandon_on_machine(saga, lost.type, operation)
            case InstallOperation():
                has_ended = await _abandon_on_install(saga, lost.type, operation)
            case MachinePoolOperation():
                await remove_machines(saga, operation, (operation.pool_id,))
                has_ended = False
            case PackageOperation():
                # Its rows are all that there is, and go with its end.
                has_ended = False
            case WorkerBootstrapOperation():
                await revoke_bootstrap(saga, operation)
                has_ended = True
            case ClusterOperation():
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
            if operation.pool_ids:
                await remove_machines(saga, operation, operation.pool_ids)
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


async def _abandon_on_install(
    saga: Saga, operation_type: OperationType, operation: InstallOperation
) -> bool:
    """Return True when the operation was finished, and has ended."""
    match operation_type:
        case OperationType.INSTALL_CREATE:
            return await abandon_install(saga, operation)
        case OperationType.INSTALL_RENDER | OperationType.INSTALL_RESTORE:
            return await abandon_deployment(saga, operation)
        case OperationType.INSTALL_DELETE:
            await remove_install(saga, operation)
            return True
    return False


async def _abandon_on_machine(
    saga: Saga, operation_type: OperationType, operation: MachineOperation
) -> bool:
    """Return True when the operation was finished, and has ended."""
    match operation_type:
        case OperationType.MACHINE_CREATE if operation.machine.kind is MachineKind.CLOUD:
            await abandon_creation(saga, operation)
        case OperationType.MACHINE_DELETE if operation.machine.kind is MachineKind.CLOUD:
            await remove_cloud_machine(saga, operation)
            return True
        case OperationType.MACHINE_CREATE:
            await saga.step(
                Step.REVOKE_CREDENTIALS,
                NodeActivities.expel_machine,
                operation,
                HOST_CALL,
                on_host=True,
            )
        case OperationType.MACHINE_DELETE:
            await remove_machine(saga, operation)
            return True
        case OperationType.MACHINE_CORDON | OperationType.MACHINE_UNCORDON:
            await saga.step(
                Step.UNCORDON_NODE,
                NodeActivities.restore_schedulability,
                operation,
                HOST_CALL,
                on_host=True,
            )
        case OperationType.MACHINE_SUSPEND:
            return await abandon_suspension(saga, operation)
        case OperationType.MACHINE_RESUME:
            return await abandon_resumption(saga, operation)
        case OperationType.MACHINE_REPLACE:
            return await abandon_replacement(saga, operation)
        case OperationType.MACHINE_REPAIR:
            await saga.step(
                Step.RESTART_SERVER,
                MachineActivities.stop_restarting_server,
                within(operation, RESTARTED_WITHIN),
                SERVICE_CALL,
            )
    return False
