"""A worker is killed in the middle of a rotation; the next one finishes it, once."""

import asyncio
import random
import signal
from uuid import uuid4

import pytest

from domain.names import workflow_id_of
from domain.operation import OPERATIONS, OperationState, OperationType
from tests.durability import ENDS_WITHIN_SECONDS, Case, Moment
from tests.workflows.conftest import Injected
from tests.workflows.secret.dying_worker import dying_worker
from tests.workflows.secret.scenarios import RotatingToken

CASES: list[Case] = [
    (step, moment) for step in OPERATIONS[OperationType.SECRET_ROTATE].steps for moment in Moment
]


async def _completes_although_the_worker_is_killed(injected: Injected, case: Case) -> None:
    platform, queue = injected.platform, f"dying-{uuid4().hex}"
    scenario = RotatingToken(platform)
    try:
        operation = await scenario.plan(await scenario.make())
        await platform.client.start_workflow(
            scenario.workflow,
            operation,
            id=workflow_id_of(scenario.operation_type, scenario.owner_id, operation.operation_id),
            task_queue=queue,
        )
        with dying_worker(platform.servers, queue, *case) as dying:
            assert await asyncio.to_thread(dying.wait, 60) == -signal.SIGKILL
        with dying_worker(platform.servers, queue):
            state = await scenario.end_of(operation.operation_id, ENDS_WITHIN_SECONDS)
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
