"""ResumeMachine: a new server with the kept disk comes back as the node that it was."""

from temporalio import workflow

from activities.clouds import CloudActivities
from activities.machines import MachineActivities
from activities.nodes import NodeActivities
from activities.records import RecordActivities
from activities.suspensions import SuspensionActivities
from domain.operation import CREDENTIAL_CHANGED, Step
from domain.owned_operation import MachineOperation
from workflows.machine.bootstrap import within
from workflows.machine.cloud import (
    check_credential,
    inventory_later,
    make_server,
    remove_snapshot,
    take_inventory,
    undo_server,
)
from workflows.parking import Parking
from workflows.policies import CLOUD_CALL, HOST_CALL, RETURNED_WITHIN, until
from workflows.saga import Saga

# AbandonOperation did not look at the account when it had taken a resumption back.
_LOOKS_AFTERWARDS = "inventory-of-an-abandoned-resumption"


@workflow.defn
class ResumeMachine:
    """Have one suspended machine work again, or keep it suspended."""

    def __init__(self) -> None:
        self._parking = Parking()

    @workflow.signal(name=CREDENTIAL_CHANGED)
    def credential_changed(self) -> None:
        """The secret of the machine's account has another version."""
        self._parking.credential_changed()

    @workflow.run
    async def run(self, operation: MachineOperation) -> None:
        """Make the server and wait for its node; the snapshot goes when it is needed no more."""
        async with Saga(operation, parking=self._parking) as saga:
            await check_credential(saga, operation)
            inventory_later(saga, operation)
            await make_server(saga, operation, from_snapshot=True)
            await saga.step(
                Step.READY,
                MachineActivities.await_returned,
                within(operation, RETURNED_WITHIN),
                until(RETURNED_WITHIN),
            )
            await saga.step(
                Step.UNCORDON_NODE,
                NodeActivities.restore_schedulability,
                operation,
                HOST_CALL,
                on_host=True,
                undo=NodeActivities.cordon_leaving_node,
            )
            await saga.forward_only()
            await complete_resumption(saga, operation)


async def complete_resumption(saga: Saga, operation: MachineOperation) -> None:
    """Remove the snapshot, whose server runs, and end the operation."""
    await remove_snapshot(saga, operation)
    await take_inventory(saga, operation)
    await saga.succeed(SuspensionActivities.record_machine_resumed, operation)


async def abandon_resumption(saga: Saga, operation: MachineOperation) -> bool:
    """Finish a resumption whose workflow was lost, or take it back.

    Returns:
        True when it was finished, and has ended.
    """
    if await saga.record("is_past_return", RecordActivities.record_is_past_return, operation):
        await complete_resumption(saga, operation)
        return True
    await saga.undo(
        Step.UNCORDON_NODE,
        NodeActivities.cordon_leaving_node,
        operation,
        HOST_CALL,
        on_host=True,
    )
    await undo_server(saga, operation)
    if workflow.patched(_LOOKS_AFTERWARDS):
        await saga.undo(Step.TAKE_INVENTORY, CloudActivities.take_inventory, operation, CLOUD_CALL)
    return False
