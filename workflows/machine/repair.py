"""RepairMachine: the server restarts its services, and has to be ready afterwards."""

from temporalio import workflow

from activities.machines import MachineActivities
from domain.operation import Step
from domain.owned_operation import MachineOperation
from workflows.machine.bootstrap import within
from workflows.policies import REPAIRED_WITHIN, RESTARTED_WITHIN, until
from workflows.saga import Saga


@workflow.defn
class RepairMachine:
    """Restart what Bulkhead installed on one server; it fails where that does not help."""

    @workflow.run
    async def run(self, operation: MachineOperation) -> None:
        """Tell the server, then wait for its node; nothing is told any more after a failure."""
        async with Saga(operation) as saga:
            await saga.step(
                Step.RESTART_SERVER,
                MachineActivities.restart_server,
                within(operation, RESTARTED_WITHIN),
                until(RESTARTED_WITHIN),
                undo=MachineActivities.stop_restarting_server,
            )
            await saga.step(
                Step.READY,
                MachineActivities.await_repaired,
                within(operation, REPAIRED_WITHIN),
                until(REPAIRED_WITHIN),
            )
            await saga.succeed(MachineActivities.record_machine_repaired, operation)
