"""A purge ends a secret for good, whatever fails on its way and whatever else works on it."""

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from uuid import uuid4

import pytest
from temporalio.client import WorkflowFailureError

from domain.errors import BulkheadError, Reason
from domain.names import CONTROL_TASK_QUEUE, purge_workflow_id_of
from domain.operation import OperationState, Step
from domain.secret import SecretState
from infra.database.records.secret import begin_purging, soft_delete
from infra.database.tables import SecretRow
from infra.secret_store.ledger import Ledger
from infra.temporal.purge import start_purge
from tests.durability import ENDS_WITHIN_SECONDS, Fault, Moment
from tests.platform import Platform
from tests.workflows.conftest import Injected
from tests.workflows.secret.scenarios import Draining, Rotating
from tests.workflows.secret.steering import until
from tests.workflows.stops import stopped
from workflows.secret.purge import PurgeSecrets

STEPS = ("end_secret_rotation", "purge_secret_values", "record_secret_purged")


@pytest.fixture
def scenarios(injected: Injected) -> Iterator[list[Rotating]]:
    """Close what a test makes, and disarm."""
    made: list[Rotating] = []
    yield made
    for scenario in made:
        scenario.close()
    injected.injector.fault, injected.injector.repeat = None, False


class Purged:
    """A secret that is to be purged."""

    def __init__(self, scenario: Rotating, workspace_id: str, secret_id: str) -> None:
        self.scenario, self.platform = scenario, scenario.platform
        self.workspace_id, self.secret_id = workspace_id, secret_id

    async def begin(self) -> None:
        """Put the row beyond recovery, as the API does."""
        async with self.platform.api.workspace(self.workspace_id) as session:
            assert await begin_purging(session, self.secret_id)

    async def start(self) -> None:
        await start_purge(self.platform.client, self.workspace_id, self.secret_id)

    async def row(self) -> SecretRow | None:
        async with self.platform.api.workspace(self.workspace_id) as session:
            return await session.get(SecretRow, (self.workspace_id, self.secret_id))

    async def verify(self) -> None:
        """Assert that soon nothing is left but the proof, and that once."""

        async def is_gone() -> bool:
            return await self.row() is None

        await until(is_gone)
        # Its workflow may have an attempt left, at which the next test's fault would strike.
        workflow_id = purge_workflow_id_of(self.secret_id)
        handle = self.platform.client.get_workflow_handle(workflow_id)
        with contextlib.suppress(WorkflowFailureError):
            await asyncio.wait_for(handle.result(), ENDS_WITHIN_SECONDS)
        with self.platform.servers.administrator() as administrator:
            ((version_ids,),) = administrator.execute(
                "SELECT version_ids FROM secret_tombstones WHERE secret_id = %s",
                (self.secret_id,),
            ).fetchall()
            purges = administrator.execute(
                "SELECT outcome FROM audit_events"
                " WHERE action = 'secret.purge' AND resource_id = %s",
                (self.secret_id,),
            ).fetchall()
        assert version_ids
        assert purges == [("succeeded",)]
        names = await asyncio.to_thread(self.scenario.values.names, self.workspace_id)
        assert self.secret_id.rsplit("_", 1)[1] not in {secret for secret, _ in names}
        ledger = Ledger(self.platform.servers.home / "tombstones.jsonl")
        assert ledger.entries()[self.secret_id].version_ids == version_ids


async def made(scenario: Rotating, scenarios: list[Rotating]) -> Purged:
    """Make a secret with a version."""
    scenarios.append(scenario)
    secret_id = await scenario.make()
    return Purged(scenario, (await scenario.caller()).workspace_id, secret_id)


async def run_schedule(platform: Platform) -> None:
    """Run one pass, as the schedule does."""
    handle = await platform.client.start_workflow(
        PurgeSecrets.run, id=f"pass-{uuid4().hex}", task_queue=CONTROL_TASK_QUEUE
    )
    await asyncio.wait_for(handle.result(), 60)


@pytest.mark.parametrize(("step", "moment"), [*itertools.product(STEPS, Moment)])
async def test_a_purge_that_fails_at_a_step_is_done_all_the_same(
    injected: Injected, scenarios: list[Rotating], step: str, moment: Moment
) -> None:
    async def fail() -> None:
        raise BulkheadError(Reason.DEPENDENCY_UNAVAILABLE, "planted")

    purged = await made(Rotating(injected.platform), scenarios)
    fault = injected.injector.fault = Fault("PurgeSecret", step, moment, fail)
    await purged.begin()
    await purged.start()
    await purged.start()
    await purged.verify()
    assert fault.struck


@pytest.mark.parametrize(("step", "moment"), [*itertools.product(STEPS, Moment)])
async def test_a_purge_that_is_cancelled_is_taken_up_by_the_schedule(
    injected: Injected, scenarios: list[Rotating], step: str, moment: Moment
) -> None:
    purged = await made(Rotating(injected.platform), scenarios)
    workflow_id = purge_workflow_id_of(purged.secret_id)
    handle = injected.platform.client.get_workflow_handle(workflow_id)
    fault = injected.injector.fault = Fault("PurgeSecret", step, moment, handle.cancel)
    await purged.begin()
    await purged.start()
    with contextlib.suppress(WorkflowFailureError):
        await asyncio.wait_for(handle.result(), ENDS_WITHIN_SECONDS)
    assert fault.struck
    await run_schedule(injected.platform)
    await purged.verify()


async def test_a_purge_whose_every_step_runs_twice_happens_once(
    injected: Injected, scenarios: list[Rotating]
) -> None:
    purged = await made(Rotating(injected.platform), scenarios)
    injected.injector.repeat = True
    await purged.begin()
    await purged.start()
    await purged.verify()


async def test_the_schedule_purges_what_is_due_and_takes_up_what_was_lost(
    injected: Injected, scenarios: list[Rotating]
) -> None:
    due, lost, kept = [await made(Rotating(injected.platform), scenarios) for _ in range(3)]
    for secret in (due, kept):
        async with secret.platform.api.workspace(secret.workspace_id) as session:
            row = await session.get_one(SecretRow, (secret.workspace_id, secret.secret_id))
            await soft_delete(session, row)
    with due.platform.servers.administrator() as administrator:
        administrator.execute(
            "UPDATE secrets SET purge_at = now() - interval '1 s' WHERE id = %s", (due.secret_id,)
        )
    async with stopped(injected.platform, await due.scenario.caller()):
        await run_schedule(injected.platform)
    row_of_due = await due.row()
    assert row_of_due is not None
    assert row_of_due.state is SecretState.SOFT_DELETED
    # As a process leaves it that dies after its commit.
    await lost.begin()
    await run_schedule(injected.platform)
    await run_schedule(injected.platform)
    await due.verify()
    await lost.verify()
    row_of_kept = await kept.row()
    assert row_of_kept is not None
    assert row_of_kept.state is SecretState.SOFT_DELETED


async def test_a_rotation_that_can_be_undone_is_undone_before_its_values_go(
    injected: Injected, scenarios: list[Rotating]
) -> None:
    scenario = Rotating(injected.platform)
    purged = await made(scenario, scenarios)
    is_there, goes_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        is_there.set()
        await goes_on.wait()

    injected.injector.fault = Fault("RotateSecret", Step.SET_VALUE, Moment.AFTER, hold)
    await scenario.plan(purged.secret_id)
    await scenario.start()
    await asyncio.wait_for(is_there.wait(), ENDS_WITHIN_SECONDS)
    await purged.begin()
    await purged.start()
    await asyncio.sleep(1)
    assert await purged.row() is not None
    goes_on.set()
    state = await scenario.end_of(scenario.operation.operation_id, ENDS_WITHIN_SECONDS)
    assert state is OperationState.CANCELLED
    await purged.verify()


async def test_a_rotation_that_only_goes_forward_waits_for_no_consumer_of_a_purged_secret(
    injected: Injected, scenarios: list[Rotating]
) -> None:
    scenario = Draining(injected.platform)
    scenario.grace_seconds = 3600
    purged = await made(scenario, scenarios)
    await scenario.plan(purged.secret_id)
    await scenario.add_consumer(acknowledges=True)
    await scenario.start()

    async def is_waiting() -> bool:
        return (await injected.platform.operation(scenario.operation)).waiting_for is not None

    await until(is_waiting)
    await purged.begin()
    await purged.start()
    state = await scenario.end_of(scenario.operation.operation_id, ENDS_WITHIN_SECONDS)
    assert state is OperationState.SUCCEEDED
    await purged.verify()


async def test_whoever_asks_temporal_for_a_purge_purges_nothing_that_is_not_to_be(
    injected: Injected, scenarios: list[Rotating]
) -> None:
    secret = await made(Rotating(injected.platform), scenarios)
    await secret.start()
    handle = injected.platform.client.get_workflow_handle(purge_workflow_id_of(secret.secret_id))
    with pytest.raises(WorkflowFailureError):
        await asyncio.wait_for(handle.result(), ENDS_WITHIN_SECONDS)
    row = await secret.row()
    assert row is not None
    assert row.state is SecretState.ACTIVE
