"""DeleteCloudMachine: pods move first, then the server goes, and the account is looked at."""

from temporalio import workflow

from activities.clouds import CloudActivities
from activities.machines import MachineActivities, MachineRemoved
from activities.records import RecordActivities
from domain.operation import CREDENTIAL_CHANGED, Step
from domain.owned_operation import MachineOperation
from workflows.machine.cloud import (
    release_networks,
    remove_server,
    remove_snapshot,
    take_inventory,
)
from workflows.machine.delete import empty_node, remove_from_cluster
from workflows.parking import Parking
from workflows.policies import UNTIL_UNWOUND
from workflows.saga import Saga


@workflow.defn
class DeleteCloudMachine:
    """Take one machine out of its cluster and its account for good; forward only once begun."""

    def __init__(self) -> None:
        self._parking = Parking()

    @workflow.signal(name=CREDENTIAL_CHANGED)
    def credential_changed(self) -> None:
        """The secret of the machine's account has another version."""
        self._parking.credential_changed()

    @workflow.run
    async def run(self, operation: MachineOperation) -> None:
        """Wait for whoever held the lock before, then remove everything and look."""
        async with Saga(operation, parking=self._parking, repeats=operation) as saga:
            await saga.forward_only()
            if operation.predecessor_operation_id is not None:
                await saga.step(
                    Step.AWAIT_PREDECESSOR,
                    RecordActivities.await_predecessor,
                    operation,
                    UNTIL_UNWOUND,
                )
            await remove_cloud_machine(saga, operation)


async def remove_cloud_machine(saga: Saga, operation: MachineOperation) -> None:
    """Empty the node, remove server, network and node, and look everywhere; end the operation."""
    # The pods of a server that somebody removed by hand end nowhere, and are not waited for.
    await saga.record("missing_server", CloudActivities.record_missing_server, operation)
    await empty_node(saga, operation)
    await remove_server(saga, operation)
    await remove_snapshot(saga, operation)
    await release_networks(saga, operation)
    taken = await take_inventory(saga, operation)
    evidence = await remove_from_cluster(saga, operation)
    await saga.succeed(
        MachineActivities.record_machine_deleted,
        MachineRemoved(
            operation=operation,
            evidence=evidence.facts,
            left=taken.left,
            left_resources=taken.resources,
        ),
    )
