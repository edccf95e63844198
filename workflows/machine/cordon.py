"""CordonMachine and UncordonMachine: whether new pods are placed on a machine."""

from temporalio import workflow

from activities.machines import MachineActivities
from activities.nodes import NodeActivities
from domain.operation import Step
from domain.owned_operation import MachineOperation
from workflows.policies import HOST_CALL
from workflows.saga import Saga


@workflow.defn
class CordonMachine:
    """Place no new pods on one machine; those that run there stay."""

    @workflow.run
    async def run(self, operation: MachineOperation) -> None:
        """Cordon the node; a failure or a cancel has it as it was."""
        async with Saga(operation) as saga:
            await saga.step(
                Step.CORDON_NODE,
                NodeActivities.cordon_node,
                operation,
                HOST_CALL,
                on_host=True,
                undo=NodeActivities.restore_schedulability,
            )
            await saga.succeed(MachineActivities.record_machine_cordoned, operation)


@workflow.defn
class UncordonMachine:
    """Place new pods on one machine again."""

    @workflow.run
    async def run(self, operation: MachineOperation) -> None:
        """Uncordon the node; a failure or a cancel has it as it was."""
        async with Saga(operation) as saga:
            await saga.step(
                Step.UNCORDON_NODE,
                NodeActivities.uncordon_node,
                operation,
                HOST_CALL,
                on_host=True,
                undo=NodeActivities.restore_schedulability,
            )
            await saga.succeed(MachineActivities.record_machine_uncordoned, operation)
