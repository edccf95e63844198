"""BootstrapMachine: from a server that exchanged its token to a node that takes pods."""

from datetime import timedelta

from temporalio import workflow

from activities.machines import MachineActivities, WithinSeconds
from activities.nodes import NodeActivities
from domain.operation import Step
from domain.owned_operation import MachineOperation
from workflows.policies import (
    BOOTSTRAPPED_WITHIN,
    HOST_CALL,
    JOINED_WITHIN,
    READY_WITHIN,
    until,
)
from workflows.saga import Saga


@workflow.defn
class BootstrapMachine:
    """Follow one server until it is ready, or have nothing of it in the cluster."""

    @workflow.run
    async def run(self, operation: MachineOperation) -> None:
        """Wait for each stage; a failure or a cancel shuts the server out of the cluster."""
        async with Saga(operation) as saga:
            await saga.step(
                Step.PROVISIONED,
                MachineActivities.await_provisioned,
                operation,
                HOST_CALL,
                # Its undo asks the cluster, which only its host does.
                on_host=True,
                undo=NodeActivities.expel_machine,
            )
            await until_ready(saga, operation)
            await saga.succeed(MachineActivities.record_machine_ready, operation)


async def until_ready(saga: Saga, operation: MachineOperation) -> None:
    """Wait for each stage of a server that has exchanged its token."""
    await saga.step(
        Step.BOOTSTRAPPED,
        MachineActivities.await_bootstrapped,
        within(operation, BOOTSTRAPPED_WITHIN),
        until(BOOTSTRAPPED_WITHIN),
    )
    await saga.step(
        Step.JOINED,
        MachineActivities.await_joined,
        within(operation, JOINED_WITHIN),
        until(JOINED_WITHIN),
    )
    await saga.step(
        Step.READY,
        MachineActivities.await_ready,
        within(operation, READY_WITHIN),
        until(READY_WITHIN),
    )


def within(operation: MachineOperation, deadline: timedelta) -> WithinSeconds:
    """Return the input of a step that keeps its deadline itself."""
    return WithinSeconds(operation=operation, seconds=int(deadline.total_seconds()))
