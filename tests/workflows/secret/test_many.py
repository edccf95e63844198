"""Rotations end right whatever happens on the way, many at a time."""

import pytest

from tests.workflows.conftest import Injected
from tests.workflows.secret.many import rotate_many


async def _all_end_right(injected: Injected, runs: int) -> None:
    outcome = await rotate_many(injected.platform, injected.injector, runs)
    assert (outcome.stuck, outcome.dangling, outcome.wrong) == ([], 0, [])
    assert outcome.ends.total() == runs
    assert outcome.outages > 0


async def test_rotations_with_faults_at_random_end_done_or_undone(injected: Injected) -> None:
    await _all_end_right(injected, 10)


@pytest.mark.full
@pytest.mark.timeout(1200)
async def test_200_rotations_with_faults_at_random_end_done_or_undone(
    injected: Injected,
) -> None:
    await _all_end_right(injected, 200)
