"""RestoreInstall: the objects of an earlier render, as they were, in place of what is deployed."""

from temporalio import workflow

from domain.operation import APPROVAL_GIVEN
from domain.owned_operation import InstallOperation
from workflows.install.approval import Approval
from workflows.install.deploy import ENDS_HERE, deploy
from workflows.saga import Saga


@workflow.defn
class RestoreInstall:
    """Bring an install back to an earlier render, or leave it as it was."""

    def __init__(self) -> None:
        self._approval = Approval()

    @workflow.signal(name=APPROVAL_GIVEN)
    def approval_given(self) -> None:
        """Somebody approved the plan."""
        self._approval.given()

    @workflow.run
    async def run(self, operation: InstallOperation) -> None:
        """Deploy; a failure brings the render back that was deployed."""
        async with Saga(operation, ends_here=workflow.patched(ENDS_HERE)) as saga:
            await deploy(saga, operation, self._approval)
