"""CreateMachinePool: several machines of one shape, all of them or none."""

from temporalio import workflow

from activities.parts import PartActivities, PoolsWanted
from domain.operation import Step
from domain.owned_operation import ClusterOperation, MachinePoolOperation
from workflows.policies import UNTIL_UNWOUND
from workflows.saga import Saga


@workflow.defn
class CreateMachinePool:
    """Make the machines of one pool, or leave none of them."""

    @workflow.run
    async def run(self, operation: MachinePoolOperation) -> None:
        """Have each made by an operation of its own; one that fails takes the others with it."""
        async with Saga(operation) as saga:
            await create_machines(saga, operation, (operation.pool_id,))
            await saga.succeed(PartActivities.record_pool_ready, operation)


async def create_machines(
    saga: Saga, operation: MachinePoolOperation | ClusterOperation, pool_ids: tuple[str, ...]
) -> None:
    """Have the machines of pools; taken back by deletes of all that there are."""
    await saga.step(
        Step.CREATE_MACHINES,
        PartActivities.create_machines,
        PoolsWanted(operation=operation, pool_ids=pool_ids),
        UNTIL_UNWOUND,
        undo=PartActivities.remove_machines,
    )


async def remove_machines(
    saga: Saga, operation: MachinePoolOperation | ClusterOperation, pool_ids: tuple[str, ...]
) -> None:
    """Have none of the machines of pools."""
    await saga.undo(
        Step.CREATE_MACHINES,
        PartActivities.remove_machines,
        PoolsWanted(operation=operation, pool_ids=pool_ids),
        UNTIL_UNWOUND,
    )
