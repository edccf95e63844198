"""UpdateInstall: another version, or other values, in place of what is deployed."""

from temporalio import workflow

from domain.operation import APPROVAL_GIVEN
from domain.owned_operation import InstallOperation
from workflows.install.approval import Approval
from workflows.install.deploy import ENDS_HERE, deploy
from workflows.saga import Saga


@workflow.defn
class UpdateInstall:
    """Bring an install to another version or other values, or leave it as it was."""

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
