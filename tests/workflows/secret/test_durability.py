"""The three proofs for rotations: all cases in full, a sample otherwise."""

import random
from collections.abc import Iterable, Iterator

import pytest

from tests.durability import (
    Case,
    Moment,
    Scenario,
    cases_of,
    survives_repeats,
    unwinds_every_cancellation,
    unwinds_every_failure,
)
from tests.workflows.conftest import Injected
from tests.workflows.secret.alternating import AlternatingLogin
from tests.workflows.secret.scenarios import (
    Finishing,
    FinishingToken,
    Rotating,
    RotatingLogin,
    RotatingToken,
)

CANCELLABLE = [Rotating, RotatingToken, RotatingLogin, AlternatingLogin]
ALL = [*CANCELLABLE, Finishing, FinishingToken]
SAMPLE = 3


@pytest.fixture
def scenario(request: pytest.FixtureRequest, injected: Injected) -> Iterator[Rotating]:
    made: Rotating = request.param(injected.platform)
    yield made
    made.close()


def cancellable_cases_of(scenario: Rotating) -> list[Case]:
    """Return the cases before the finish, and the moment just before it takes effect."""
    return [*cases_of(scenario), (Finishing.steps[0], Moment.BEFORE)]


def sample(cases: Iterable[Case]) -> Iterable[Case]:
    """Choose cases anew in each run; pytest-randomly prints the seed that repeats the choice."""
    return random.sample(list(cases), SAMPLE)


@pytest.mark.parametrize("scenario", CANCELLABLE, indirect=True)
async def test_running_every_activity_twice_changes_nothing(
    scenario: Scenario, injected: Injected
) -> None:
    await survives_repeats(scenario, injected.injector)


@pytest.mark.parametrize("scenario", ALL, indirect=True)
async def test_a_failure_at_a_sampled_step_is_undone_or_overcome(
    scenario: Scenario, injected: Injected
) -> None:
    await unwinds_every_failure(scenario, injected.injector, sample(cases_of(scenario)))


@pytest.mark.parametrize("scenario", CANCELLABLE, indirect=True)
async def test_a_cancel_at_a_sampled_step_is_undone(scenario: Rotating, injected: Injected) -> None:
    cases = sample(cancellable_cases_of(scenario))
    await unwinds_every_cancellation(scenario, injected.injector, cases)


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", ALL, indirect=True)
async def test_a_failure_at_every_step_is_undone_or_overcome(
    scenario: Scenario, injected: Injected
) -> None:
    await unwinds_every_failure(scenario, injected.injector, cases_of(scenario))


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", CANCELLABLE, indirect=True)
async def test_a_cancel_at_every_step_is_undone(scenario: Rotating, injected: Injected) -> None:
    cases = cancellable_cases_of(scenario)
    await unwinds_every_cancellation(scenario, injected.injector, cases)
