"""The three proofs for every workflow of a machine: all cases in full, a sample otherwise."""

import random
from collections.abc import Iterable

import pytest

from tests.durability import (
    Case,
    Scenario,
    cases_of,
    survives_repeats,
    unwinds_every_cancellation,
    unwinds_every_failure,
)
from tests.workflows.conftest import Injected
from tests.workflows.machine.fleet import Fleet
from tests.workflows.machine.scenarios import (
    Bootstrapping,
    Cordoning,
    DeletingMachine,
    MachineScenario,
    Repairing,
    RevokingBootstrap,
    Uncordoning,
)

Kind = type[MachineScenario | RevokingBootstrap]
CANCELLABLE: list[Kind] = [Bootstrapping, Cordoning, Uncordoning, Repairing]
ALL: list[Kind] = [*CANCELLABLE, DeletingMachine, RevokingBootstrap]
# Kinds and cases a run: each is a second or more, and all of them are in the slow matrix.
SAMPLED_KINDS = 2
SAMPLE = 1


def sample(scenario: Scenario) -> Iterable[Case]:
    """Choose cases anew in each run; pytest-randomly prints the seed that repeats the choice."""
    return random.sample(list(cases_of(scenario)), SAMPLE)


@pytest.mark.parametrize("kind", ALL)
async def test_running_every_activity_twice_changes_nothing(
    kind: Kind, injected: Injected, fleet: Fleet
) -> None:
    await survives_repeats(kind(fleet), injected.injector)


async def test_a_failure_at_a_sampled_step_is_undone(injected: Injected, fleet: Fleet) -> None:
    for kind in random.sample(ALL, SAMPLED_KINDS):
        scenario = kind(fleet)
        await unwinds_every_failure(scenario, injected.injector, sample(scenario))


async def test_a_cancel_at_a_sampled_step_is_undone(injected: Injected, fleet: Fleet) -> None:
    for kind in random.sample(CANCELLABLE, SAMPLED_KINDS):
        scenario = kind(fleet)
        await unwinds_every_cancellation(scenario, injected.injector, sample(scenario))


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ALL)
async def test_a_failure_at_every_step_is_undone(
    kind: Kind, injected: Injected, fleet: Fleet
) -> None:
    scenario = kind(fleet)
    await unwinds_every_failure(scenario, injected.injector, cases_of(scenario))


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", CANCELLABLE)
async def test_a_cancel_at_every_step_is_undone(
    kind: Kind, injected: Injected, fleet: Fleet
) -> None:
    scenario = kind(fleet)
    await unwinds_every_cancellation(scenario, injected.injector, cases_of(scenario))
