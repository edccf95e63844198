"""Stacks on real servers: the engine, PostgreSQL, OpenBao, and a provider's API on loopback."""

import asyncio
import importlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from domain.cloud import Tag
from domain.identifiers import Prefix, new_id
from domain.stack import (
    MachineShape,
    NetworkShape,
    StackAction,
    StackKind,
    StackProgram,
    StackState,
)
from infra.clouds.cloud import Cloud
from infra.database.engine import Database, DatabaseRole
from infra.database.records.stack import StackRecords
from infra.database.tables import StackRow, WorkspaceRow
from infra.openbao.client import OpenBao
from infra.settings import StackSettings
from infra.stacks import sessions
from infra.stacks.request import StackProgress, StackResult
from infra.stacks.stacks import OnHeld, Stacks
from tests.clouds.case import LocalAccount, ProviderCase
from tests.servers import Servers

USER_DATA = "#cloud-config\n# joins with 3f9c-not-to-be-seen-by-anyone\n"
WAIT_SECONDS = 60.0


async def no_budget() -> None:
    """Take nothing."""


@dataclass(kw_only=True)
class Laboratory:
    """A workspace with an empty account at a provider."""

    servers: Servers
    database: Database
    openbao: OpenBao
    stacks: Stacks
    settings: StackSettings
    account: LocalAccount
    workspace_id: str
    cluster_id: str = field(default_factory=lambda: new_id(Prefix.CLUSTER))

    @property
    def records(self) -> StackRecords:
        return self.stacks.records

    @property
    def cloud(self) -> Cloud:
        return self.account.cloud

    @property
    def case(self) -> ProviderCase:
        return self.account.case

    async def plan_network(self) -> StackProgram:
        """Plan the network of a new cluster."""
        self.cluster_id = new_id(Prefix.CLUSTER)
        shape = NetworkShape(
            place=self.case.place.name, region=self.case.place.region, cidr="10.40.0.0/16"
        )
        return await self._plan(StackKind.NETWORK, shape)

    async def plan_machine(self, network: Mapping[str, str]) -> StackProgram:
        """Plan a new machine of the cluster, in a network that is there."""
        shape = MachineShape(
            place=self.case.place.name,
            region=self.case.place.region,
            instance_type=self.case.instance_type,
            image=self.case.image,
            network=network,
        )
        return await self._plan(StackKind.MACHINE, shape)

    async def _plan(self, kind: StackKind, shape: NetworkShape | MachineShape) -> StackProgram:
        row = await self.records.plan(
            StackRow(
                workspace_id=self.workspace_id,
                id=new_id(Prefix.STACK),
                kind=kind,
                cluster_id=self.cluster_id,
                machine_id=new_id(Prefix.MACHINE) if kind is StackKind.MACHINE else None,
                compute_config_id=new_id(Prefix.COMPUTE_CONFIG),
                secret_id=new_id(Prefix.SECRET),
                provider=self.case.provider,
                place=shape.place,
                region=shape.region,
                state=StackState.PLANNED,
                shape={},
                outputs={},
            )
        )
        return StackProgram(
            workspace_id=self.workspace_id,
            stack_id=row.id,
            kind=kind,
            provider=self.case.provider,
            shape=shape,
            tags={
                Tag.WORKSPACE: self.workspace_id,
                Tag.CLUSTER: self.cluster_id,
                Tag.STACK: row.id,
            },
        )

    async def run(
        self,
        action: StackAction,
        program: StackProgram,
        *,
        deadline_seconds: int = 240,
        on_held: OnHeld = no_budget,
        on_progress: Callable[[StackProgress], None] | None = None,
    ) -> StackResult:
        """Run an action as an activity does."""
        return await self.stacks.run(
            action,
            program,
            self.cloud,
            operation_id=new_id(Prefix.OPERATION),
            user_data=USER_DATA if program.kind is StackKind.MACHINE else "",
            deadline_seconds=deadline_seconds,
            on_held=on_held,
            on_progress=on_progress,
        )

    async def row_of(self, program: StackProgram) -> StackRow:
        return await self.records.look(self.workspace_id, program.stack_id)

    async def inventory(self, program: StackProgram) -> list[tuple[str, str | None]]:
        """Return what the account has of a stack: kinds and logical names."""
        found = await asyncio.to_thread(self.cloud.inventory, self.workspace_id, program.stack_id)
        return sorted((one.kind, one.resource) for one in found)

    async def names(self, program: StackProgram) -> list[str]:
        """Return the logical names of what the account has of a stack."""
        return sorted(str(name) for _, name in await self.inventory(program))

    def ids(self, program: StackProgram, name: str) -> set[str]:
        """Return the ids of what the account has of a stack under a logical name."""
        found = self.cloud.inventory(self.workspace_id, program.stack_id)
        return {one.id for one in found if one.resource == name}

    def declared(self, program: StackProgram) -> list[str]:
        """Return the logical names of what a stack's program makes."""
        module = importlib.import_module(f"infra.stacks.programs.{program.provider}")
        return sorted(module.RESOURCES[program.kind])


async def until(condition: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
    """Wait for something that comes about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.05)


def kill(program: StackProgram, part: str) -> bool:
    """Kill the processes of a stack's run whose command line has a part; False: there is none."""
    found = [one for one in sessions.processes_of(program.stack_id) if part in command_of(one)]
    for process in found:
        # Of several one may end when another is killed.
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return bool(found)


def command_of(process: int) -> str:
    """Return a process's command line."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def database_of(servers: Servers) -> Database:
    """Open the database as a worker."""
    return Database(servers.database, DatabaseRole.WORKER)


async def new_workspace(servers: Servers, openbao: OpenBao) -> str:
    """Make a workspace with its place in OpenBao."""
    workspace_id = new_id(Prefix.WORKSPACE)
    api = Database(servers.database, DatabaseRole.API)
    async with api.workspace(workspace_id) as session:
        session.add(WorkspaceRow(id=workspace_id, name="test", slug=workspace_id[-30:]))
    await api.close()
    await asyncio.to_thread(openbao.ensure_secret_space, workspace_id)
    return workspace_id
