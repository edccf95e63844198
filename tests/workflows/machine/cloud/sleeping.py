"""How a machine is suspended and resumed, and what must be true afterwards."""

import asyncio
import re

from sqlmodel import col

from domain.cloud import SERVER, SNAPSHOT
from domain.compute import SuspensionState
from domain.identifiers import opaque_part
from domain.machine import MachineState
from domain.names import node_name_of
from domain.operation import OperationType, Step
from domain.owned_operation import MachineOperation
from infra.database.queries.machine import find_machine
from infra.database.records.operation import machine_operation_of
from infra.database.records.suspension import plan_resumption, plan_suspension
from infra.database.tables import ClusterRow, SuspensionEventRow
from infra.kubernetes.nodes import list_nodes
from tests.workflows.machine.cloud.customer import Customer
from tests.workflows.machine.cloud.scenarios import CloudScenario


class SleepScenario(CloudScenario):
    """One machine that sleeps, or shall."""

    def __init__(self, customer: Customer) -> None:
        super().__init__(customer)
        self.machine_id = ""

    async def request_suspension(self) -> MachineOperation:
        return await self._plan(OperationType.MACHINE_SUSPEND)

    async def request_resumption(self) -> MachineOperation:
        return await self._plan(OperationType.MACHINE_RESUME)

    async def suspended(self) -> None:
        """Have a machine that is suspended."""
        self.machine_id = (await self.make()).owner_id
        operation = await self.request_suspension()
        await self.start(OperationType.MACHINE_SUSPEND, operation)
        await self.succeed(operation)

    async def clean_up(self) -> None:
        await self.customer.give_back()
        self.machine_id = ""

    async def events(self) -> list[SuspensionEventRow]:
        rows = await self.customer.rows(
            SuspensionEventRow, col(SuspensionEventRow.machine_id) == self.machine_id
        )
        return sorted(rows, key=lambda row: row.id)

    async def verify_asleep(self) -> None:
        row = await self.fleet.row(self.machine_id)
        assert row is not None
        assert (row.state, row.active_operation_id) == (MachineState.SUSPENDED, None)
        assert (row.provider_id, row.public_ip) == (None, None)
        event = (await self.events())[-1]
        assert (event.id, event.state) == (row.suspension_id, SuspensionState.COMPLETED)
        (snapshot,) = [thing for thing in await self.customer.has() if thing.resource == SNAPSHOT]
        assert snapshot.id == event.snapshot_id
        # An image of AWS's is shown by its id.
        assert snapshot.name == snapshot.id or opaque_part(event.id) in snapshot.name
        assert event.size_gb
        assert event.monthly_cost_cents > 0
        await self.customer.verify_asleep()
        # Its place in the cluster stays, and takes no pods.
        nodes = await self.fleet.ask(list_nodes)
        assert nodes[node_name_of(self.machine_id)].schedulable is False

    async def verify_awake(self) -> None:
        await self.customer.verify_whole()
        row = await self.fleet.until(self.machine_id, lambda row: row.node_ready is True)
        assert (row.state, row.active_operation_id) == (MachineState.ACTIVE, None)
        assert row.suspension_id is None
        (server,) = [thing for thing in await self.customer.has() if thing.resource == SERVER]
        assert row.provider_id == f"compute://{self.customer.provider}/{server.id}"
        told = await asyncio.to_thread(self.customer.cloud.describe, server.id)
        assert told is not None
        # AWS's is a part of what it tells of the state.
        assert re.search("running", str(told.get("status") or told["State"]), re.IGNORECASE)
        nodes = await self.fleet.ask(list_nodes)
        assert nodes[node_name_of(self.machine_id)].schedulable is True

    async def verify_looked_at(self) -> None:
        """Assert that the operation has looked at the account last, and left nothing too much."""
        inventory = await self.customer.inventory_of(self.operation)
        there = {(thing.kind, thing.id) for thing in await self.customer.has()}
        assert inventory.left == 0
        assert {(one["kind"], one["id"]) for one in inventory.resources} == there

    async def _plan(self, kind: OperationType) -> MachineOperation:
        owner = self.fleet.owner
        async with self.platform.api.workspace(owner.workspace_id) as session:
            machine = await find_machine(session, self.machine_id, lock=True)
            assert machine is not None
            cluster = await session.get_one(ClusterRow, (owner.workspace_id, machine.cluster_id))
            if kind is OperationType.MACHINE_SUSPEND:
                row = plan_suspension(
                    session, machine, cluster, owner, reason="manual", request={"type": kind}
                )
            else:
                key = (owner.workspace_id, machine.suspension_id)
                event = await session.get_one(SuspensionEventRow, key)
                row = plan_resumption(
                    session, machine, event, cluster, owner, request={"type": kind}
                )
            await session.flush()
            return machine_operation_of(row)


class Suspending(SleepScenario):
    """A machine that works; as long as its server is there it can go on."""

    operation_type = OperationType.MACHINE_SUSPEND

    def __init__(self, customer: Customer) -> None:
        super().__init__(customer)
        self.steps = self.steps[: self.steps.index(Step.REMOVE_SERVER)]

    async def prepare(self) -> MachineOperation:
        self.machine_id = (await self.make()).owner_id
        return await self.request_suspension()

    async def verify_done(self) -> None:
        await self.verify_asleep()
        ended = await self.fleet.operation(self.operation.operation_id)
        assert ended.response is not None
        assert ended.response["suspension_id"] == (await self.events())[-1].id
        inventory = await self.customer.inventory_of(self.operation)
        assert inventory.left == 0

    async def verify_undone(self) -> None:
        await self.verify_awake()
        assert await self.events() == []


class FallingAsleep(Suspending):
    """The part of a suspension from which there is no way back."""

    def __init__(self, customer: Customer) -> None:
        super().__init__(customer)
        self.forward_only = True
        self.steps = self.facts.steps[self.facts.steps.index(Step.REMOVE_SERVER) :]


class Resuming(SleepScenario):
    """A machine that sleeps; as long as its snapshot is there it can sleep on."""

    operation_type = OperationType.MACHINE_RESUME

    def __init__(self, customer: Customer) -> None:
        super().__init__(customer)
        self.steps = self.steps[: self.steps.index(Step.REMOVE_SNAPSHOT)]

    async def prepare(self) -> MachineOperation:
        if not self.machine_id:
            await self.suspended()
        return await self.request_resumption()

    async def verify_done(self) -> None:
        await self.verify_awake()
        (event,) = await self.events()
        assert event.state is SuspensionState.RESUMED
        assert event.resumed_at is not None

    async def verify_undone(self) -> None:
        await self.verify_asleep()


class WakingUp(Resuming):
    """The part of a resumption from which there is no way back."""

    def __init__(self, customer: Customer) -> None:
        super().__init__(customer)
        self.forward_only = True
        self.steps = self.facts.steps[self.facts.steps.index(Step.REMOVE_SNAPSHOT) :]
