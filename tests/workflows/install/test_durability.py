"""The three proofs for installs: all cases in full, a sample otherwise."""

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
from tests.workflows.install.scenarios import (
    CreatingInstall,
    DeletingInstall,
    InstallScenario,
    RestoringInstall,
    UpdatingInstall,
)
from tests.workflows.install.site import Site

Kind = type[InstallScenario]
ALL: list[Kind] = [CreatingInstall, UpdatingInstall, RestoringInstall, DeletingInstall]


def sample(scenario: InstallScenario) -> Iterable[Case]:
    """Choose a case anew in each run; pytest-randomly prints the seed that repeats the choice."""
    return [random.choice(list(cases_of(scenario)))]


async def test_running_every_activity_of_a_create_twice_changes_nothing(
    injected: Injected, site: Site
) -> None:
    await survives_repeats(CreatingInstall(site), injected.injector)


async def test_a_failure_at_a_sampled_step_of_an_update_is_undone(
    injected: Injected, site: Site
) -> None:
    scenario = UpdatingInstall(site)
    await unwinds_every_failure(scenario, injected.injector, sample(scenario))


async def test_a_cancel_at_a_sampled_step_of_a_create_is_undone(
    injected: Injected, site: Site
) -> None:
    scenario = CreatingInstall(site)
    await unwinds_every_cancellation(scenario, injected.injector, sample(scenario))


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ALL)
async def test_running_every_activity_twice_changes_nothing(
    kind: Kind, injected: Injected, site: Site
) -> None:
    await survives_repeats(kind(site), injected.injector)


@pytest.mark.full
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("kind", ALL)
async def test_a_failure_at_every_step_is_undone(
    kind: Kind, injected: Injected, site: Site
) -> None:
    scenario = kind(site)
    await unwinds_every_failure(scenario, injected.injector, cases_of(scenario))


@pytest.mark.full
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("kind", [CreatingInstall, UpdatingInstall, RestoringInstall])
async def test_a_cancel_at_every_step_is_undone(kind: Kind, injected: Injected, site: Site) -> None:
    scenario = kind(site)
    await unwinds_every_cancellation(scenario, injected.injector, cases_of(scenario))
