"""The three proofs that every workflow passes: repeats, failures and cancels at each step.

A `Scenario` says how to ask for an operation and what must be true afterwards; the proofs run it
against real servers once for each step and moment, with a `FaultInjector` inside the worker's own
interceptors, so that an injected failure is typed, recorded and unwound like a real one.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from pydantic import BaseModel
from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from domain.errors import BulkheadError, Reason
from domain.names import operation_id_of
from domain.operation import OperationState


class Moment(StrEnum):
    """When a fault strikes, seen from the step's effect."""

    BEFORE = "before its effect"
    AFTER = "after its effect, before its result is recorded"


@dataclass
class Fault:
    """One fault at one step of one kind of workflow; it strikes once.

    With an operation's id only that one's workflow is meant, whatever else runs at the same time.
    """

    workflow: str
    step: str
    moment: Moment
    strike: Callable[[], Awaitable[None]]
    operation_id: str | None = None
    struck: bool = False

    def is_meant(self, workflow_id: str | None) -> bool:
        """Tell whether a workflow of the kind is the one."""
        return self.operation_id in {None, operation_id_of(workflow_id or "")}


class Death(BaseModel):
    """When a worker in a process of its own dies."""

    workflow: str
    step: str
    moment: Moment


class FaultInjector(Interceptor):
    """Strikes at the armed step, or runs every activity twice."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        # Strikes besides, at every step and moment.
        self.besides: Callable[[Moment], Awaitable[None]] | None = None
        self.repeat = False
        self.executions: Counter[str] = Counter()

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 - the SDK's name
        return _Inbound(next, self)

    async def at(self, step: str, moment: Moment) -> None:
        """Strike when the armed step is at the armed moment."""
        if self.besides is not None:
            await self.besides(moment)
        fault = self.fault
        info = activity.info()
        here = (info.workflow_type, step, moment)
        if fault is None or fault.struck or (fault.workflow, fault.step, fault.moment) != here:
            return
        if not fault.is_meant(info.workflow_id):
            return
        fault.struck = True
        await fault.strike()


class _Inbound(ActivityInboundInterceptor):
    def __init__(self, following: ActivityInboundInterceptor, injector: FaultInjector) -> None:
        super().__init__(following)
        self._injector = injector

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002, ANN401 - the SDK's signature
        step = activity.info().activity_id
        self._injector.executions[step] += 1
        await self._injector.at(step, Moment.BEFORE)
        if self._injector.repeat:
            # The SDK wraps the heartbeat of a plain function each time it runs one; wrapped twice,
            # it would wait for the loop from within the loop.
            context = activity._Context.current()  # noqa: SLF001 - nothing public puts it back
            heartbeat = context.heartbeat
            await super().execute_activity(input)
            context.heartbeat = heartbeat
        result = await super().execute_activity(input)
        await self._injector.at(step, Moment.AFTER)
        return result


class Scenario(Protocol):
    """One kind of operation on real servers."""

    workflow: str
    steps: Sequence[str]
    forward_only: bool

    async def request(self) -> str:
        """Bring about the state before, ask for the operation, and return its id."""

    async def cancel(self, operation_id: str) -> None:
        """Ask the operation to stop, as the API does."""

    async def end_of(self, operation_id: str, within_seconds: float) -> OperationState:
        """Wait for the operation's end and return its state."""

    async def verify_done(self) -> None:
        """Assert that the operation's effect is there, exactly once."""

    async def verify_undone(self) -> None:
        """Assert that everything is as it was before the request."""

    async def clean_up(self) -> None:
        """Remove what the scenario made, whatever its state."""


# Promised to whoever cancels: the undo of a half-started control plane, etcd's 8 s included.
CANCELS_WITHIN_SECONDS = 45.0
ENDS_WITHIN_SECONDS = 120.0

Case = tuple[str, Moment]


def cases_of(scenario: Scenario) -> Iterable[Case]:
    """Return each step with each moment."""
    return [(step, moment) for step in scenario.steps for moment in Moment]


async def survives_repeats(scenario: Scenario, injector: FaultInjector) -> None:
    """Run every activity twice: the result is the same, and nothing exists twice."""
    injector.repeat = True
    try:
        operation = await scenario.request()
        assert await scenario.end_of(operation, ENDS_WITHIN_SECONDS) is OperationState.SUCCEEDED
        await scenario.verify_done()
    finally:
        injector.repeat = False
        await scenario.clean_up()


async def unwinds_every_failure(
    scenario: Scenario, injector: FaultInjector, cases: Iterable[Case]
) -> None:
    """Fail each step at each moment: all is undone, or a forward-only operation still ends."""
    for step, moment in cases:

        async def fail(step: str = step) -> None:
            reason = Reason.DEPENDENCY_UNAVAILABLE if scenario.forward_only else Reason.CONFLICT
            raise BulkheadError(reason, f"planted at {step}")

        fault = injector.fault = Fault(scenario.workflow, step, moment, fail)
        try:
            operation = await scenario.request()
            state = await scenario.end_of(operation, ENDS_WITHIN_SECONDS)
            assert fault.struck, f"the fault at {step} never struck"
            if scenario.forward_only:
                assert state is OperationState.SUCCEEDED, f"{step} failed {moment}"
                await scenario.verify_done()
            else:
                assert state is OperationState.FAILED, f"{step} failed {moment}"
                await scenario.verify_undone()
        finally:
            injector.fault = None
            await scenario.clean_up()


async def unwinds_every_cancellation(
    scenario: Scenario, injector: FaultInjector, cases: Iterable[Case]
) -> None:
    """Cancel at each step and moment: it ends CANCELLED in time, with nothing left."""
    for step, moment in cases:
        asked: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def cancel(asked: asyncio.Future[str] = asked) -> None:
            await scenario.cancel(await asked)

        fault = injector.fault = Fault(scenario.workflow, step, moment, cancel)
        try:
            operation = await scenario.request()
            asked.set_result(operation)
            state = await scenario.end_of(operation, CANCELS_WITHIN_SECONDS)
            assert fault.struck, f"the cancel at {step} never came"
            assert state is OperationState.CANCELLED, f"{step} cancelled {moment}"
            await scenario.verify_undone()
        finally:
            injector.fault = None
            await scenario.clean_up()
