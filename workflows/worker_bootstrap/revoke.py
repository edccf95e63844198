"""RevokeWorkerBootstrap: the token joins no server any more."""

from temporalio import workflow

from activities.machines import MachineActivities
from domain.operation import Step
from domain.owned_operation import WorkerBootstrapOperation
from workflows.policies import SERVICE_CALL
from workflows.saga import Saga


@workflow.defn
class RevokeWorkerBootstrap:
    """Revoke one worker bootstrap; forward only once it has begun."""

    @workflow.run
    async def run(self, operation: WorkerBootstrapOperation) -> None:
        """Revoke it; whoever joined with it before stays."""
        async with Saga(operation) as saga:
            await saga.forward_only()
            await revoke_bootstrap(saga, operation)


async def revoke_bootstrap(saga: Saga, operation: WorkerBootstrapOperation) -> None:
    """Revoke, and end the operation."""
    await saga.step(
        Step.REVOKE_BOOTSTRAP, MachineActivities.revoke_bootstrap, operation, SERVICE_CALL
    )
    await saga.succeed(MachineActivities.record_bootstrap_revoked, operation)
