"""DeleteMachine: pods and volumes move first, then nothing that the server has counts any more."""

from temporalio import workflow

from activities.control_planes import RemovalEvidence
from activities.machines import MachineActivities, MachineRemoved
from activities.nodes import NodeActivities
from activities.records import RecordActivities
from domain.operation import Step
from domain.owned_operation import MachineOperation
from workflows.machine.bootstrap import within
from workflows.policies import (
    DETACHED_WITHIN,
    DRAINED_WITHIN,
    HOST_CALL,
    UNINSTALLED_WITHIN,
    UNTIL_UNWOUND,
    until,
)
from workflows.saga import Saga


@workflow.defn
class DeleteMachine:
    """Take one machine out of its cluster for good; forward only once it has begun."""

    @workflow.run
    async def run(self, operation: MachineOperation) -> None:
        """Wait for whoever held the lock before, then drain, remove everything and look."""
        async with Saga(operation) as saga:
            await saga.forward_only()
            if operation.predecessor_operation_id is not None:
                await saga.step(
                    Step.AWAIT_PREDECESSOR,
                    RecordActivities.await_predecessor,
                    operation,
                    UNTIL_UNWOUND,
                )
            await remove_machine(saga, operation)


async def remove_machine(saga: Saga, operation: MachineOperation) -> None:
    """Empty the node, remove it, have no credential of it count, and look; end the operation."""
    await empty_node(saga, operation)
    await saga.step(
        Step.UNINSTALL_SERVER,
        MachineActivities.uninstall_server,
        within(operation, UNINSTALLED_WITHIN),
        until(UNINSTALLED_WITHIN),
    )
    found = await remove_from_cluster(saga, operation)
    await saga.succeed(
        MachineActivities.record_machine_deleted,
        MachineRemoved(operation=operation, evidence=found.facts),
    )


async def empty_node(saga: Saga, operation: MachineOperation) -> None:
    """Have no pods and no volumes on the machine's node, if it has one."""
    await saga.step(
        Step.CORDON_NODE,
        NodeActivities.cordon_leaving_node,
        operation,
        HOST_CALL,
        on_host=True,
    )
    await saga.step(
        Step.DRAIN_NODE,
        NodeActivities.drain_node,
        within(operation, DRAINED_WITHIN),
        until(DRAINED_WITHIN),
        on_host=True,
    )
    await saga.step(
        Step.DETACH_VOLUMES,
        NodeActivities.detach_volumes,
        within(operation, DETACHED_WITHIN),
        until(DETACHED_WITHIN),
        on_host=True,
    )


async def remove_from_cluster(saga: Saga, operation: MachineOperation) -> RemovalEvidence:
    """Remove the node, have no credential of the machine count, and look what is left."""
    await saga.step(
        Step.REMOVE_NODE, NodeActivities.remove_node, operation, HOST_CALL, on_host=True
    )
    await saga.step(
        Step.REVOKE_CREDENTIALS,
        NodeActivities.revoke_credentials,
        operation,
        HOST_CALL,
        on_host=True,
    )
    found: RemovalEvidence = await saga.step(
        Step.VERIFY_REMOVED,
        NodeActivities.verify_machine_removed,
        operation,
        HOST_CALL,
        on_host=True,
    )
    return found
