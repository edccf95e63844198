"""Wakes requests that wait for an operation: PostgreSQL notifies, and nobody polls.

One connection a process listens on the channel `operations`, whose messages are the ids of changed
operations. A message says only that a row is worth reading again; what a lost connection missed is
read again by everybody when it is back.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import psycopg

from infra.database.engine import DatabaseRole, url_of
from infra.settings import DatabaseSettings

_logger = logging.getLogger(__name__)

_RECONNECT_SECONDS = 1.0
_CONNECT_TIMEOUT_SECONDS = 5


class OperationChanges:
    """The listening connection of one process, and everybody who waits on it."""

    def __init__(self, settings: DatabaseSettings, role: DatabaseRole) -> None:
        self._url = url_of(settings, role)
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._closing = False

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen in the background; at the end wake everybody, so that no request hangs."""
        task = asyncio.create_task(self._listen_for_ever(), name="operation changes")
        try:
            yield
        finally:
            self.release_all()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    @property
    def closing(self) -> bool:
        """Whether the process is about to end, so that waiting has no sense any more."""
        return self._closing

    def release_all(self) -> None:
        """Wake everybody for the last time."""
        self._closing = True
        self._wake_all()

    @contextmanager
    def watch(self, operation_id: str) -> Iterator[asyncio.Event]:
        """Give an event that is set at each change of the operation from now on."""
        event = asyncio.Event()
        self._waiting.setdefault(operation_id, set()).add(event)
        try:
            yield event
        finally:
            events = self._waiting[operation_id]
            events.discard(event)
            if not events:
                del self._waiting[operation_id]

    async def until_closing(self) -> None:
        """Return when the process is about to end."""
        with self.watch("") as woken:
            while not self._closing:
                await woken.wait()
                woken.clear()

    async def _listen_for_ever(self) -> None:
        while True:
            try:
                await self._listen()
            except psycopg.Error as error:
                _logger.warning("listening for changes failed: %s", type(error).__name__)
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen(self) -> None:
        connection = await psycopg.AsyncConnection.connect(
            host=self._url.host,
            port=self._url.port,
            user=self._url.username,
            password=str(self._url.password),
            dbname=self._url.database,
            autocommit=True,
            connect_timeout=_CONNECT_TIMEOUT_SECONDS,
            application_name="bulkhead_changes",
            # Otherwise a connection that a network dropped silently is waited on for ever.
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
        )
        async with connection:
            await connection.execute("LISTEN operations")
            self._wake_all()
            async for message in connection.notifies():
                for event in self._waiting.get(message.payload, ()):
                    event.set()

    def _wake_all(self) -> None:
        for events in self._waiting.values():
            for event in events:
                event.set()
