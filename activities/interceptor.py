"""Round every activity: the step is recorded, the heart beats, and failures become typed.

Recording here and not in workflows keeps histories free of bookkeeping: the events are exactly
those of the bare workflow. A failure that is no `BulkheadError` shows its class and nothing else,
because the text of a driver's error may hold anything.
"""

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog
from temporalio import activity
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, is_cancelled_exception
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from activities.holds import HeldError, NotYetError
from activities.progress import Progress, current_progress
from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError, Reason
from domain.names import is_undo, operation_id_of
from domain.owned_operation import (
    ClusterOperation,
    InstallOperation,
    MachineOperation,
    MachinePoolOperation,
    PackageOperation,
    SecretOperation,
    WorkerBootstrapOperation,
)
from infra.database.records.steps import Decision, StepAttempt, StepRecords

# So often within the time after which an activity that does not beat is begun again: once a second
# for a step. What a cancel must reach soon has a short one.
_BEATS = 6
_PAUSE_SECONDS = 1.0

# Of their own: a step that others keep from beating would be begun a second time beside itself.
_HEARTBEATS = ThreadPoolExecutor(4, thread_name_prefix="heartbeats")

# Limits of calls are by the hour at most.
_LONGEST_ASKED_PAUSE_SECONDS = 3600.0

# What the activities of operations are given.
_OF_OPERATIONS = (
    HostedControlPlane,
    ClusterOperation,
    InstallOperation,
    MachineOperation,
    MachinePoolOperation,
    PackageOperation,
    SecretOperation,
    WorkerBootstrapOperation,
)

log = structlog.get_logger(__name__)


class ActivityInterceptor(Interceptor):
    """Wraps every activity of a worker."""

    def __init__(self, steps: StepRecords) -> None:
        self._steps = steps

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 - the SDK's name
        """Put the wrapper round the next one."""
        return _Inbound(next, self._steps)


class _Inbound(ActivityInboundInterceptor):
    def __init__(self, following: ActivityInboundInterceptor, steps: StepRecords) -> None:
        super().__init__(following)
        self._steps = steps

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002, ANN401 - the SDK's signature
        """Run one attempt."""
        step: StepAttempt | None = None
        try:
            step = _step_of(input)
            if step is not None and not await self._begins(step):
                return None
            in_thread = not inspect.iscoroutinefunction(input.fn)
            async with self._beating(step, in_thread=in_thread):
                result = await super().execute_activity(input)
            if step is not None:
                await self._steps.completed(step)
        except Exception as error:
            if isinstance(error, HeldError | NotYetError) or is_cancelled_exception(error):
                raise
            typed = _typed(error)
            await self._record_failure(step, typed)
            raise _application_error(typed) from None
        return result

    async def _begins(self, step: StepAttempt) -> bool:
        """Tell whether an attempt is needed.

        Raises:
            HeldError: not while an emergency stop is in force.
        """
        decision = await self._steps.started(step)
        if decision is Decision.HOLD:
            raise HeldError(again=False)
        return decision is Decision.RUN

    @contextlib.asynccontextmanager
    async def _beating(self, step: StepAttempt | None, *, in_thread: bool) -> AsyncIterator[None]:
        if activity.info().is_local:
            # The server knows nothing of it: each beat would be a warning in the worker's log.
            yield
            return
        timeout = activity.info().heartbeat_timeout
        pause = timeout.total_seconds() / _BEATS if timeout else _PAUSE_SECONDS
        progress, ended = Progress(), asyncio.Event()
        token = current_progress.set(progress)

        async def beat() -> None:
            shown: str | None = None
            # A cancel alone may get lost: a wait with a limit, such as that for a connection of the
            # pool, swallows one that comes with what it waited for (Python 3.11, bpo-37658).
            while not ended.is_set():
                await asyncio.sleep(pause)
                details = (progress.details,) if progress.details else ()
                # For a plain function the SDK's heartbeat waits for this very loop: from the loop
                # itself that is a deadlock of 10 s.
                if in_thread:
                    in_context = partial(copy_context().run, activity.heartbeat, *details)
                    await asyncio.get_running_loop().run_in_executor(_HEARTBEATS, in_context)
                else:
                    activity.heartbeat(*details)
                message = progress.message
                if step is not None and message is not None and message != shown:
                    # The next beat says it again, or something newer.
                    with contextlib.suppress(BulkheadError):
                        await self._steps.progressed(step, message)
                        shown = message

        task = asyncio.create_task(beat())
        try:
            yield
        finally:
            current_progress.reset(token)
            ended.set()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _record_failure(self, step: StepAttempt | None, error: BulkheadError) -> None:
        info = activity.info()
        log.warning(
            "activity failed",
            activity_id=info.activity_id,
            workflow_id=info.workflow_id,
            attempt=info.attempt,
            reason=error.reason,
            message=error.message,
        )
        if step is None:
            return
        next_try_at = _next_try_at(error, info.attempt, info.retry_policy)
        # The failure itself is what matters: Temporal keeps it also when the row cannot be written.
        with contextlib.suppress(BulkheadError):
            await self._steps.failed(
                step, error.reason, error.message, next_try_at, _gives_up_at(info)
            )


def _step_of(call: ExecuteActivityInput) -> StepAttempt | None:
    """Return the step that an activity is, None for a schedule's.

    Raises:
        BulkheadError: PERMISSION_DENIED for an operation's activity outside its workflow.
            Whoever reaches Temporal can ask for any activity; the rows say what may be done.
    """
    argument = getattr(call.args[0], "operation", call.args[0]) if call.args else None
    if not isinstance(argument, _OF_OPERATIONS):
        return None
    info = activity.info()
    operation_id = operation_id_of(info.workflow_id or "")
    if operation_id is None or operation_id != getattr(argument, "operation_id", operation_id):
        raise BulkheadError(
            Reason.PERMISSION_DENIED, "This activity belongs to the workflow of an operation."
        )
    return StepAttempt(
        workspace_id=argument.workspace_id,
        operation_id=operation_id,
        owner_id=argument.owner_id,
        name=info.activity_id,
        attempt=info.attempt,
        takes_back=is_undo(info.activity_id, info.workflow_type or ""),
    )


def _typed(error: Exception) -> BulkheadError:
    if isinstance(error, BulkheadError):
        return error
    log.error("unexpected failure of an activity", kind=type(error).__name__, exc_info=error)
    return BulkheadError(
        Reason.INTERNAL,
        f"Unexpected {type(error).__name__} in {activity.info().activity_type}; "
        "the worker's log has the place.",
    )


def _next_try_at(error: BulkheadError, attempt: int, policy: RetryPolicy | None) -> datetime | None:
    if not error.retryable or policy is None:
        return None
    asked = _asked_pause(error)
    if asked is not None:
        return datetime.now(UTC) + asked
    pause: timedelta = policy.initial_interval * policy.backoff_coefficient ** (attempt - 1)
    if policy.maximum_interval is not None:
        pause = min(pause, policy.maximum_interval)
    return datetime.now(UTC) + pause


def _gives_up_at(info: activity.Info) -> datetime | None:
    """Return when no attempt is made any more; None: it is tried until it succeeds."""
    if not info.schedule_to_close_timeout:
        return None
    return info.scheduled_time + info.schedule_to_close_timeout


def _asked_pause(error: BulkheadError) -> timedelta | None:
    """Return how long a provider that takes no more calls wants to be left alone."""
    seconds = error.metadata.get("retry_after_seconds")
    if error.reason is not Reason.RATE_LIMITED or seconds is None:
        return None
    return timedelta(seconds=min(max(float(seconds), 1.0), _LONGEST_ASKED_PAUSE_SECONDS))


def _application_error(error: BulkheadError) -> ApplicationError:
    return ApplicationError(
        error.message,
        {"path": list(error.path), "metadata": error.metadata},
        type=error.reason,
        non_retryable=not error.retryable,
        next_retry_delay=_asked_pause(error),
    )
