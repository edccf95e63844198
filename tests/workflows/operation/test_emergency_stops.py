"""An emergency stop in the middle of operations: nothing begins, and nothing is repeated after."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from temporalio import activity

from domain.operation import (
    BOOKKEEPING_PREFIX,
    UNDO_PREFIX,
    WAITING_FOR_EMERGENCY_STOP,
    OperationState,
    Step,
)
from tests.durability import ENDS_WITHIN_SECONDS, Fault, Moment
from tests.platform import Platform, Requested
from tests.workflows.cluster.scenarios import ClusterScenario, Creating, Deleting
from tests.workflows.conftest import Injected
from tests.workflows.stops import lift, stop

_HELD_SECONDS = 2.5


@dataclass
class Begun:
    """Which steps of a workflow begin, and when; told by the worker's fault injector."""

    workflow: str
    at: list[tuple[str, float]] = field(default_factory=list)

    async def __call__(self, moment: Moment) -> None:
        info = activity.info()
        # What other tests left, or the clock starts, is none of it.
        counts = info.workflow_type == self.workflow and moment is Moment.BEFORE
        if counts and not info.activity_id.startswith(BOOKKEEPING_PREFIX):
            self.at.append((info.activity_id, time.monotonic()))

    def names(self) -> list[str]:
        return [step for step, _ in self.at]


@dataclass
class Stopped:
    """An operation that a stop caught in the middle of a step."""

    scenario: ClusterScenario
    begun: Begun
    stopped_at: float

    async def lift(self) -> None:
        caller = await self.scenario.caller()
        lift(self.scenario.platform, caller)

    async def end(self) -> OperationState:
        assert self.scenario.requested is not None
        return await self.scenario.platform.end_of(self.scenario.requested, ENDS_WITHIN_SECONDS)

    def begun_after(self, seconds: float) -> list[str]:
        return [step for step, at in self.begun.at if at > self.stopped_at + seconds]


@contextlib.asynccontextmanager
async def stopped_in(
    injected: Injected, scenario: ClusterScenario, step: Step
) -> AsyncIterator[Stopped]:
    """Have a stop come while a step is at work, and wait until the operation says so."""
    platform, injector = injected.platform, injected.injector
    found = Stopped(scenario, Begun(scenario.workflow), 0.0)

    async def strike() -> None:
        await stop(platform, await scenario.caller())
        found.stopped_at = time.monotonic()

    await scenario.caller()
    injector.fault = Fault(scenario.workflow, step, Moment.BEFORE, strike)
    injector.besides = found.begun
    try:
        await scenario.request()
        assert scenario.requested is not None
        await _held(platform, scenario.requested)
        yield found
    finally:
        injector.fault = injector.besides = None
        await found.lift()
        await scenario.clean_up()


async def test_a_stopped_create_begins_nothing_within_a_second_and_resumes_without_repeats(
    injected: Injected,
) -> None:
    scenario = Creating(injected.platform)
    async with stopped_in(injected, scenario, Step.ENSURE_AUTHORITIES) as stopped:
        await asyncio.sleep(_HELD_SECONDS)
        assert stopped.begun_after(1) == []
        assert stopped.begun.names() == [Step.ENSURE_SECRET_SPACE, Step.ENSURE_AUTHORITIES]
        await stopped.lift()
        assert await stopped.end() is OperationState.SUCCEEDED
        assert stopped.begun.names() == list(scenario.steps)
        await scenario.verify_done()
        assert scenario.requested is not None
        operation = await injected.platform.operation(scenario.requested)
        assert (operation.waiting_for, operation.last_error) == (None, None)
        steps = await injected.platform.steps(scenario.requested)
        assert {step.attempt for step in steps} == {1}


async def test_a_cancel_ends_the_wait_and_what_was_made_is_taken_back_after_the_stop(
    injected: Injected,
) -> None:
    scenario = Creating(injected.platform)
    async with stopped_in(injected, scenario, Step.ENSURE_AUTHORITIES) as stopped:
        assert scenario.requested is not None
        assert await injected.platform.cancel(scenario.requested)
        await asyncio.sleep(_HELD_SECONDS)
        assert stopped.begun_after(1) == []
        await stopped.lift()
        assert await stopped.end() is OperationState.CANCELLED
        forward = [name for name in stopped.begun.names() if not name.startswith(UNDO_PREFIX)]
        assert forward == [Step.ENSURE_SECRET_SPACE, Step.ENSURE_AUTHORITIES]
        await scenario.verify_undone()


@pytest.mark.full
async def test_a_stopped_delete_goes_on_where_it_was(injected: Injected) -> None:
    scenario = Deleting(injected.platform)
    async with stopped_in(injected, scenario, Step.STOP_COMPONENTS) as stopped:
        await asyncio.sleep(_HELD_SECONDS)
        assert stopped.begun_after(1) == []
        await stopped.lift()
        assert await stopped.end() is OperationState.SUCCEEDED
        deleting = stopped.begun.names()[-len(scenario.steps) :]
        assert deleting == list(scenario.steps)
        await scenario.verify_done()


async def _held(platform: Platform, requested: Requested) -> None:
    async with asyncio.timeout(ENDS_WITHIN_SECONDS):
        while True:
            if (await platform.operation(requested)).waiting_for == WAITING_FOR_EMERGENCY_STOP:
                return
            await asyncio.sleep(0.05)
