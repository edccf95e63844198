"""What is done inside of a workflow's own task: once, and after that as any other activity."""

from collections import Counter
from typing import Any
from uuid import uuid4

import pytest
from temporalio import activity, workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from tests.workflows.conftest import Injected
from workflows.calls import execute_here_first
from workflows.policies import BOOKKEEPING

SCHEDULED = EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED


class Rows:
    """Refuses to be written so many times."""

    def __init__(self, refusals: int, *, for_good: bool = False) -> None:
        self._refusals = refusals
        self._for_good = for_good
        self.tries = 0

    @activity.defn
    async def write(self, what: str) -> str:
        self.tries += 1
        if self.tries <= self._refusals:
            message = "refused"
            raise ApplicationError(message, non_retryable=self._for_good)
        return what


@workflow.defn
class Write:
    """Writes once."""

    @workflow.run
    async def run(self, what: str) -> str:
        return await execute_here_first("record_it", Rows.write, what, BOOKKEEPING)


async def _run(client: Client, rows: Rows) -> tuple[str | None, Counter[int]]:
    """Return what came of it, None for a failure, and how many events there are of each kind."""
    queue = f"calls-{uuid4().hex}"
    async with Worker(
        client,
        task_queue=queue,
        workflows=[Write],
        activities=[rows.write],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        handle: WorkflowHandle[Any, Any] = await client.start_workflow(
            Write.run, "a row", id=queue, task_queue=queue
        )
        try:
            result = await handle.result()
        except WorkflowFailureError:
            result = None
    return result, Counter([event.event_type async for event in handle.fetch_history_events()])


async def test_what_succeeds_at_once_is_one_event(injected: Injected) -> None:
    result, events = await _run(injected.platform.client, Rows(0))
    assert result == "a row"
    assert events[EventType.EVENT_TYPE_MARKER_RECORDED] == 1
    assert events[SCHEDULED] == 0


@pytest.mark.parametrize("refusals", [1, 3])
async def test_what_fails_at_first_is_tried_again_as_an_activity(
    injected: Injected, refusals: int
) -> None:
    rows = Rows(refusals)
    result, events = await _run(injected.platform.client, rows)
    assert result == "a row"
    assert rows.tries == refusals + 1
    assert events[SCHEDULED] == 1


async def test_what_fails_for_good_is_not_tried_again(injected: Injected) -> None:
    rows = Rows(1, for_good=True)
    result, _ = await _run(injected.platform.client, rows)
    assert result is None
    assert rows.tries == 1
