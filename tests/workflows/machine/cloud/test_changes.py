"""The three proofs for what is done to machines in a cloud, and for pools: in full, or a sample."""

import random
from collections.abc import Iterable

import pytest

from domain.names import CONTROL_TASK_QUEUE, abandon_workflow_id_of
from domain.operation import OperationState
from domain.owned_operation import TypedOperation
from tests.durability import (
    ENDS_WITHIN_SECONDS,
    Case,
    Scenario,
    cases_of,
    unwinds_every_cancellation,
    unwinds_every_failure,
)
from tests.workflows.conftest import Injected
from tests.workflows.machine.cloud.customer import Customer
from tests.workflows.machine.cloud.groups import (
    CreatingClusterWithPool,
    CreatingPool,
    Replacing,
    Retiring,
)
from tests.workflows.machine.cloud.scenarios import CloudScenario
from tests.workflows.machine.cloud.sleeping import (
    FallingAsleep,
    Resuming,
    SleepScenario,
    Suspending,
    WakingUp,
)
from workflows.operation.abandon import AbandonOperation

Kind = type[CloudScenario | CreatingPool]
CANCELLABLE: list[Kind] = [
    Suspending,
    Resuming,
    Replacing,
    CreatingPool,
    CreatingClusterWithPool,
]
ALL: list[Kind] = [*CANCELLABLE, FallingAsleep, WakingUp, Retiring]


def sample(scenario: Scenario) -> Iterable[Case]:
    """Choose a case anew in each run; pytest-randomly prints the seed that repeats the choice."""
    return [random.choice(list(cases_of(scenario)))]


async def succeed(scenario: CloudScenario | CreatingPool, injected: Injected) -> None:
    """Run an operation with each of its activities twice; what it begins with is made once."""
    operation_id = await scenario.plan()
    injected.injector.repeat = True
    try:
        await scenario.begin()
        state = await scenario.end_of(operation_id, ENDS_WITHIN_SECONDS)
    finally:
        injected.injector.repeat = False
    assert state is OperationState.SUCCEEDED
    await scenario.verify_done()


async def test_a_machine_sleeps_and_wakes_though_every_activity_runs_twice(
    injected: Injected, customer: Customer
) -> None:
    suspending, resuming = Suspending(customer), Resuming(customer)
    await succeed(suspending, injected)
    resuming.machine_id = suspending.machine_id
    await succeed(resuming, injected)
    await resuming.clean_up()


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", [Replacing, CreatingPool, CreatingClusterWithPool])
async def test_machines_come_and_go_though_every_activity_runs_twice(
    kind: Kind, injected: Injected, customer: Customer
) -> None:
    scenario = kind(customer)
    await succeed(scenario, injected)
    await scenario.clean_up()


async def test_a_failure_at_a_sampled_step_is_undone_or_overcome(
    injected: Injected, customer: Customer
) -> None:
    scenario = random.choice(ALL)(customer)
    await unwinds_every_failure(scenario, injected.injector, sample(scenario))


async def test_a_cancel_at_a_sampled_step_is_undone(injected: Injected, customer: Customer) -> None:
    scenario = random.choice(CANCELLABLE)(customer)
    await unwinds_every_cancellation(scenario, injected.injector, sample(scenario))


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ALL)
async def test_a_failure_at_every_step_is_undone_or_overcome(
    kind: Kind, injected: Injected, customer: Customer
) -> None:
    scenario = kind(customer)
    await unwinds_every_failure(scenario, injected.injector, cases_of(scenario))


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", CANCELLABLE)
async def test_a_cancel_at_every_step_is_undone(
    kind: Kind, injected: Injected, customer: Customer
) -> None:
    scenario = kind(customer)
    await unwinds_every_cancellation(scenario, injected.injector, cases_of(scenario))


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", CANCELLABLE)
async def test_an_operation_whose_workflow_was_lost_is_taken_back(
    kind: Kind, customer: Customer
) -> None:
    scenario = kind(customer)
    try:
        operation_id = await scenario.plan()
        typed = TypedOperation(type=scenario.operation_type, operation=scenario.operation)
        await customer.fleet.platform.client.execute_workflow(
            AbandonOperation.run,
            typed,
            id=abandon_workflow_id_of(typed.type, scenario.owner_id, operation_id),
            task_queue=CONTROL_TASK_QUEUE,
        )
        assert await scenario.end_of(operation_id, 1) is OperationState.FAILED
        await scenario.verify_undone()
        if isinstance(scenario, SleepScenario):
            await scenario.verify_looked_at()
    finally:
        await scenario.clean_up()
