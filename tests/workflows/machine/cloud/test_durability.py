"""The three proofs for machines in a cloud: all cases in full, a sample otherwise."""

import random
from collections.abc import Iterable

import pytest

from tests.durability import (
    Case,
    cases_of,
    survives_repeats,
    unwinds_every_cancellation,
    unwinds_every_failure,
)
from tests.workflows.conftest import Injected
from tests.workflows.machine.cloud.customer import Customer
from tests.workflows.machine.cloud.scenarios import CloudScenario, Creating, Deleting


def sample(scenario: CloudScenario) -> Iterable[Case]:
    """Choose a case anew in each run; pytest-randomly prints the seed that repeats the choice."""
    return [random.choice(list(cases_of(scenario)))]


async def test_running_every_activity_of_a_delete_twice_changes_nothing(
    injected: Injected, customer: Customer
) -> None:
    await survives_repeats(Deleting(customer), injected.injector)


async def test_a_failure_at_a_sampled_step_of_a_create_is_undone(
    injected: Injected, customer: Customer
) -> None:
    scenario = Creating(customer)
    await unwinds_every_failure(scenario, injected.injector, sample(scenario))


async def test_a_cancel_at_a_sampled_step_of_a_create_is_undone(
    injected: Injected, customer: Customer
) -> None:
    scenario = Creating(customer)
    await unwinds_every_cancellation(scenario, injected.injector, sample(scenario))


@pytest.mark.full
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("kind", [Creating, Deleting])
async def test_a_failure_at_every_step_is_undone(
    kind: type[CloudScenario], injected: Injected, customer: Customer
) -> None:
    scenario = kind(customer)
    await unwinds_every_failure(scenario, injected.injector, cases_of(scenario))


@pytest.mark.full
@pytest.mark.timeout(2400)
async def test_a_cancel_at_every_step_is_undone(injected: Injected, customer: Customer) -> None:
    scenario = Creating(customer)
    await unwinds_every_cancellation(scenario, injected.injector, cases_of(scenario))
