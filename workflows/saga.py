"""One operation as a list of steps: undone in reverse when it fails or is cancelled.

`async with Saga(operation) as saga` runs the steps. When one fails, or a cancel arrives, the
undos run in reverse, shielded from further cancels, and the operation's rows are closed. Once
`saga.forward_only()` has been called there is no way back: steps are then tried until they
succeed, and a cancel that still arrives is not heeded.

A step or undo that an emergency stop holds has not begun: it is run when the stop is lifted, with
all of its time and attempts. A cancel ends that wait; the undos then wait for the same, but for
those of a person's cancel under a stop of another workspace's product (`stop_of_operation`).

Temporal ends a workflow whose history is too long. One that waits for another value of a secret, or
for the cause of a permanent failure to be mended, begins anew with an empty history instead, where
to run its steps again from the first one is the same as to go on.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self, overload

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception

from activities.holds import HELD, Held, HoldActivities
from activities.records import EndOperation, RecordActivities
from domain.names import is_undo, task_queue_of_host
from domain.operation import BOOKKEEPING_PREFIX, UNDO_PREFIX, Step
from domain.owned_operation import (
    ClusterOperation,
    InstallOperation,
    MachineOperation,
    MachinePoolOperation,
    OwnedOperation,
)
from workflows.calls import Activity, Argument, Result, execute, execute_here_first
from workflows.failures import end_of, facts_of, failure_in, reason_of
from workflows.parking import Parking
from workflows.pauses import begin_anew_if_long, longer
from workflows.policies import (
    BOOKKEEPING,
    DOUBLED_UP_TO,
    PAUSE_AFTER_PERMANENT_ERROR,
    WHILE_HELD,
    Policy,
)


class Saga:
    """Runs the steps of one operation. See the module.

    Args:
        operation: which.
        forward_only: it is past its point of no return.
        parking: where steps, and their undos, wait for another value of a secret when that may
            help them; None: they fail.
        repeats: what the workflow was given, when all of its steps may be run again from the first
            one whenever it waits. With `parking` that is so until the first step has ended.
        ends_here: its success is written in the workflow's own task, see `execute_here_first`.
    """

    def __init__(
        self,
        operation: OwnedOperation,
        *,
        forward_only: bool = False,
        parking: Parking | None = None,
        repeats: object | None = None,
        ends_here: bool = False,
    ) -> None:
        self._operation = operation
        self._ends_here = ends_here
        self._repeats = repeats
        self._untouched: object | None = operation
        self._undos: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._forward_only = forward_only
        self._parking = parking

    async def __aenter__(self) -> Self:
        """Start with nothing to undo."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Unwind after a failure or a cancel; let everything else, such as an eviction, pass."""
        if error is None or not (isinstance(error, FailureError) or is_cancelled_exception(error)):
            return
        await _in_spite_of_cancels(self._unwind(error, cancelled=_cancel_arrived()))

    @overload
    async def step(
        self,
        step: Step,
        activity: Callable[[Any, Argument], Coroutine[Any, Any, Result]],
        argument: Argument,
        policy: Policy,
        *,
        on_host: bool = False,
        queue: str | None = None,
        undo: Activity[Argument] | None = None,
    ) -> Result: ...

    @overload
    async def step(
        self,
        step: Step,
        activity: Callable[[Any, Argument], Result],
        argument: Argument,
        policy: Policy,
        *,
        on_host: bool = False,
        queue: str | None = None,
        undo: Activity[Argument] | None = None,
    ) -> Result: ...

    async def step(
        self,
        step: Step,
        activity: Activity[Argument],
        argument: Argument,
        policy: Policy,
        *,
        on_host: bool = False,
        queue: str | None = None,
        undo: Activity[Argument] | None = None,
    ) -> Any:
        """Run one step, with its undo registered first.

        Args:
            step: its name, which is also the activity's id.
            activity: what to run.
            argument: its input; the undo gets the same.
            policy: how long it may take.
            on_host: run it on the queue of the cluster's control-plane host.
            queue: run it on this queue.
            undo: takes the step back, also when it was half done or never began.

        Raises:
            ActivityError: the step failed for good.
            CancelledError: the operation was cancelled.
        """
        if undo is not None:
            self.undo_later(step, undo, argument, policy, on_host=on_host, queue=queue)
        queue = self._queue_of_host() if on_host else queue
        if self._forward_only:
            return await _in_spite_of_cancels(
                self._until_done(step, activity, argument, policy, queue)
            )
        result = await self._unless_parked(
            step, activity, argument, policy, queue, cancelled=_cancel_arrived
        )
        self._untouched = None
        # A cancel that arrives while an activity finishes is swallowed by its result.
        if _cancel_arrived():
            raise asyncio.CancelledError
        return result

    async def step_of_no_return(
        self,
        step: Step,
        activity: Activity[Argument],
        argument: Argument,
        policy: Policy,
        *,
        took_effect: Callable[[Any, Argument], Coroutine[Any, Any, bool]],
    ) -> None:
        """Run the step that makes the operation uncancellable in the transaction of its effect.

        A cancel does not interrupt it: afterwards nobody would know on which side it stands.

        Args:
            step: its name, which is also the activity's id.
            activity: what to run; of reason ABORTED when a cancel was asked for before.
            argument: its input, and that of `took_effect`.
            policy: how long it may take.
            took_effect: reads whether it took effect, after a failure that may be of the report
                alone.

        Raises:
            ActivityError: the step failed for good, without an effect.
        """
        self._untouched = None
        try:
            await _in_spite_of_cancels(self._unless_held(step, activity, argument, policy, None))
        except ActivityError:
            if not await self.record(step, took_effect, argument):
                raise
        self._forward_only = True

    async def record(
        self,
        name: str,
        activity: Callable[[Any, Argument], Coroutine[Any, Any, Result]],
        argument: Argument,
    ) -> Result:
        """Read or write rows, as nothing that a person sees among the steps."""
        result: Result = await _in_spite_of_cancels(
            execute(BOOKKEEPING_PREFIX + name, activity, argument, BOOKKEEPING, None)
        )
        return result

    async def wait(self, condition: Callable[[], bool], *, at_most: timedelta) -> None:
        """Wait for a condition of the workflow's own state, in spite of cancels."""

        async def until() -> None:
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(condition, timeout=at_most)

        await _in_spite_of_cancels(until())

    def undo_later(
        self,
        step: Step,
        activity: Activity[Argument],
        argument: Argument,
        policy: Policy,
        *,
        on_host: bool = False,
        queue: str | None = None,
    ) -> None:
        """Register the undo of a step that may run more than once, before its first run."""
        self._undos.append(
            partial(self.undo, step, activity, argument, policy, on_host=on_host, queue=queue)
        )

    async def undo(
        self,
        step: Step,
        activity: Activity[Argument],
        argument: Argument,
        policy: Policy,
        *,
        on_host: bool = False,
        queue: str | None = None,
    ) -> None:
        """Take a step back, until that is done."""
        queue = self._queue_of_host() if on_host else queue
        await _in_spite_of_cancels(
            self._until_done(UNDO_PREFIX + step, activity, argument, policy, queue)
        )

    async def forward_only(self) -> None:
        """Pass the point of no return, unless a cancel was asked for before.

        Raises:
            ActivityError: of reason ABORTED when a cancel was asked for.
        """
        await execute(
            BOOKKEEPING_PREFIX + "point_of_no_return",
            RecordActivities.record_point_of_no_return,
            self._operation,
            BOOKKEEPING,
            None,
        )
        self._forward_only = True

    async def succeed(
        self, record: Callable[[Any, Argument], Coroutine[Any, Any, None]], argument: Argument
    ) -> None:
        """Write what was reached and the operation's end, in one transaction.

        A cancel no longer reaches it: half-heeded, it would undo what is recorded as reached.
        """
        if self._ends_here:
            name = BOOKKEEPING_PREFIX + "success"
            await _in_spite_of_cancels(execute_here_first(name, record, argument, BOOKKEEPING))
        else:
            await self.record("success", record, argument)

    def _queue_of_host(self) -> str:
        # Only these have a host.
        assert isinstance(  # noqa: S101
            self._operation,
            ClusterOperation | InstallOperation | MachineOperation | MachinePoolOperation,
        )
        return task_queue_of_host(self._operation.control_plane.host)

    async def _unwind(self, error: BaseException, *, cancelled: bool) -> None:
        # To begin anew would be to go forward again.
        self._repeats = self._untouched = None
        for undo in reversed(self._undos):
            await undo()
        state, reason, message = end_of(asyncio.CancelledError() if cancelled else error)
        end = EndOperation(operation=self._operation, state=state, reason=reason, message=message)
        await self._until_done(
            BOOKKEEPING_PREFIX + "end", RecordActivities.record_end, end, BOOKKEEPING, None
        )

    async def _until_done(
        self,
        activity_id: str,
        activity: Activity[Argument],
        argument: Argument,
        policy: Policy,
        queue: str | None,
    ) -> Any:  # noqa: ANN401 - the overloads of `step` say which
        pause = PAUSE_AFTER_PERMANENT_ERROR
        endless = Policy(policy.attempt, None, policy.retry)
        while True:
            try:
                return await self._unless_parked(activity_id, activity, argument, endless, queue)
            except ActivityError:
                begin_anew_if_long(self._repeats)
                await workflow.sleep(pause)
                pause = longer(pause, doubled_up_to=DOUBLED_UP_TO)

    async def _unless_parked(
        self,
        activity_id: str,
        activity: Activity[Argument],
        argument: Argument,
        policy: Policy,
        queue: str | None,
        *,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Any:  # noqa: ANN401 - the overloads of `step` say which
        """Run an activity; again with another value of a secret each time that it waits for one."""
        while True:
            try:
                return await self._unless_held(
                    activity_id, activity, argument, policy, queue, cancelled=cancelled
                )
            except ActivityError as error:
                metadata = facts_of(error)
                if self._parking is None or not self._parking.helps(
                    self._operation, reason_of(error), metadata
                ):
                    raise
                refused = metadata.get("version_id")
            if not cancelled():
                begin_anew_if_long(self._repeats or self._untouched)
            await self._parking.wait(self._operation, refused, self.record, cancelled)

    async def _unless_held(
        self,
        activity_id: str,
        activity: Activity[Argument],
        argument: Argument,
        policy: Policy,
        queue: str | None,
        *,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Any:  # noqa: ANN401 - the overloads of `step` say which
        """Run an activity; again after each emergency stop that did not let it begin."""
        takes_back = is_undo(activity_id, workflow.info().workflow_type)
        while True:
            try:
                return await execute(activity_id, activity, argument, policy, queue)
            except ActivityError as error:
                failure = failure_in(error)
                if failure is None or failure.type != HELD:
                    raise
            await execute(
                BOOKKEEPING_PREFIX + "lifted",
                HoldActivities.record_lifted,
                Held(operation=self._operation, takes_back=takes_back),
                WHILE_HELD,
                None,
            )
            if cancelled():
                raise asyncio.CancelledError


async def _in_spite_of_cancels(work: Coroutine[Any, Any, Result]) -> Result:
    task = asyncio.create_task(work)
    while True:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.done():
                raise


def _cancel_arrived() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
