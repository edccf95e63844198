"""How the interceptor keeps the server informed of what runs."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from activities.interceptor import ActivityInterceptor
from activities.progress import note_progress
from domain.caller import system_caller
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.owned_operation import SecretOperation
from infra.database.records.steps import Decision, StepAttempt, StepRecords
from tests.servers import Servers


class _Bare(ActivityInboundInterceptor):
    def __init__(self) -> None:
        """There is nothing after this one."""

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002, ANN401 - the SDK's signature
        return await input.fn()


async def _lasts_longer_than_a_beat() -> None:
    await asyncio.sleep(1.5)


def _lasts_in_a_thread() -> Awaitable[None]:
    """Be no coroutine function, as an activity that runs in a thread is none."""
    return _lasts_longer_than_a_beat()


async def _beats(
    steps: StepRecords,
    work: Callable[[], Awaitable[None]] = _lasts_longer_than_a_beat,
    *,
    is_local: bool = False,
) -> int:
    environment, heard = ActivityEnvironment(), []
    environment.info = replace(environment.info, is_local=is_local)
    environment.on_heartbeat = lambda *details: heard.append(details)
    inbound = ActivityInterceptor(steps).intercept_activity(_Bare())
    call = ExecuteActivityInput(fn=work, args=[], executor=None, headers={})

    async def run() -> None:
        await inbound.execute_activity(call)

    await environment.run(run)
    return len(heard)


async def test_a_heart_beats_only_where_the_server_listens(servers: Servers) -> None:
    steps = StepRecords(servers.database)
    try:
        assert await _beats(steps, is_local=False) > 0
        assert await _beats(steps, is_local=True) == 0
    finally:
        await steps.close()


async def test_a_heart_beats_though_all_other_threads_wait(servers: Servers) -> None:
    steps, let = StepRecords(servers.database), threading.Event()
    waiting = [asyncio.create_task(asyncio.to_thread(let.wait)) for _ in range(100)]
    try:
        assert await _beats(steps, _lasts_in_a_thread) > 0
    finally:
        let.set()
        await asyncio.gather(*waiting)
        await steps.close()


class _LosesACancel(StepRecords):
    """Records nothing, and waits for a connection until a cancel comes, which it swallows."""

    def __init__(self) -> None:
        self.is_waiting = asyncio.Event()

    async def started(self, step: StepAttempt) -> Decision:
        del step
        return Decision.RUN

    async def completed(self, step: StepAttempt) -> None:
        """Record nothing."""

    async def progressed(self, step: StepAttempt, progress: str) -> None:
        del step, progress
        self.is_waiting.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


class _Fails(StepRecords):
    """Keeps until when a step that failed is tried."""

    def __init__(self) -> None:
        self.given_up: list[datetime | None] = []

    async def started(self, step: StepAttempt) -> Decision:
        del step
        return Decision.RUN

    async def failed(
        self,
        step: StepAttempt,
        reason: str,
        message: str,
        next_try_at: datetime | None,
        gives_up_at: datetime | None = None,
    ) -> None:
        del step, reason, message, next_try_at
        self.given_up.append(gives_up_at)


def _of_a_secret() -> SecretOperation:
    workspace_id = new_id(Prefix.WORKSPACE)
    return SecretOperation(
        operation_id=new_id(Prefix.OPERATION),
        workspace_id=workspace_id,
        secret_id=new_id(Prefix.SECRET),
        caller=system_caller(workspace_id, "test"),
    )


@pytest.mark.parametrize("minutes", [10, 0])
async def test_a_step_that_fails_is_recorded_with_the_end_of_its_tries(minutes: int) -> None:
    steps, operation = _Fails(), _of_a_secret()
    environment = ActivityEnvironment()
    scheduled, total = datetime(2026, 1, 1, tzinfo=UTC), timedelta(minutes=minutes)
    environment.info = replace(
        environment.info,
        workflow_id=f"secret/any/rotate/{operation.operation_id}",
        scheduled_time=scheduled,
        # The server gives none as a span of nothing.
        schedule_to_close_timeout=total,
    )

    async def work() -> None:
        raise BulkheadError(Reason.DEPENDENCY_UNAVAILABLE, "No such host.")

    inbound = ActivityInterceptor(steps).intercept_activity(_Bare())
    call = ExecuteActivityInput(fn=work, args=[operation], executor=None, headers={})
    with pytest.raises(ApplicationError):
        await environment.run(inbound.execute_activity, call)
    assert steps.given_up == [scheduled + total if minutes else None]


async def test_an_activity_ends_although_the_cancel_of_its_heart_is_lost() -> None:
    steps, operation = _LosesACancel(), _of_a_secret()

    async def work() -> None:
        note_progress("It goes on.")
        await steps.is_waiting.wait()

    environment = ActivityEnvironment()
    workflow_id = f"secret/any/rotate/{operation.operation_id}"
    environment.info = replace(environment.info, workflow_id=workflow_id)
    inbound = ActivityInterceptor(steps).intercept_activity(_Bare())
    call = ExecuteActivityInput(fn=work, args=[operation], executor=None, headers={})
    running = asyncio.create_task(environment.run(inbound.execute_activity, call))
    done, _ = await asyncio.wait({running}, timeout=60)
    assert done == {running}
    await running
