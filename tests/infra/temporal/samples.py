"""A workflow that sends a payload of every kind, each with the same word in it."""

import asyncio
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, ChildWorkflowError

_QUICKLY = RetryPolicy(initial_interval=timedelta(milliseconds=50), maximum_attempts=2)
_BOUND = timedelta(seconds=20)


@activity.defn
async def beat_and_fail_once(word: str) -> str:
    """Fail at first, and expect at the second attempt what the first one's heartbeat said."""
    if activity.info().attempt == 1:
        activity.heartbeat(f"beat {word}")
        await asyncio.sleep(0.2)
        message = f"failed {word}"
        raise ApplicationError(message, f"detail {word}")
    assert list(activity.info().heartbeat_details) == [f"beat {word}"]
    return f"done {word}"


@activity.defn
async def fail(word: str) -> None:
    """Fail for good."""
    message = f"failed {word}"
    raise ApplicationError(message, f"detail {word}", non_retryable=True)


@workflow.defn
class Child:
    """Fails with a failure inside its own."""

    @workflow.run
    async def run(self, word: str) -> None:
        """Run."""
        await workflow.execute_activity(fail, word, start_to_close_timeout=_BOUND)


@workflow.defn
class Everything:
    """Sends and receives payloads of every kind that the product may use."""

    def __init__(self) -> None:
        self._word = ""

    @workflow.signal
    def tell(self, word: str) -> None:
        """Take a signal."""
        self._word = word

    @workflow.query
    def ask(self, question: str) -> str:
        """Answer a query."""
        return f"{question} {self._word}"

    @workflow.update
    async def change(self, word: str) -> str:
        """Take an update."""
        return f"changed {word}"

    @workflow.run
    async def run(self, word: str, rounds: int) -> str:
        """Run; with `rounds`, continue as new before the end."""
        info = workflow.info()
        if rounds:
            await workflow.execute_activity(
                beat_and_fail_once,
                word,
                start_to_close_timeout=_BOUND,
                retry_policy=_QUICKLY,
                summary=f"summary {word}",
            )
            workflow.upsert_memo({"later": f"memo {word}"})
            await workflow.wait_condition(lambda: self._word == word)
            workflow.continue_as_new(args=[word, rounds - 1])
        try:
            await workflow.execute_child_workflow(
                Child.run, word, id=f"{info.workflow_id}/child", memo={"child": word}
            )
        except ChildWorkflowError as error:
            cause = error.cause.__cause__ if error.cause else None
        if isinstance(cause, ApplicationError) and cause.details == (f"detail {word}",):
            return f"caught {cause.message}"
        return "caught something else"


@workflow.defn
class Echo:
    """Returns its input."""

    @workflow.run
    async def run(self, word: str) -> str:
        """Run."""
        return word
