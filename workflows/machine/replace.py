"""ReplaceMachine: a new machine of the same shape first, then the old one goes."""

from temporalio import workflow

from activities.parts import PartActivities
from activities.records import RecordActivities
from domain.operation import Step
from domain.owned_operation import MachineOperation
from workflows.policies import UNTIL_UNWOUND
from workflows.saga import Saga


@workflow.defn
class ReplaceMachine:
    """Put a new machine in one machine's place, or leave that as it is."""

    @workflow.run
    async def run(self, operation: MachineOperation) -> None:
        """Have each part done by an operation of its own; there is no way back from the delete."""
        async with Saga(operation) as saga:
            await saga.step(
                Step.CREATE_REPLACEMENT,
                PartActivities.create_replacement,
                operation,
                UNTIL_UNWOUND,
                undo=PartActivities.remove_replacement,
            )
            await saga.forward_only()
            await remove_replaced(saga, operation)


async def remove_replaced(saga: Saga, operation: MachineOperation) -> None:
    """Remove the old machine, and end the operation."""
    await saga.step(Step.DELETE_REPLACED, PartActivities.delete_replaced, operation, UNTIL_UNWOUND)
    await saga.succeed(PartActivities.record_machine_replaced, operation)


async def abandon_replacement(saga: Saga, operation: MachineOperation) -> bool:
    """Finish a replacement whose workflow was lost, or take it back.

    Returns:
        True when it was finished, and has ended.
    """
    if await saga.record("is_past_return", RecordActivities.record_is_past_return, operation):
        await remove_replaced(saga, operation)
        return True
    await saga.undo(
        Step.CREATE_REPLACEMENT, PartActivities.remove_replacement, operation, UNTIL_UNWOUND
    )
    return False
