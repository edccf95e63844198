"""Workspaces take turns at the places in which stacks are made."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from temporalio import activity
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

import infra.temporal.start
import workflows.machine.cloud
from activities.stacks import ServerWanted
from domain.caller import system_caller
from domain.cluster import HostedControlPlane
from domain.compute import Choice
from domain.identifiers import Prefix, new_id
from domain.machine import ClusterMachine, MachineKind
from domain.names import workflow_id_of
from domain.operation import OperationType, Step
from domain.owned_operation import MachineOperation
from infra.temporal.start import start_operation
from tests.workflows.conftest import Injected
from tests.workflows.machine.cloud.scenarios import until
from workflows.machine.create import CreateMachine
from workflows.registry import sandbox

SLOTS = 2
MANY = 12
# Of the tasks that wait, the server may have read some before it knows of a newer one.
SOON = MANY // 2


@dataclass
class Site:
    """Creates of machines of which nothing goes on but the networks, one by one."""

    client: Client
    queue: str
    turns: list[str] = field(default_factory=list)
    asked: list[MachineOperation] = field(default_factory=list)
    ends: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    @activity.defn(name="check_credential")
    async def check(self, operation: MachineOperation) -> None:
        del operation

    @activity.defn(name="record_choices")
    async def choose(self, operation: MachineOperation) -> list[Choice]:
        del operation
        return [Choice(place="fsn1", instance_type="cpx22")]

    @activity.defn(name="ensure_network")
    async def make_network(self, wanted: ServerWanted) -> None:
        self.turns.append(wanted.workspace_id)
        await self.ends.acquire()

    @activity.defn(name="create_server")
    async def make_server(self, wanted: ServerWanted) -> None:
        del wanted

    @activity.defn(name="take_inventory")
    async def wait(self, operation: MachineOperation) -> None:
        del operation
        await asyncio.Event().wait()

    async def ask(self, workspace_id: str, machines: int) -> None:
        """Start so many creates in a workspace, and wait until each wants a place."""
        asked = [an_operation(workspace_id) for _ in range(machines)]
        self.asked += asked
        for each in asked:
            await start_operation(self.client, OperationType.MACHINE_CREATE, each)
        for each in asked:
            await until(partial(self._wants_place, each))

    async def all_are_queued(self) -> bool:
        """Tell whether everybody who has no place is known to the queue."""
        request = DescribeTaskQueueRequest(
            namespace=self.client.namespace,
            task_queue=TaskQueue(name=f"{self.queue}-stacks"),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            report_stats=True,
        )
        found = await self.client.workflow_service.describe_task_queue(request)
        waiting = found.stats.approximate_backlog_count
        return waiting + len(self.turns) >= len(self.asked)

    async def let_end(self, networks: int) -> None:
        """Have so many networks done, and wait until as many others have their place."""
        for _ in range(networks):
            begun = len(self.turns)
            self.ends.release()

            async def another_has_its_place(begun: int = begun) -> bool:
                return len(self.turns) > begun

            await until(another_has_its_place)

    def handle(self, operation: MachineOperation) -> WorkflowHandle[Any, Any]:
        """Return the workflow of an operation."""
        kind = OperationType.MACHINE_CREATE
        name = workflow_id_of(kind, operation.owner_id, operation.operation_id)
        return self.client.get_workflow_handle(name)

    async def give_up(self) -> None:
        """End the workflows: nothing is there to be taken back."""
        for each in self.asked:
            await self.handle(each).terminate()

    async def _wants_place(self, operation: MachineOperation) -> bool:
        described = await self.handle(operation).describe()
        pending = described.raw_description.pending_activities
        return any(each.activity_id == Step.ENSURE_NETWORK for each in pending)


@pytest_asyncio.fixture(loop_scope="session")
async def site(injected: Injected, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    found = Site(injected.platform.client, uuid4().hex)
    stacks = f"{found.queue}-stacks"
    monkeypatch.setattr(infra.temporal.start, "CONTROL_TASK_QUEUE", found.queue)
    monkeypatch.setattr(workflows.machine.cloud, "STACKS_TASK_QUEUE", stacks)
    async with (
        Worker(
            found.client,
            task_queue=found.queue,
            workflows=[CreateMachine],
            activities=[found.check, found.choose, found.wait],
            workflow_runner=sandbox(),
        ),
        Worker(
            found.client,
            task_queue=stacks,
            activities=[found.make_network, found.make_server],
            max_concurrent_activities=SLOTS,
        ),
    ):
        yield found
        await found.give_up()


async def test_a_workspace_does_not_wait_for_all_that_another_has_asked_for(site: Site) -> None:
    many, one = new_id(Prefix.WORKSPACE), new_id(Prefix.WORKSPACE)
    await site.ask(many, MANY)
    await site.ask(one, 1)
    await until(site.all_are_queued)
    assert site.turns == [many] * SLOTS
    await site.let_end(SOON)
    assert one in site.turns


def an_operation(workspace_id: str) -> MachineOperation:
    plane = HostedControlPlane(
        workspace_id=workspace_id, cluster_id=new_id(Prefix.CLUSTER), host="-", slot=0
    )
    machine = ClusterMachine(
        machine_id=new_id(Prefix.MACHINE), control_plane=plane, kind=MachineKind.CLOUD
    )
    return MachineOperation(
        operation_id=new_id(Prefix.OPERATION),
        machine=machine,
        caller=system_caller(workspace_id, "test"),
    )
