"""CreateInstall: a namespace of its own and the first deployment; a failure leaves nothing."""

from temporalio import workflow

from activities.install_removal import InstallRemovalActivities
from activities.installs import InstallActivities
from domain.operation import APPROVAL_GIVEN, Step
from domain.owned_operation import InstallOperation
from workflows.install.approval import Approval
from workflows.install.deploy import ENDS_HERE, abandon_deployment, deploy
from workflows.policies import CLUSTER_CALL
from workflows.saga import Saga


@workflow.defn
class CreateInstall:
    """Bring a package to a cluster on which the install was not before."""

    def __init__(self) -> None:
        self._approval = Approval()

    @workflow.signal(name=APPROVAL_GIVEN)
    def approval_given(self) -> None:
        """Somebody approved the plan."""
        self._approval.given()

    @workflow.run
    async def run(self, operation: InstallOperation) -> None:
        """Prepare the namespace, then deploy."""
        async with Saga(operation, ends_here=workflow.patched(ENDS_HERE)) as saga:
            await saga.step(
                Step.PREPARE_NAMESPACE,
                InstallActivities.prepare_namespace,
                operation,
                CLUSTER_CALL,
                on_host=True,
                undo=InstallRemovalActivities.remove_new_install,
            )
            await deploy(saga, operation, self._approval)


async def abandon_creation(saga: Saga, operation: InstallOperation) -> bool:
    """Take back a creation whose workflow was lost, or finish it; True: it has ended."""
    if await abandon_deployment(saga, operation):
        return True
    await saga.undo(
        Step.PREPARE_NAMESPACE,
        InstallRemovalActivities.remove_new_install,
        operation,
        CLUSTER_CALL,
        on_host=True,
    )
    return False
