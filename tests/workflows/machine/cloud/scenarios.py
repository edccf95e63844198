"""How a machine in a cloud is asked for and given back, and what must be true afterwards."""

import asyncio
from collections.abc import Awaitable, Callable

from domain.cloud import SERVER
from domain.machine import MachineKind, MachineState
from domain.operation import OperationState, OperationType, Step
from domain.owned_operation import MachineOperation
from infra.database.tables import CloudIntentRow, MachineRow
from infra.temporal.start import start_operation
from tests.workflows.machine.cloud.customer import Customer
from tests.workflows.machine.scenarios import MachineScenario

# Runs of the engine are seconds of work for every processor that there is, and tests share them.
RUNS_WITHIN_SECONDS = 300.0


class CloudScenario(MachineScenario):
    """One machine at a time, in one customer's account."""

    def __init__(self, customer: Customer) -> None:
        super().__init__(customer.fleet)
        self.customer = customer
        self.workflow = self.facts.workflow_for(MachineKind.CLOUD)
        self.steps = [
            step
            for step in self.facts.steps_for(MachineKind.CLOUD)
            if step is not Step.AWAIT_PREDECESSOR
        ]

    async def make(self) -> MachineOperation:
        """Have a machine that is ready."""
        operation = await self.customer.plan()
        await self.start(OperationType.MACHINE_CREATE, operation)
        await self.succeed(operation)
        return operation

    async def succeed(self, operation: MachineOperation) -> None:
        state = await self.platform.end_of(operation, RUNS_WITHIN_SECONDS)
        ended = await self.platform.operation(operation)
        assert state is OperationState.SUCCEEDED, ended.error

    async def end_of(self, operation_id: str, within_seconds: float) -> OperationState:
        return await super().end_of(operation_id, max(within_seconds, RUNS_WITHIN_SECONDS))

    async def start(self, kind: OperationType, operation: MachineOperation) -> None:
        await start_operation(self.platform.client, kind, operation)

    async def begin(self) -> None:
        """Start the operation that was planned."""
        await self.start(self.operation_type, self.operation)

    async def row(self, operation: MachineOperation) -> MachineRow:
        row = await self.fleet.row(operation.owner_id)
        assert row is not None
        return row

    async def clean_up(self) -> None:
        """Give back what a scenario's end has left, as its customer would."""
        if self.requested is not None and await self.fleet.row(self.requested.owner_id):
            kind = OperationType.MACHINE_DELETE
            deletion = await self.fleet.request(kind, self.requested.owner_id)
            await self.start(kind, deletion)
            await self.succeed(deletion)
        await self.customer.verify_empty()
        await self.customer.rest()


class Creating(CloudScenario):
    """A machine that nobody has asked for before."""

    operation_type = OperationType.MACHINE_CREATE

    async def prepare(self) -> MachineOperation:
        return await self.customer.plan()

    async def verify_done(self) -> None:
        await self.verify_row(MachineState.ACTIVE)
        row = await self.row(self.operation)
        there = await self.customer.has()
        (server,) = [thing for thing in there if thing.resource == SERVER]
        assert row.provider_id == f"compute://{self.customer.provider}/{server.id}"
        assert (row.place, row.instance_type) == (self.customer.place, self.customer.size)
        await self.customer.verify_whole()
        assert await self.customer.stacks() == [("machine", "present"), ("network", "present")]
        intents = await self.customer.rows(
            CloudIntentRow, CloudIntentRow.operation_id == self.operation.operation_id
        )
        assert len(intents) == self.customer.declared
        assert all(intent.cloud_id and intent.found_at for intent in intents)
        inventory = await self.customer.inventory_of(self.operation)
        assert (inventory.left, len(inventory.resources)) == (0, len(there))

    async def verify_undone(self) -> None:
        assert await self.fleet.remains(self.operation) == {}
        await self.customer.verify_empty()
        inventory = await self.customer.inventory_of(self.operation)
        assert (inventory.left, inventory.resources) == (0, [])


class Deleting(CloudScenario):
    """A machine that is ready and shall go; forward only."""

    operation_type = OperationType.MACHINE_DELETE

    async def prepare(self) -> MachineOperation:
        made = await self.make()
        return await self.fleet.request(self.operation_type, made.owner_id)

    async def verify_done(self) -> None:
        assert await self.fleet.remains(self.operation) == {}
        await self.customer.verify_empty()
        ended = await self.fleet.operation(self.operation.operation_id)
        assert ended.response is not None
        assert ended.response["inventory"] == {"left": 0, "resources": []}
        assert ended.response["evidence"]["node"] == "none"
        inventory = await self.customer.inventory_of(self.operation)
        assert (inventory.left, inventory.resources) == (0, [])

    async def verify_undone(self) -> None:
        raise AssertionError


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Look again and again until a condition holds."""
    async with asyncio.timeout(RUNS_WITHIN_SECONDS):
        while not await condition():  # noqa: ASYNC110 - rows set no event
            await asyncio.sleep(0.2)
