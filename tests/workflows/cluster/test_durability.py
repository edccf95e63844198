"""The three proofs for every workflow of a cluster: all cases in full, a sample otherwise."""

import asyncio
import random
from collections.abc import Iterable

import pytest

from tests.durability import (
    Case,
    Fault,
    Moment,
    Scenario,
    cases_of,
    survives_repeats,
    unwinds_every_cancellation,
    unwinds_every_failure,
)
from tests.platform import Requested
from tests.workflows.cluster.scenarios import (
    ClusterScenario,
    Creating,
    Deleting,
    Renewing,
    Resuming,
    Suspending,
)
from tests.workflows.conftest import Injected

ALL = [Creating, Deleting, Suspending, Resuming, Renewing]
CANCELLABLE = [Creating, Suspending, Resuming, Renewing]

SAMPLE = 1


def sample(scenario: Scenario) -> Iterable[Case]:
    """Choose cases anew in each run; pytest-randomly prints the seed that repeats the choice."""
    cases = list(cases_of(scenario))
    return random.sample(cases, min(SAMPLE, len(cases)))


@pytest.mark.parametrize("kind", ALL)
async def test_running_every_activity_twice_changes_nothing(
    kind: type[ClusterScenario], injected: Injected
) -> None:
    await survives_repeats(kind(injected.platform), injected.injector)


@pytest.mark.parametrize("kind", ALL)
async def test_a_failure_at_a_sampled_step_is_undone(
    kind: type[ClusterScenario], injected: Injected
) -> None:
    scenario = kind(injected.platform)
    await unwinds_every_failure(scenario, injected.injector, sample(scenario))


@pytest.mark.parametrize("kind", CANCELLABLE)
async def test_a_cancel_at_a_sampled_step_is_undone(
    kind: type[ClusterScenario], injected: Injected
) -> None:
    scenario = kind(injected.platform)
    await unwinds_every_cancellation(scenario, injected.injector, sample(scenario))


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ALL)
async def test_a_failure_at_every_step_is_undone(
    kind: type[ClusterScenario], injected: Injected
) -> None:
    scenario = kind(injected.platform)
    await unwinds_every_failure(scenario, injected.injector, cases_of(scenario))


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", CANCELLABLE)
async def test_a_cancel_at_every_step_is_undone(
    kind: type[ClusterScenario], injected: Injected
) -> None:
    scenario = kind(injected.platform)
    await unwinds_every_cancellation(scenario, injected.injector, cases_of(scenario))


async def test_a_cancel_of_a_delete_after_its_first_effect_is_refused(injected: Injected) -> None:
    scenario = Deleting(injected.platform)
    try:
        accepted = await _cancel_during_second_step(scenario, injected)
        assert not accepted
        await scenario.verify_done()
    finally:
        injected.injector.fault = None
        await scenario.clean_up()


async def _cancel_during_second_step(scenario: ClusterScenario, injected: Injected) -> bool:
    asked: asyncio.Future[Requested] = asyncio.get_running_loop().create_future()
    answers: list[bool] = []

    async def cancel() -> None:
        answers.append(await injected.platform.cancel(await asked))

    injected.injector.fault = Fault(scenario.workflow, scenario.steps[1], Moment.BEFORE, cancel)
    operation = await scenario.request()
    assert scenario.requested is not None
    asked.set_result(scenario.requested)
    await scenario.end_of(operation, 120)
    return answers[0]
