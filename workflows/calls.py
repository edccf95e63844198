"""How workflows run the activities of operations."""

from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import FailureError, is_cancelled_exception

from workflows.failures import failure_in
from workflows.policies import HEARTBEAT_TIMEOUT, Policy

Argument = TypeVar("Argument")
Result = TypeVar("Result")
# An activity method of a class: the class is imported for this signature, never called.
Activity = Callable[[Any, Argument], Any]

_ONCE: Final = RetryPolicy(maximum_attempts=1)


async def execute(
    activity_id: str,
    activity: Activity[Argument],
    argument: Argument,
    policy: Policy,
    queue: str | None,
) -> Any:  # noqa: ANN401 - the overloads of `Saga.step` say which
    """Run an activity on a queue; None: on that of the workflow."""
    return await workflow.execute_activity_method(
        activity,
        argument,
        activity_id=activity_id,
        task_queue=queue,
        start_to_close_timeout=policy.attempt,
        schedule_to_close_timeout=policy.total,
        heartbeat_timeout=HEARTBEAT_TIMEOUT,
        retry_policy=policy.retry,
        # The next step, or the undo, must not run beside an attempt that is still at work.
        cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )


async def execute_here_first(
    activity_id: str,
    activity: Callable[[Any, Argument], Coroutine[Any, Any, Result]],
    argument: Argument,
    policy: Policy,
) -> Result:
    """Run an activity that takes milliseconds inside of the workflow's own task.

    The server has one event of it to write, not six with another task of the workflow, which are a
    third of what such an activity costs. It is tried like that once: a task that waited for a
    database that is away would time out again and again.
    """
    try:
        result: Result = await workflow.execute_local_activity_method(
            activity,
            argument,
            activity_id=activity_id,
            start_to_close_timeout=policy.attempt,
            retry_policy=_ONCE,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
    except FailureError as error:
        failure = failure_in(error)
        is_permanent = failure is not None and failure.non_retryable
        if is_permanent or is_cancelled_exception(error):
            raise
        result = await execute(activity_id, activity, argument, policy, None)
    return result
