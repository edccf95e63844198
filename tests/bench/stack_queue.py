"""The stacks' task queue, with as many places as a worker has slots: what bounds runs at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final
from uuid import uuid4

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import Worker

_RUN_WITHIN: Final = timedelta(minutes=15)


class Runs:
    """Does what each run is.

    Args:
        work: by the number of the run.
    """

    def __init__(self, work: Callable[[int], Awaitable[None]]) -> None:
        self._work = work

    @activity.defn
    async def run_stack(self, number: int) -> None:
        """Do one."""
        await self._work(number)


@workflow.defn
class RunAtOnce:
    """Asks for all runs in the same moment, and waits for the last."""

    @workflow.run
    async def run(self, count: int) -> None:
        """Ask for them."""
        await asyncio.gather(
            *(
                workflow.execute_activity_method(
                    Runs.run_stack,
                    number,
                    start_to_close_timeout=_RUN_WITHIN,
                    retry_policy=RetryPolicy(maximum_attempts=1),
                )
                for number in range(count)
            )
        )


async def run_at_once(
    address: str, queue: str, slots: int, count: int, work: Callable[[int], Awaitable[None]]
) -> None:
    """Have a number of runs asked for at once, and done as the queue's places allow.

    Args:
        address: Temporal's.
        queue: its name.
        slots: places that the one worker of the queue has.
        count: of runs.
        work: does one of them.
    """
    client = await Client.connect(address)
    async with Worker(
        client,
        task_queue=queue,
        workflows=[RunAtOnce],
        activities=[Runs(work).run_stack],
        max_concurrent_activities=slots,
    ):
        await client.execute_workflow(RunAtOnce.run, count, id=uuid4().hex, task_queue=queue)
