"""How several machines are asked for at once, and one in place of another."""

from collections.abc import Sequence

from sqlmodel import col, select

from domain.cluster import ClusterState
from domain.compute import Choice
from domain.machine import MachineState
from domain.operation import OPERATIONS, OperationState, OperationType, Step
from domain.owned_operation import (
    ClusterOperation,
    MachineOperation,
    MachinePoolOperation,
)
from infra.database.records.machine_plan import (
    WantedMachines,
    add_pool,
    plan_cluster,
    plan_pool,
)
from infra.database.records.new_rows import NewRows
from infra.database.records.operation import cluster_operation_of, pool_operation_of
from infra.database.tables import ClusterRow, MachinePoolRow, OperationRow
from infra.temporal.start import start_operation
from tests.platform import Requested
from tests.workflows.machine.cloud.customer import ALL_OF_IT, PLACE, SIZE, Customer
from tests.workflows.machine.cloud.scenarios import (
    RUNS_WITHIN_SECONDS,
    CloudScenario,
)

POOL = 2


class Replacing(CloudScenario):
    """A machine that works, in whose place another one shall come; until that is there."""

    operation_type = OperationType.MACHINE_REPLACE

    def __init__(self, customer: Customer) -> None:
        super().__init__(customer)
        self.steps = [Step.CREATE_REPLACEMENT]

    async def prepare(self) -> MachineOperation:
        made = await self.make()
        return await self.fleet.request(self.operation_type, made.owner_id)

    async def verify_done(self) -> None:
        assert await self.fleet.remains(self.operation) == {}
        ended = await self.fleet.operation(self.operation.operation_id)
        assert ended.response is not None
        assert ended.response["replaced_machine_id"] == self.operation.owner_id
        row = await self.fleet.row(ended.response["machine_id"])
        assert row is not None
        assert (row.state, row.active_operation_id) == (MachineState.ACTIVE, None)
        assert (row.place, row.instance_type) == (PLACE, SIZE)
        assert await self.customer.kinds() == ALL_OF_IT
        parts = await self.customer.rows(OperationRow, OperationRow.parent_operation_id == ended.id)
        assert sorted(part.type for part in parts) == ["machine.create", "machine.delete"]

    async def verify_undone(self) -> None:
        await self.verify_row(MachineState.ACTIVE)
        assert await self.customer.kinds() == ALL_OF_IT
        assert [row.id for row in await self.customer.machines()] == [self.operation.owner_id]

    async def clean_up(self) -> None:
        await self.customer.give_back()


class Retiring(Replacing):
    """The part of a replacement from which there is no way back."""

    def __init__(self, customer: Customer) -> None:
        super().__init__(customer)
        self.forward_only = True
        self.steps = [Step.DELETE_REPLACED]


class CreatingPool:
    """Machines of one shape that nobody has asked for before."""

    operation_type = OperationType.MACHINE_POOL_CREATE

    def __init__(self, customer: Customer, *choices: Choice) -> None:
        self.customer = customer
        self.fleet = customer.fleet
        self.platform = customer.fleet.platform
        self.facts = OPERATIONS[self.operation_type]
        self.workflow = self.facts.workflow
        self.forward_only = False
        self.steps: Sequence[str] = self.facts.steps
        self.choices = choices or (Choice(place=PLACE, instance_type=SIZE),)
        self.requested: MachinePoolOperation | None = None

    @property
    def operation(self) -> MachinePoolOperation | ClusterOperation:
        return self.pool

    @property
    def pool(self) -> MachinePoolOperation:
        assert self.requested is not None
        return self.requested

    @property
    def asked(self) -> Requested | MachinePoolOperation:
        return self.pool

    @property
    def owner_id(self) -> str:
        return self.operation.owner_id

    async def plan(self) -> str:
        owner, rows = self.fleet.owner, NewRows()
        wanted = WantedMachines(
            compute_config_id=self.customer.config_id,
            choices=self.choices,
            count=POOL,
            name="pool",
        )
        async with self.platform.api.workspace(owner.workspace_id) as session:
            query = select(ClusterRow).where(ClusterRow.id == self.fleet.cluster.cluster_id)
            cluster = (await session.exec(query)).one()
            pool, machines = add_pool(rows, cluster, wanted)
            operation = plan_pool(rows, owner, cluster, pool, machines)
            await rows.write(session)
            self.requested = pool_operation_of(operation)
        return self.requested.operation_id

    async def request(self) -> str:
        operation_id = await self.plan()
        await self.begin()
        return operation_id

    async def begin(self) -> None:
        await start_operation(self.platform.client, self.operation_type, self.operation)

    async def cancel(self, operation_id: str) -> None:
        assert self.operation.operation_id == operation_id
        assert await self.platform.cancel(self.asked)

    async def end_of(self, operation_id: str, within_seconds: float) -> OperationState:
        assert self.operation.operation_id == operation_id
        return await self.platform.end_of(self.asked, max(within_seconds, RUNS_WITHIN_SECONDS))

    async def verify_done(self) -> None:
        rows = await self.customer.machines()
        assert [(row.name, row.state) for row in rows] == [
            ("pool-1", MachineState.ACTIVE),
            ("pool-2", MachineState.ACTIVE),
        ]
        (pool,) = await self.pools()
        assert pool.active_operation_id is None
        ended = await self.fleet.operation(self.operation.operation_id)
        assert ended.response is not None
        assert ended.response["machine_ids"] == [row.id for row in rows]
        assert (await self.customer.kinds()).count("server") == POOL

    async def verify_undone(self) -> None:
        assert await self.customer.machines() == []
        assert await self.pools() == []
        await self.customer.verify_empty()

    async def clean_up(self) -> None:
        await self.customer.give_back()

    async def pools(self) -> Sequence[MachinePoolRow]:
        rows = await self.customer.rows(MachinePoolRow, MachinePoolRow.id == self.pool.pool_id)
        return [row for row in rows if isinstance(row, MachinePoolRow)]

    async def parts(self) -> Sequence[OperationRow]:
        rows = await self.customer.rows(
            OperationRow,
            OperationRow.parent_operation_id == self.operation.operation_id,
            col(OperationRow.type) == OperationType.MACHINE_CREATE,
        )
        return [row for row in rows if isinstance(row, OperationRow)]


class CreatingClusterWithPool(CreatingPool):
    """A cluster that is not there yet, with a machine that is a part of the same operation."""

    operation_type = OperationType.CLUSTER_CREATE

    def __init__(self, customer: Customer, *choices: Choice) -> None:
        super().__init__(customer, *choices)
        self.steps = [Step.CREATE_MACHINES]
        self.planned: ClusterOperation | None = None

    @property
    def operation(self) -> ClusterOperation:
        assert self.planned is not None
        return self.planned

    @property
    def asked(self) -> Requested:
        return Requested(
            cluster=self.operation.control_plane, operation_id=self.operation.operation_id
        )

    @property
    def owner_id(self) -> str:
        return self.operation.owner_id

    async def plan(self) -> str:
        owner, rows = self.fleet.owner, NewRows()
        wanted = WantedMachines(
            compute_config_id=self.customer.config_id, choices=self.choices, name="first"
        )
        async with self.platform.api.workspace(owner.workspace_id) as session:
            cluster = await self.platform.new_cluster(session, owner)
            rows.add(cluster)
            operation = plan_cluster(rows, owner, cluster, [wanted], {})
            await rows.write(session)
        self.planned = cluster_operation_of(operation)
        return self.planned.operation_id

    async def verify_done(self) -> None:
        (machine,) = await self.customer.machines()
        assert (machine.name, machine.state) == ("first-1", MachineState.ACTIVE)
        assert machine.cluster_id == self.owner_id
        row = await self.platform.row(self.asked.cluster)
        assert row is not None
        assert (row.state, row.active_operation_id) == (ClusterState.ACTIVE, None)
        (pool,) = await self.pools()
        assert pool.active_operation_id is None
        assert await self.customer.kinds() == ALL_OF_IT

    async def verify_undone(self) -> None:
        assert await self.platform.remains(self.asked.cluster) == {}
        assert await self.customer.machines() == []
        assert await self.pools() == []
        await self.customer.verify_empty()

    async def clean_up(self) -> None:
        await self.customer.give_back()
        await self.platform.delete(self.asked.cluster, self.fleet.owner)

    async def pools(self) -> Sequence[MachinePoolRow]:
        rows = await self.customer.rows(MachinePoolRow, MachinePoolRow.cluster_id == self.owner_id)
        return [row for row in rows if isinstance(row, MachinePoolRow)]
