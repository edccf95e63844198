"""CreateMachine: a server in a customer's cloud, from nothing to a node that takes pods."""

from temporalio import workflow

from activities.clouds import CloudActivities
from activities.machines import MachineActivities
from activities.nodes import NodeActivities
from domain.operation import CREDENTIAL_CHANGED, Step
from domain.owned_operation import MachineOperation
from workflows.machine.bootstrap import until_ready, within
from workflows.machine.cloud import (
    check_credential,
    inventory_later,
    make_server,
    take_inventory,
    undo_server,
)
from workflows.parking import Parking
from workflows.policies import CLOUD_CALL, HOST_CALL, REGISTERED_WITHIN, until
from workflows.saga import Saga


@workflow.defn
class CreateMachine:
    """Make one machine, or leave the account and the cluster as they were."""

    def __init__(self) -> None:
        self._parking = Parking()

    @workflow.signal(name=CREDENTIAL_CHANGED)
    def credential_changed(self) -> None:
        """The secret of the machine's account has another version."""
        self._parking.credential_changed()

    @workflow.run
    async def run(self, operation: MachineOperation) -> None:
        """Make the server, look at the account, and wait for each stage of its node."""
        async with Saga(operation, parking=self._parking) as saga:
            # Its undo comes last: a kubelet that still runs would make its node again.
            saga.undo_later(
                Step.PROVISIONED, NodeActivities.expel_machine, operation, HOST_CALL, on_host=True
            )
            inventory_later(saga, operation)
            await check_credential(saga, operation)
            await make_server(saga, operation)
            await take_inventory(saga, operation)
            await saga.step(
                Step.PROVISIONED,
                MachineActivities.await_registered,
                within(operation, REGISTERED_WITHIN),
                until(REGISTERED_WITHIN),
            )
            await until_ready(saga, operation)
            await saga.succeed(MachineActivities.record_machine_ready, operation)


async def abandon_creation(saga: Saga, operation: MachineOperation) -> None:
    """Leave nothing of a machine whose workflow was lost."""
    await undo_server(saga, operation)
    await saga.undo(Step.TAKE_INVENTORY, CloudActivities.take_inventory, operation, CLOUD_CALL)
    await saga.undo(
        Step.PROVISIONED, NodeActivities.expel_machine, operation, HOST_CALL, on_host=True
    )
