"""Waits of months: what waits begins anew or has room for years, and heeds at once what comes."""

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
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, Worker

import workflows.parking
import workflows.pauses
import workflows.policies
import workflows.saga
from activities.clouds import CloudActivities
from activities.records import EndOperation
from domain.caller import system_caller
from domain.cluster import HostedControlPlane
from domain.errors import Reason
from domain.identifiers import Prefix, new_id
from domain.machine import ClusterMachine
from domain.names import abandon_workflow_id_of, workflow_id_of
from domain.operation import CREDENTIAL_CHANGED, OperationState, OperationType, Step
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


@workflow.defn
class RemoveForGood:
    """Goes forward only, and may run its steps again from the first one."""

    def __init__(self) -> None:
        self._parking = Parking()

    @workflow.run
    async def run(self, operation: MachineOperation) -> None:
        saga = Saga(operation, forward_only=True, parking=self._parking, repeats=operation)
        async with saga:
            await check_credential(saga, operation)
            await saga.undo(
                Step.REMOVE_SNAPSHOT, CloudActivities.remove_snapshot, operation, CLOUD_CALL
            )


@workflow.defn
class GoOn:
    """Waits for a credential in its second step, with a first one that must not run again."""

    def __init__(self) -> None:
        self._parking = Parking()

    @workflow.run
    async def run(self, operation: MachineOperation) -> None:
        async with Saga(operation, parking=self._parking) as saga:
            await saga.step(
                Step.REMOVE_SNAPSHOT, CloudActivities.remove_snapshot, operation, CLOUD_CALL
            )
            await check_credential(saga, operation)


Waiting = UseCredential | TakeBack | RemoveForGood | GoOn


@dataclass
class Account:
    """Refuses so many calls; the activities of a workflow that asks it.

    Attributes:
        refused: by which reasons calls are refused, by what they ask for.
        ended: how an operation ended that did not succeed.
    """

    refusals: int
    refused: dict[Step, Reason] = field(
        default_factory=lambda: {
            Step.CHECK_CREDENTIAL: Reason.CREDENTIAL_REJECTED,
            Step.REMOVE_SNAPSHOT: Reason.INVALID_ARGUMENT,
        }
    )
    ended: list[OperationState] = field(default_factory=list)
    calls: list[Step] = field(default_factory=list)
    parked: asyncio.Event = field(default_factory=asyncio.Event)

    @activity.defn(name="check_credential")
    async def check(self, operation: MachineOperation) -> None:
        del operation
        self._refuse(Step.CHECK_CREDENTIAL)

    @activity.defn(name="remove_snapshot")
    async def remove(self, operation: MachineOperation) -> None:
        del operation
        self._refuse(Step.REMOVE_SNAPSHOT)

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

    @activity.defn(name="record_end")
    async def end(self, end: EndOperation) -> None:
        self.ended.append(end.state)

    def _refuse(self, step: Step) -> None:
        self.calls.append(step)
        reason = self.refused.get(step)
        if reason is None:
            return
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
        self, kind: type[Waiting], name: Name = workflow_id_of
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

    async def runs(self, handle: WorkflowHandle[Any, Any]) -> list[int]:
        """Return how many events each run of a workflow that has ended had, the first one first."""
        lengths: list[int] = []
        run_id = handle.first_execution_run_id
        while run_id:
            history = await self.client.get_workflow_handle(
                handle.id, run_id=run_id
            ).fetch_history()
            lengths.append(len(history.events))
            end = history.events[-1].workflow_execution_continued_as_new_event_attributes
            run_id = end.new_execution_run_id
        return lengths

    async def events_of_a_try(self, kind: type[Waiting]) -> int:
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
        workflows=[UseCredential, TakeBack, RemoveForGood, GoOn],
        activities=[
            account.check,
            account.remove,
            account.park,
            account.look,
            account.unpark,
            account.end,
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


@pytest.fixture
def short_histories(monkeypatch: pytest.MonkeyPatch) -> int:
    """Have workflows that wait begin anew after so many events, which takes no time."""
    most = 50
    monkeypatch.setattr(workflows.pauses, "LONGEST_HISTORY", most)
    monkeypatch.setattr(workflows.parking, "FIRST_PAUSE", SOON)
    monkeypatch.setattr(workflows.parking, "_TRY_ANYWAY", SOON)
    monkeypatch.setattr(workflows.saga, "PAUSE_AFTER_PERMANENT_ERROR", SOON)
    return most


async def test_an_operation_whose_first_step_waits_begins_anew_before_its_history_is_long(
    bench: Bench, short_histories: int
) -> None:
    bench.account.refusals = 12
    handle = await bench.start(UseCredential)
    await asyncio.wait_for(handle.result(), 60)
    assert len(bench.account.calls) == 13
    lengths = await bench.runs(handle)
    assert len(lengths) > 2
    # One more try than fits.
    assert max(lengths) < 2 * short_histories


async def test_an_operation_that_only_goes_forward_begins_anew_at_any_step(
    bench: Bench, short_histories: int
) -> None:
    del bench.account.refused[Step.CHECK_CREDENTIAL]
    bench.account.refusals = 20
    handle = await bench.start(RemoveForGood)
    await asyncio.wait_for(handle.result(), 60)
    lengths = await bench.runs(handle)
    assert len(lengths) > 2
    assert max(lengths) < 2 * short_histories
    assert bench.account.calls.count(Step.CHECK_CREDENTIAL) == len(lengths)


@pytest.mark.full
async def test_an_operation_that_has_done_a_step_does_not_begin_anew(
    bench: Bench, short_histories: int
) -> None:
    del bench.account.refused[Step.REMOVE_SNAPSHOT]
    bench.account.refusals = 12
    handle = await bench.start(GoOn)
    await asyncio.wait_for(handle.result(), 60)
    assert bench.account.calls.count(Step.REMOVE_SNAPSHOT) == 1
    (length,) = await bench.runs(handle)
    assert length > 2 * short_histories


@pytest.mark.usefixtures("short_histories")
async def test_an_operation_that_has_begun_anew_can_be_cancelled(bench: Bench) -> None:
    bench.account.refusals = 10**6
    handle = await bench.start(UseCredential)
    # More than fit into one history.
    for _ in range(10):
        bench.account.parked.clear()
        await asyncio.wait_for(bench.account.parked.wait(), 60)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await asyncio.wait_for(handle.result(), 60)
    assert bench.account.ended == [OperationState.CANCELLED]
    assert len(await bench.runs(handle)) > 1


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
