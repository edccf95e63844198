"""DeleteInstall: the release, its objects, its namespace and its keys go."""

from temporalio import workflow

from activities.install_records import InstallRecordActivities
from activities.install_removal import InstallRemovalActivities
from activities.records import RecordActivities
from domain.operation import Step
from domain.owned_operation import InstallOperation
from workflows.policies import CLUSTER_CALL, HELM_CALL, SERVICE_CALL, UNTIL_UNWOUND
from workflows.saga import Saga


@workflow.defn
class DeleteInstall:
    """Remove one install; after the point of no return there is only forward."""

    @workflow.run
    async def run(self, operation: InstallOperation) -> None:
        """Wait for the operation whose lock was taken over, then remove everything."""
        async with Saga(operation) as saga:
            await saga.forward_only()
            if operation.predecessor_operation_id is not None:
                await saga.step(
                    Step.AWAIT_PREDECESSOR,
                    RecordActivities.await_predecessor,
                    operation,
                    UNTIL_UNWOUND,
                )
            await remove_install(saga, operation)


async def remove_install(saga: Saga, operation: InstallOperation) -> None:
    """Remove everything of an install, prove it, and end the operation."""
    await saga.step(
        Step.UNINSTALL_RELEASE,
        InstallRemovalActivities.uninstall_release,
        operation,
        HELM_CALL,
        on_host=True,
    )
    await saga.step(
        Step.REMOVE_CLUSTER_OBJECTS,
        InstallRemovalActivities.remove_cluster_objects,
        operation,
        CLUSTER_CALL,
        on_host=True,
    )
    await saga.step(
        Step.REMOVE_NAMESPACE,
        InstallRemovalActivities.remove_namespace,
        operation,
        CLUSTER_CALL,
        on_host=True,
    )
    await saga.step(
        Step.REVOKE_CREDENTIALS,
        InstallRemovalActivities.revoke_install_credentials,
        operation,
        SERVICE_CALL,
        on_host=True,
    )
    await saga.step(
        Step.VERIFY_REMOVED,
        InstallRemovalActivities.verify_install_removed,
        operation,
        CLUSTER_CALL,
        on_host=True,
    )
    await saga.succeed(InstallRecordActivities.record_install_deleted, operation)
