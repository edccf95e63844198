"""A dependency that hangs is waited for by a bounded number of threads, and by no queue."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from threading import Event, current_thread

import pytest
import pytest_asyncio

from api import main
from api.request_threads import BEGINS_WITHIN_SECONDS, THREADS, RequestThreads
from domain.errors import BulkheadError, Reason
from infra.settings import ApiProcessSettings


class Hanging:
    """A dependency that accepts calls and answers none until it is let."""

    def __init__(self) -> None:
        self.answers = Event()
        self.asked = 0

    def ask(self) -> str:
        self.asked += 1
        self.answers.wait(30)
        return "answered"


@pytest_asyncio.fixture
async def threads() -> AsyncIterator[RequestThreads]:
    made = RequestThreads(asyncio.get_running_loop())
    yield made
    made.shutdown()


async def test_who_finds_no_thread_is_told_so_and_does_not_queue(threads: RequestThreads) -> None:
    loop, hanging = asyncio.get_running_loop(), Hanging()
    asking = [loop.run_in_executor(threads, hanging.ask) for _ in range(THREADS)]
    began = time.monotonic()
    refused = await asyncio.gather(
        *(loop.run_in_executor(threads, hanging.ask) for _ in range(100)), return_exceptions=True
    )
    assert time.monotonic() - began < BEGINS_WITHIN_SECONDS + 3
    assert all(isinstance(error, BulkheadError) for error in refused)
    assert {getattr(error, "reason", None) for error in refused} == {Reason.DEPENDENCY_UNAVAILABLE}
    # Who comes while a thread becomes free is served, and nothing that was refused is done.
    late = loop.run_in_executor(threads, hanging.ask)
    hanging.answers.set()
    assert await asyncio.gather(*asking, late) == ["answered"] * (THREADS + 1)
    assert hanging.asked == THREADS + 1


async def test_a_failure_is_raised_and_a_request_that_was_given_up_is_not_done(
    threads: RequestThreads,
) -> None:
    loop, hanging = asyncio.get_running_loop(), Hanging()
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(threads, lambda: 1 / 0)
    asking = [loop.run_in_executor(threads, hanging.ask) for _ in range(THREADS)]
    given_up = loop.run_in_executor(threads, hanging.ask)
    given_up.cancel()
    await asyncio.sleep(0)
    hanging.answers.set()
    await asyncio.gather(*asking)
    await loop.run_in_executor(threads, lambda: None)
    assert hanging.asked == THREADS


def test_the_process_does_its_blocking_calls_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `asyncio.to_thread` uses in the API process."""
    names: list[str] = []

    async def serve(settings: ApiProcessSettings) -> None:
        stopping = asyncio.create_task(main.run(settings))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        names.append(await asyncio.to_thread(lambda: current_thread().name))
        stopping.cancel()
        await asyncio.wait({stopping})
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)

    monkeypatch.setattr(main, "open_clients", _nothing)
    asyncio.run(serve(ApiProcessSettings.model_construct()))
    assert names[0].startswith("request")


def _nothing(_: ApiProcessSettings) -> None:
    raise BulkheadError(Reason.INTERNAL, "there are no clients here")
