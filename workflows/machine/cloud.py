"""What the workflows of a machine in a cloud are made of: steps on a saga, with their undos.

The saga needs a `Parking`, since every one of them may find its credential refused.
"""

from temporalio.exceptions import ActivityError

from activities.clouds import CloudActivities, InventoryTaken
from activities.stacks import ServerWanted, StackActivities
from domain.compute import Choice
from domain.errors import Reason
from domain.names import STACKS_TASK_QUEUE
from domain.operation import Step
from domain.owned_operation import MachineOperation
from workflows.failures import reason_of
from workflows.policies import CLOUD_CALL, STACK_RUN
from workflows.saga import Saga


async def check_credential(saga: Saga, operation: MachineOperation) -> None:
    """Prove the credential before anything is made with it."""
    await saga.step(Step.CHECK_CREDENTIAL, CloudActivities.check_credential, operation, CLOUD_CALL)


def inventory_later(saga: Saga, operation: MachineOperation) -> None:
    """Have the saga look at the account after everything that it takes back."""
    saga.undo_later(Step.TAKE_INVENTORY, CloudActivities.take_inventory, operation, CLOUD_CALL)


async def make_server(
    saga: Saga, operation: MachineOperation, *, from_snapshot: bool = False
) -> None:
    """Have a server, choice after choice where a provider has no capacity.

    Everything that was made is taken back when the saga unwinds; `inventory_later`, which is called
    before, has the account looked at afterwards.

    Raises:
        ActivityError: CAPACITY_UNAVAILABLE when no choice is left.
    """
    choices = await saga.record("choices", CloudActivities.record_choices, operation)
    # In the reverse of the order in which they are needed.
    saga.undo_later(
        Step.ENSURE_NETWORK,
        StackActivities.release_networks,
        operation,
        STACK_RUN,
        queue=STACKS_TASK_QUEUE,
    )
    saga.undo_later(
        Step.CREATE_SERVER,
        StackActivities.remove_server,
        operation,
        STACK_RUN,
        queue=STACKS_TASK_QUEUE,
    )
    for choice in choices[:-1]:
        try:
            await _make_server(saga, operation, choice, from_snapshot=from_snapshot)
        except ActivityError as error:
            if reason_of(error) is not Reason.CAPACITY_UNAVAILABLE:
                raise
        else:
            break
        await undo_server(saga, operation)
    else:
        await _make_server(saga, operation, choices[-1], from_snapshot=from_snapshot)


async def _make_server(
    saga: Saga, operation: MachineOperation, choice: Choice, *, from_snapshot: bool
) -> None:
    wanted = ServerWanted(operation=operation, choice=choice, from_snapshot=from_snapshot)
    await saga.step(
        Step.ENSURE_NETWORK,
        StackActivities.ensure_network,
        wanted,
        STACK_RUN,
        queue=STACKS_TASK_QUEUE,
    )
    await saga.step(
        Step.CREATE_SERVER,
        StackActivities.create_server,
        wanted,
        STACK_RUN,
        queue=STACKS_TASK_QUEUE,
    )


async def undo_server(saga: Saga, operation: MachineOperation) -> None:
    """Take a half-made server back, and its network where nobody else wants that."""
    await saga.undo(
        Step.CREATE_SERVER,
        StackActivities.remove_server,
        operation,
        STACK_RUN,
        queue=STACKS_TASK_QUEUE,
    )
    await saga.undo(
        Step.ENSURE_NETWORK,
        StackActivities.release_networks,
        operation,
        STACK_RUN,
        queue=STACKS_TASK_QUEUE,
    )


async def remove_server(saga: Saga, operation: MachineOperation) -> None:
    """Remove the machine's server."""
    await saga.step(
        Step.REMOVE_SERVER,
        StackActivities.remove_server,
        operation,
        STACK_RUN,
        queue=STACKS_TASK_QUEUE,
    )


async def remove_snapshot(saga: Saga, operation: MachineOperation) -> None:
    """Remove what the machine's suspensions kept."""
    await saga.step(Step.REMOVE_SNAPSHOT, CloudActivities.remove_snapshot, operation, CLOUD_CALL)


async def release_networks(saga: Saga, operation: MachineOperation) -> None:
    """Remove the cluster's networks that no machine wants any more."""
    await saga.step(
        Step.RELEASE_NETWORK,
        StackActivities.release_networks,
        operation,
        STACK_RUN,
        queue=STACKS_TASK_QUEUE,
    )


async def take_inventory(saga: Saga, operation: MachineOperation) -> InventoryTaken:
    """Look at what the account has of the machine, and remove what nobody wants."""
    taken: InventoryTaken = await saga.step(
        Step.TAKE_INVENTORY, CloudActivities.take_inventory, operation, CLOUD_CALL
    )
    return taken
