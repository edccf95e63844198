"""Threads for providers: nobody waits for another customer's provider."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import pytest
import pytest_asyncio

from infra.clouds.threads import in_thread

SOON = 60.0


class Hanging:
    """A provider that answers nothing before it is let."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.asked = 0

    def __call__(self) -> None:
        self.asked += 1
        self.let.wait()


@pytest_asyncio.fixture
async def hanging() -> AsyncIterator[Hanging]:
    provider = Hanging()
    yield provider
    provider.let.set()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110 - threads set no event
            await asyncio.sleep(0.01)


async def test_a_provider_that_hangs_takes_few_threads_and_none_of_the_process(
    hanging: Hanging,
) -> None:
    secret = uuid4().hex
    waiting = [asyncio.create_task(in_thread(secret, hanging)) for _ in range(100)]
    await until(lambda: hanging.asked > 0)
    async with asyncio.timeout(SOON):
        await asyncio.gather(*(asyncio.to_thread(lambda: None) for _ in range(100)))
        await in_thread(uuid4().hex, lambda: None)
    assert hanging.asked < 10
    hanging.let.set()
    async with asyncio.timeout(SOON):
        await asyncio.gather(*waiting)


async def test_a_cancel_waits_for_what_changes_something_alone(hanging: Hanging) -> None:
    reading = asyncio.create_task(in_thread(uuid4().hex, hanging, only_reads=True))
    changing = asyncio.create_task(in_thread(uuid4().hex, hanging))
    await until(lambda: hanging.asked == 2)
    for task in (reading, changing):
        task.cancel()
    async with asyncio.timeout(SOON):
        await asyncio.wait({reading})
    ended, _ = await asyncio.wait({changing}, timeout=0.3)
    assert ended == set()
    hanging.let.set()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(SOON):
            await changing
