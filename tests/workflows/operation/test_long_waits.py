"""Waits of months: a history has room for years of them, and what comes is heeded at once."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, Worker

import workflows.parking
import workflows.policies
import workflows.saga
from activities.clouds import CloudActivities
from domain.caller import system_caller
from domain.cluster import HostedControlPlane
from domain.errors import Reason
from domain.identifiers import Prefix, new_id
from domain.machine import ClusterMachine
from domain.names import abandon_workflow_id_of, workflow_id_of
from domain.operation import CREDENTIAL_CHANGED, OperationType, Step
from domain.owned_operation import MachineOperation
from infra.temporal.start import tell_credential_changed
from tests.workflows.conftest import Injected
from workflows.machine.cloud import check_credential
from workflows.parking import Parking
from workflows.pauses import LONGEST_PAUSE, longer
from workflows.policies import CLOUD_CALL
from workflows.saga import Saga

# Temporal ends a workflow that has more events.
MOST_EVENTS = 51_200
YEARS = timedelta(days=2 * 365)

TRIES = 6
DELETES = OperationType.MACHINE_DELETE
SOON = timedelta(milliseconds=10)


# Of the workflow of an operation, or of the one that closes it when that was lost.
Name = Callable[[OperationType, str, str], str]


@workflow.defn
class UseCredential:
    """Waits for a credential that is accepted, as the workflows of machines do."""

    def __init__(self) -> None:
        self._parking = Parking()

    @workflow.signal(name=CREDENTIAL_CHANGED)
    def credential_changed(self) -> None:
        self._parking.credential_changed()

    @workflow.run
    async def run(self, operation: MachineOperation) -> None:
        async with Saga(operation, parking=self._parking) as saga:
            await check_credential(saga, operation)


@workflow.defn
class TakeBack:
    """Takes a step back, as long as that fails for good."""

    @workflow.run
    async def run(self, operation: MachineOperation) -> None:
        saga = Saga(operation)
        await saga.undo(
            Step.REMOVE_SNAPSHOT, CloudActivities.remove_snapshot, operation, CLOUD_CALL
        )


@dataclass
class Account:
    """Refuses so many calls; the activities of a workflow that asks it."""

    refusals: int
    parked: asyncio.Event = field(default_factory=asyncio.Event)

    @activity.defn(name="check_credential")
    async def check(self, operation: MachineOperation) -> None:
        del operation
        self._refuse(Reason.CREDENTIAL_REJECTED)

    @activity.defn(name="remove_snapshot")
    async def remove(self, operation: MachineOperation) -> None:
        del operation
        self._refuse(Reason.INVALID_ARGUMENT)

    @activity.defn(name="record_parked")
    async def park(self, operation: MachineOperation) -> str:
        del operation
        self.parked.set()
        return "version"

    @activity.defn(name="record_credential")
    async def look(self, operation: MachineOperation) -> str:
        del operation
        return "version"

    @activity.defn(name="record_unparked")
    async def unpark(self, operation: MachineOperation) -> None:
        del operation

    def _refuse(self, reason: Reason) -> None:
        self.refusals -= 1
        if self.refusals >= 0:
            facts: dict[str, object] = {"path": [], "metadata": {}}
            told = "It is refused."
            raise ApplicationError(told, facts, type=reason, non_retryable=True)


@dataclass
class Bench:
    """Runs the two workflows against an account."""

    client: Client
    queue: str
    account: Account
    operation: MachineOperation | None = None

    async def start(
        self, kind: type[UseCredential | TakeBack], name: Name = workflow_id_of
    ) -> WorkflowHandle[Any, Any]:
        workspace = new_id(Prefix.WORKSPACE)
        plane = HostedControlPlane(
            workspace_id=workspace, cluster_id=new_id(Prefix.CLUSTER), host="-", slot=0
        )
        operation = MachineOperation(
            operation_id=new_id(Prefix.OPERATION),
            machine=ClusterMachine(machine_id=new_id(Prefix.MACHINE), control_plane=plane),
            caller=system_caller(workspace, "test"),
        )
        self.operation = operation
        return await self.client.start_workflow(
            kind.run,
            operation,
            id=name(DELETES, operation.owner_id, operation.operation_id),
            task_queue=self.queue,
        )

    async def events_of_a_try(self, kind: type[UseCredential | TakeBack]) -> int:
        """Return by how many events each of the tries makes a history longer, and no less."""
        handle = await self.start(kind)
        await asyncio.wait_for(handle.result(), 60)
        history = await handle.fetch_history()
        return math.ceil(len(history.events) / TRIES)


@pytest_asyncio.fixture(loop_scope="session")
async def bench(injected: Injected) -> AsyncIterator[Bench]:
    queue, account = uuid4().hex, Account(TRIES)
    async with Worker(
        injected.platform.client,
        task_queue=queue,
        workflows=[UseCredential, TakeBack],
        activities=[
            account.check,
            account.remove,
            account.park,
            account.look,
            account.unpark,
        ],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        yield Bench(injected.platform.client, queue, account)


def tries_within(time: timedelta, first: timedelta, doubled_up_to: timedelta) -> int:
    """Return how often something is tried in a time, each time in vain."""
    passed, pause, tries = timedelta(), first, 0
    while passed < time:
        passed, pause = passed + pause, longer(pause, doubled_up_to=doubled_up_to)
        tries += 1
    return tries


async def test_an_operation_can_wait_for_a_credential_for_years(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    parking = workflows.parking
    tries = tries_within(YEARS, parking.FIRST_PAUSE, parking.DOUBLED_UP_TO)
    monkeypatch.setattr(parking, "FIRST_PAUSE", SOON)
    monkeypatch.setattr(parking, "_TRY_ANYWAY", SOON)
    assert tries * await bench.events_of_a_try(UseCredential) < MOST_EVENTS


async def test_an_undo_can_fail_for_years(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    policies = workflows.policies
    tries = tries_within(YEARS, policies.PAUSE_AFTER_PERMANENT_ERROR, policies.DOUBLED_UP_TO)
    monkeypatch.setattr(workflows.saga, "PAUSE_AFTER_PERMANENT_ERROR", SOON)
    assert tries * await bench.events_of_a_try(TakeBack) < MOST_EVENTS


async def test_a_history_with_other_pauses_replays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as shorter:
        shorter.setattr(workflows.saga, "PAUSE_AFTER_PERMANENT_ERROR", SOON)
        handle = await bench.start(TakeBack)
        await asyncio.wait_for(handle.result(), 60)
    replayer = Replayer(
        workflows=[TakeBack],
        workflow_runner=UnsandboxedWorkflowRunner(),
        data_converter=bench.client.data_converter,
    )
    await replayer.replay_workflow(await handle.fetch_history())


@pytest.mark.parametrize("name", [workflow_id_of, abandon_workflow_id_of])
async def test_a_new_version_is_tried_at_once_however_long_the_pause_is_by_then(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: Name
) -> None:
    bench.account.refusals = 1
    monkeypatch.setattr(workflows.parking, "FIRST_PAUSE", LONGEST_PAUSE)
    handle = await bench.start(UseCredential, name)
    await asyncio.wait_for(bench.account.parked.wait(), 60)
    assert bench.operation is not None
    owner_id, operation_id = bench.operation.owner_id, bench.operation.operation_id
    await tell_credential_changed(bench.client, DELETES, owner_id, operation_id)
    await asyncio.wait_for(handle.result(), 60)


@pytest.mark.parametrize("hours", [1, 24, 100])
def test_who_mends_a_cause_waits_for_half_an_hour_and_a_tenth_of_the_time_that_has_passed(
    hours: int,
) -> None:
    half_an_hour = timedelta(minutes=30)
    passed, pause = timedelta(), timedelta(minutes=1)
    while passed < timedelta(hours=hours):
        passed, pause = passed + pause, longer(pause, doubled_up_to=half_an_hour)
    assert pause <= half_an_hour + passed / 10
