"""A worker is killed in the middle of a rotation; the next one finishes it, once."""

import random
from uuid import uuid4

import pytest

from domain.operation import OPERATIONS, OperationState, OperationType
from tests.durability import Case, Moment
from tests.workflows.conftest import Injected
from tests.workflows.dying_worker import end_despite_a_kill
from tests.workflows.secret.scenarios import RotatingToken

CASES: list[Case] = [
    (step, moment) for step in OPERATIONS[OperationType.SECRET_ROTATE].steps for moment in Moment
]


async def _completes_although_the_worker_is_killed(injected: Injected, case: Case) -> None:
    scenario = RotatingToken(injected.platform)
    try:
        operation = await scenario.plan(await scenario.make())
        queue = f"dying-{uuid4().hex}"
        state = await end_despite_a_kill(
            injected.platform, OperationType.SECRET_ROTATE, operation, queue, case
        )
        assert state is OperationState.SUCCEEDED, case
        await scenario.verify_done()
    finally:
        scenario.close()


async def test_a_rotation_completes_although_its_worker_is_killed(injected: Injected) -> None:
    await _completes_although_the_worker_is_killed(injected, random.choice(CASES))


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[1]}")
async def test_a_rotation_completes_although_its_worker_is_killed_at_every_step(
    injected: Injected, case: Case
) -> None:
    await _completes_although_the_worker_is_killed(injected, case)
