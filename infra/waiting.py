"""What a long-lived process waits for: servers that are not up yet, and its own end."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import structlog

from domain.errors import BulkheadError

_RETRY_SECONDS: Final = 1.0

Found = TypeVar("Found")

log = structlog.get_logger(__name__)


async def when_available(attempt: Callable[[], Awaitable[Found]]) -> Found:
    """Try until a dependency answers, and return what it said."""
    while True:
        try:
            return await attempt()
        except BulkheadError as error:
            log.warning("waiting for a dependency", reason=error.reason, message=error.message)
            await asyncio.sleep(_RETRY_SECONDS)


async def unless_set(stop: asyncio.Event, work: Coroutine[Any, Any, Found]) -> Found | None:
    """Do the work, or give it up with no result when the event comes first."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        return working.result()
    working.cancel()
    return None
