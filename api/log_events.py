"""An install's logs as server-sent events: never faster than they are read, and never kept.

A position (`id:`) names the last line of each container, so that a client which comes back with
`Last-Event-ID` goes on from there. It comes once a second: lines since the last one come again.
"""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from domain.errors import BulkheadError, Reason
from infra.kubernetes.pod_logs import MOST_CONTAINERS, LogLine, LogStream

# A token that is revoked, a role that is taken or logs that are turned off end a stream by then.
RECHECK_SECONDS: Final = 15.0

# The certificate with which the cluster is asked is good for 15 minutes. A client comes back.
_LIFE_SECONDS: Final = 10 * 60.0

# Proxies end what is silent for longer, often after a minute.
_SILENCE_SECONDS: Final = 15.0

_POSITION_SECONDS: Final = 1.0
_FAREWELL_SECONDS: Final = 1.0

_MOST_STREAMS: Final = 200
_MOST_STREAMS_OF_WORKSPACE: Final = 20

_FAILURE_EVENT: Final = "effect/httpapi/stream/failure"

_POSITION: Final = re.compile(r"[0-9a-f]{12}:[0-9a-f]{1,16}(,[0-9a-f]{12}:[0-9a-f]{1,16})*")

_HEADERS: Final = {
    "cache-control": "no-store",
    # Without it nginx collects what is to be seen at once.
    "x-accel-buffering": "no",
}


class LogStreams:
    """How many streams are open, by workspace. For one event loop."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """How many are open."""
        return self._open.total()

    def enter(self, workspace_id: str) -> None:
        """Count one more; whoever called this calls `leave`.

        Raises:
            BulkheadError: RATE_LIMITED.
        """
        full = self.total >= _MOST_STREAMS
        if full or self._open[workspace_id] >= _MOST_STREAMS_OF_WORKSPACE:
            raise BulkheadError(
                Reason.RATE_LIMITED,
                f"So many logs are being followed ({self._open[workspace_id]} by this workspace) "
                "that one more has to wait; end another one.",
            )
        self._open[workspace_id] += 1

    def leave(self, workspace_id: str) -> None:
        """Count one less."""
        self._open[workspace_id] -= 1
        if not self._open[workspace_id]:
            del self._open[workspace_id]


def positions_in(header: str | None) -> dict[str, int]:
    """Read a `Last-Event-ID`; what is none of ours says nothing."""
    if header is None or _POSITION.fullmatch(header) is None:
        return {}
    pairs = (pair.split(":") for pair in header.split(",")[: 2 * MOST_CONTAINERS])
    return {key: int(at, 16) for key, at in pairs}


class LogResponse(Response):
    """Sends events until there is nothing more, or nobody who reads them.

    Args:
        stream: reads the logs.
        recheck: raises when the caller may read them no more.
        closing: returns when the process shall end.
        held: what is given back at the end, however it comes.
        positions: where the client was.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        stream: LogStream,
        *,
        recheck: Callable[[], Awaitable[None]],
        closing: Callable[[], Coroutine[None, None, None]],
        held: AsyncExitStack,
        positions: Mapping[str, int],
    ) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._stream = stream
        self._recheck = recheck
        self._closing = closing
        self._held = held
        self._positions = dict(positions)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Answer one request."""
        async with self._held:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            ends = [
                asyncio.create_task(coroutine)
                for coroutine in (
                    self._send_events(send),
                    _disconnected(receive),
                    self._closing(),
                )
            ]
            try:
                await asyncio.wait(ends, timeout=_LIFE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in ends:
                    task.cancel()
                await asyncio.gather(*ends, return_exceptions=True)
            # A client that does not read is cut off instead.
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(_FAREWELL_SECONDS):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_events(self, send: Send) -> None:
        """Send lines as they come; at the end `end`, or what went wrong."""
        try:
            await self._send_lines(send)
        except BulkheadError as error:
            failure = {"reason": error.reason, "message": error.message}
            await _send(send, _event(_FAILURE_EVENT, failure))
        else:
            await _send(send, _event("end", {}))

    async def _send_lines(self, send: Send) -> None:
        running = asyncio.create_task(self._stream.run())
        checking = asyncio.create_task(self._keep_checking())
        try:
            # So that a client learns at once that it is connected.
            await _send(send, ": connected\n\n")
            positioned_at = 0.0
            while True:
                line = await self._next(running, checking)
                if line is None and running.done() and self._stream.lines.empty():
                    running.result()
                    return
                if line is None:
                    await _send(send, ": nothing new\n\n")
                    continue
                self._positions[line.key] = line.at
                position = None
                if time.monotonic() - positioned_at >= _POSITION_SECONDS:
                    positioned_at, position = time.monotonic(), self._position()
                await _send(send, _event("message", _message(line), position))
        finally:
            for task in (running, checking):
                task.cancel()
            await asyncio.gather(running, checking, return_exceptions=True)

    async def _next(
        self, running: asyncio.Task[None], checking: asyncio.Task[None]
    ) -> LogLine | None:
        """Return the next line; None after a silence, and when no line comes any more.

        Raises:
            BulkheadError: the caller may read no more.
        """
        lines = self._stream.lines
        if checking.done():
            checking.result()
        if not lines.empty():
            return lines.get_nowait()
        getting = asyncio.create_task(lines.get())
        try:
            await asyncio.wait(
                {getting, running, checking},
                timeout=_SILENCE_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            getting.cancel()
            await asyncio.gather(getting, return_exceptions=True)
        if not getting.cancelled():
            return getting.result()
        if checking.done():
            checking.result()
        return None

    async def _keep_checking(self) -> None:
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            await self._recheck()

    def _position(self) -> str:
        newest = sorted(self._positions.items(), key=lambda pair: pair[1])[-MOST_CONTAINERS:]
        return ",".join(f"{key}:{at:x}" for key, at in newest)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


def _message(line: LogLine) -> dict[str, str | bool]:
    return {
        "content": line.content,
        "podName": line.pod,
        "containerName": line.container,
        "timestamp": line.timestamp,
        "last": line.is_last,
    }


def _event(name: str, data: Mapping[str, object], position: str | None = None) -> str:
    said = "" if position is None else f"id: {position}\n"
    # JSON has no line break in it, whatever a line of a log has.
    return f"event: {name}\n{said}data: {json.dumps(data, separators=(',', ':'))}\n\n"
