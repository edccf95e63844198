"""SuspendMachine: the server goes, its disk stays, and so does the node's place in the cluster."""

from temporalio import workflow

from activities.clouds import CloudActivities
from activities.nodes import NodeActivities
from activities.records import RecordActivities
from activities.suspensions import SuspensionActivities
from domain.operation import CREDENTIAL_CHANGED, Step
from domain.owned_operation import MachineOperation
from workflows.machine.bootstrap import within
from workflows.machine.cloud import check_credential, remove_server, take_inventory
from workflows.parking import Parking
from workflows.policies import CLOUD_CALL, DETACHED_WITHIN, DRAINED_WITHIN, HOST_CALL, until
from workflows.saga import Saga

# Suspensions of before stopped a server whatever was attached to it.
_DETACHES = "volumes-of-a-suspended-machine"


@workflow.defn
class SuspendMachine:
    """Keep one machine as a snapshot, or have it work on as before."""

    def __init__(self) -> None:
        self._parking = Parking()

    @workflow.signal(name=CREDENTIAL_CHANGED)
    def credential_changed(self) -> None:
        """The secret of the machine's account has another version."""
        self._parking.credential_changed()

    @workflow.run
    async def run(self, operation: MachineOperation) -> None:
        """Empty the node and keep its disk; once the server may be gone there is only forward."""
        async with Saga(operation, parking=self._parking) as saga:
            await check_credential(saga, operation)
            await saga.step(
                Step.CORDON_NODE,
                NodeActivities.cordon_leaving_node,
                operation,
                HOST_CALL,
                on_host=True,
                undo=NodeActivities.restore_schedulability,
            )
            await saga.step(
                Step.DRAIN_NODE,
                NodeActivities.drain_node,
                within(operation, DRAINED_WITHIN),
                until(DRAINED_WITHIN),
                on_host=True,
            )
            if workflow.patched(_DETACHES):
                # A driver's volumes are no part of what is kept, and leave the server before it.
                await saga.step(
                    Step.DETACH_VOLUMES,
                    NodeActivities.detach_volumes,
                    within(operation, DETACHED_WITHIN),
                    until(DETACHED_WITHIN),
                    on_host=True,
                )
            saga.undo_later(
                Step.TAKE_INVENTORY, CloudActivities.take_inventory, operation, CLOUD_CALL
            )
            await saga.step(
                Step.STOP_SERVER,
                SuspensionActivities.stop_server,
                operation,
                CLOUD_CALL,
                undo=SuspensionActivities.start_server,
            )
            await saga.step(
                Step.TAKE_SNAPSHOT,
                SuspensionActivities.take_snapshot,
                operation,
                CLOUD_CALL,
                undo=CloudActivities.remove_snapshot,
            )
            await saga.forward_only()
            await complete_suspension(saga, operation)


async def complete_suspension(saga: Saga, operation: MachineOperation) -> None:
    """Remove the server, of which the snapshot is there, and end the operation."""
    await remove_server(saga, operation)
    await take_inventory(saga, operation)
    await saga.succeed(SuspensionActivities.record_machine_suspended, operation)


async def abandon_suspension(saga: Saga, operation: MachineOperation) -> bool:
    """Finish a suspension whose workflow was lost, or take it back.

    Returns:
        True when it was finished, and has ended.
    """
    if await saga.record("is_past_return", RecordActivities.record_is_past_return, operation):
        await complete_suspension(saga, operation)
        return True
    await saga.undo(Step.TAKE_SNAPSHOT, CloudActivities.remove_snapshot, operation, CLOUD_CALL)
    await saga.undo(Step.STOP_SERVER, SuspensionActivities.start_server, operation, CLOUD_CALL)
    await saga.undo(Step.TAKE_INVENTORY, CloudActivities.take_inventory, operation, CLOUD_CALL)
    await saga.undo(
        Step.CORDON_NODE,
        NodeActivities.restore_schedulability,
        operation,
        HOST_CALL,
        on_host=True,
    )
    return False
