"""A customer who has an account at Hetzner, and what is looked at when machines come and go."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from sqlmodel import col, select

from domain.cloud import CloudResource, Provider
from domain.compute import Choice
from domain.identifiers import Prefix, new_id
from domain.operation import OperationState, OperationType
from domain.owned_operation import MachineOperation
from domain.secret import CURRENT, SecretKind, SecretValue
from domain.stack import StackKind, StackState
from infra.clouds.cloud import Cloud
from infra.database.records.machine_plan import WantedMachines, add_machine, plan_machine
from infra.database.records.new_rows import NewRows
from infra.database.records.operation import machine_operation_of
from infra.database.records.secret import begin_version, complete_version, place_of
from infra.database.tables import (
    ClusterRow,
    ComputeConfigRow,
    InventoryRow,
    LeakRow,
    MachineRow,
    SecretRow,
    StackRow,
)
from tests.workflows.hetzner import Hetzner
from tests.workflows.machine.fleet import Fleet
from tests.workflows.secret.scenarios import Rotating

# Runs of the engine, one for each machine, which take turns.
GIVES_BACK_WITHIN_SECONDS = 300.0
PLACE, SIZE = "fsn1", "cx23"

# A network and a server at Hetzner, and what is left of them while the machine is suspended.
ALL_OF_IT = ["firewall", "network", "placement_group", "server", "subnet"]
ASLEEP = ["firewall", "network", "placement_group", "snapshot", "subnet"]


class Token(Rotating):
    """A secret with a token of Hetzner's."""

    kind = SecretKind.HCLOUD


class Customer:
    """An account of the fleet's workspace, empty at first."""

    provider = Provider.HCLOUD
    place, size, image = PLACE, SIZE, "debian-12"
    # How many things the programs of a network and a server declare.
    declared = len(ALL_OF_IT)

    def __init__(self, fleet: Fleet, hetzner: Hetzner) -> None:
        self.fleet = fleet
        self.hetzner = hetzner
        self.project = uuid4().hex
        # To look with, whatever becomes of the customer's own.
        self.eye = hetzner.new_token(self.project)
        self.token = hetzner.new_token(self.project)
        self.config_id = ""
        self._secret: Rotating = Token(fleet.platform, fleet.owner)
        self._secret_id = ""

    @property
    def credential(self) -> SecretValue:
        """The secret's first value."""
        return SecretValue.of_text(self.token)

    @property
    def cloud(self) -> Cloud:
        """The account, opened by its owner."""
        return self.hetzner.cloud(self.eye)

    async def open(self) -> None:
        """Bring the token, and a compute config that uses it."""
        owner = self.fleet.owner
        self._secret_id = await self._secret.store(self.credential)
        config = ComputeConfigRow(
            workspace_id=owner.workspace_id,
            id=new_id(Prefix.COMPUTE_CONFIG),
            name=self.project,
            provider=self.provider,
            provider_config={"region": self.place, "image": self.image},
            secret_id=self._secret_id,
        )
        self.config_id = config.id
        async with self.fleet.platform.api.workspace(owner.workspace_id) as session:
            session.add(config)

    async def bring_token(self) -> None:
        """Add a version with a new token, and make it the current one."""
        value = await asyncio.to_thread(self.new_credential)
        owner = self.fleet.owner
        async with self.fleet.platform.api.workspace(owner.workspace_id) as session:
            version = await begin_version(session, NewRows(), owner.workspace_id, self._secret_id)
        place = place_of(version)
        await asyncio.to_thread(self._secret.values.write, place, value)
        async with self.fleet.platform.api.workspace(owner.workspace_id) as session:
            await complete_version(session, place)
            secret = await session.get_one(SecretRow, (owner.workspace_id, self._secret_id))
            secret.aliases = {**secret.aliases, CURRENT: version.number}

    def new_credential(self) -> SecretValue:
        """Return another credential of the account, which the provider accepts."""
        self.token = self.hetzner.new_token(self.project)
        return SecretValue.of_text(self.token)

    async def plan(self, *choices: Choice, cluster_id: str | None = None) -> MachineOperation:
        """Write what a request for a machine writes, in the fleet's cluster; start nothing."""
        owner = self.fleet.owner
        wanted = WantedMachines(
            compute_config_id=self.config_id,
            choices=choices or (Choice(place=self.place, instance_type=self.size),),
        )
        rows = NewRows()
        async with self.fleet.platform.api.workspace(owner.workspace_id) as session:
            key = (owner.workspace_id, cluster_id or self.fleet.cluster.cluster_id)
            cluster = await session.get_one(ClusterRow, key)
            machine = add_machine(rows, cluster, wanted)
            operation = plan_machine(rows, owner, cluster, machine)
            await rows.write(session)
            return machine_operation_of(operation)

    async def has(self) -> list[CloudResource]:
        """Return all that the account has of the workspace."""
        workspace_id = self.fleet.owner.workspace_id
        return list(await asyncio.to_thread(self.cloud.inventory, workspace_id))

    async def kinds(self) -> list[str]:
        """Return what the account has, by kind."""
        return sorted(thing.kind for thing in await self.has())

    async def verify_whole(self) -> None:
        """Assert that the account has a network and a server, each thing of it once."""
        assert await self.kinds() == ALL_OF_IT

    async def verify_asleep(self) -> None:
        """Assert that the account has a network and a snapshot."""
        assert await self.kinds() == ASLEEP

    async def rows(self, table: type[Any], *where: Any) -> Sequence[Any]:  # noqa: ANN401 - SQL
        """Read rows of the workspace."""
        async with self.fleet.platform.api.workspace(self.fleet.owner.workspace_id) as session:
            return (await session.exec(select(table).where(*where))).all()

    async def configs(self) -> Sequence[ComputeConfigRow]:
        """Return the customer's compute config."""
        return await self.rows(ComputeConfigRow, ComputeConfigRow.id == self.config_id)

    async def removed_stack(self) -> str:
        """Have had a stack, of which nothing is left as far as the rows know."""
        owner = self.fleet.owner
        row = StackRow(
            workspace_id=owner.workspace_id,
            id=new_id(Prefix.STACK),
            kind=StackKind.NETWORK,
            cluster_id=self.fleet.cluster.cluster_id,
            compute_config_id=self.config_id,
            secret_id=self._secret_id,
            provider=Provider.HCLOUD,
            place=PLACE,
            region="eu-central",
            state=StackState.REMOVED,
            shape={},
            outputs={},
        )
        async with self.fleet.platform.api.workspace(owner.workspace_id) as session:
            session.add(row)
        return row.id

    async def stacks(self) -> list[tuple[str, str]]:
        """Return the kinds and states of the account's stacks."""
        rows = await self.rows(StackRow, col(StackRow.secret_id) == self._secret_id)
        return sorted((row.kind, row.state) for row in rows)

    async def inventory_of(self, operation: MachineOperation) -> InventoryRow:
        """Return the newest inventory of an operation."""
        (row,) = await self.rows(
            InventoryRow, col(InventoryRow.operation_id) == operation.operation_id
        )
        assert isinstance(row, InventoryRow)
        return row

    async def machines(self) -> list[MachineRow]:
        """Return the machines of the account, oldest first."""
        rows = await self.rows(MachineRow, MachineRow.compute_config_id == self.config_id)
        return sorted(rows, key=lambda row: row.id)

    async def give_back(self) -> None:
        """Have every machine deleted, and the account as it was."""
        kind, deletions = OperationType.MACHINE_DELETE, []
        for row in await self.machines():
            deletions.append(await self.fleet.request(kind, row.id))
            await self.fleet.start(kind, deletions[-1])
        for deletion in deletions:
            state = await self.fleet.platform.end_of(deletion, GIVES_BACK_WITHIN_SECONDS)
            assert state is OperationState.SUCCEEDED
        await self.verify_empty()
        await self.rest()

    async def rest(self) -> None:
        """Let an hour pass, as far as the account's budget of calls is concerned."""
        await self.fleet.execute(
            "DELETE FROM credential_budgets WHERE secret_id = %s", self._secret_id
        )

    async def verify_empty(self) -> None:
        """Assert that the account is as it was, and that the rows know it."""
        assert await self.kinds() == []
        assert {state for _, state in await self.stacks()} <= {"removed"}
        leaks = col(LeakRow.resolved_at).is_(None), LeakRow.compute_config_id == self.config_id
        assert await self.rows(LeakRow, *leaks) == []

    def close(self) -> None:
        """Close connections."""
        self._secret.close()
