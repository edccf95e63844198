"""The process's two listeners: HTTP on loopback, and HTTPS wherever it is asked to listen."""

import asyncio
import json
import socket
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from domain.errors import REASONS, Reason

# Requests that are still running when the process shall end get this long.
_GRACE_SECONDS: Final = 10

# Longer than a client's pause between two requests of one task, so that a CLI that watches an
# operation keeps its connection and a TLS handshake.
_KEEP_ALIVE_SECONDS: Final = 30

_MAXIMUM_HEAD_BYTES: Final = 64 * 1024

# A client that is slower than this, be it with one byte at a time, holds a connection for nothing:
# so many seconds for a TLS handshake, for a whole head, and for the whole body after it.
HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0

_UNREADABLE: Final = json.dumps(
    {
        "success": False,
        "errors": [
            {
                "code": REASONS[Reason.INVALID_ARGUMENT].code,
                "message": "This is no HTTP/1.1 request, or its headers are too long.",
                "metadata": {"reason": Reason.INVALID_ARGUMENT},
            }
        ],
        "result": {},
    },
    separators=(",", ":"),
).encode()


class _Protocol(HttpToolsProtocol):
    """Bounds the size of a head and the time in which a request arrives.

    What is no HTTP is answered as everything else is answered.
    """

    _in_head = False
    _head_bytes = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        super().connection_made(transport)
        self._expect_within(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._expect_within(BODY_SECONDS)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._expect_nothing()
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        # Not only from the begin of a message: empty lines before it end the wait of a connection
        # that is kept alive, and would keep it for ever.
        if self._deadline is None:
            self._expect_within(HEAD_SECONDS)
        # The parser keeps a head that never ends, however long it gets.
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _MAXIMUM_HEAD_BYTES:
                self.send_400_response("")
                return
        super().data_received(data)

    def _expect_within(self, seconds: float) -> None:
        self._expect_nothing()
        self._deadline = self.loop.call_later(seconds, self._on_deadline, seconds)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_deadline(self, seconds: float) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        # A request that is there in full is answered before one that follows it is given up; and
        # while it is, nothing is read of the next one's body.
        if self.pipeline or (answering and not self.cycle.more_body):
            self._expect_within(seconds)
            return
        self._deadline = None
        # Without the wait of `close` for a client that does not read either.
        self.transport.abort()

    def send_400_response(self, _msg: str) -> None:
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            b"connection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(_UNREADABLE), _UNREADABLE)
        )
        self.transport.close()


class Listener(uvicorn.Server):
    """One address. Signals are handled once, by the process, and not by each listener."""

    def __init__(self, app: ASGIApp, address: str, context: ssl.SSLContext | None = None) -> None:
        host, _, port = address.rpartition(":")
        super().__init__(
            uvicorn.Config(
                app,
                host=host.strip("[]"),
                port=int(port),
                loop="none",
                http=_Protocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_GRACE_SECONDS,
                ssl_context_factory=None if context is None else lambda _config, _default: context,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. As in the base class, but for the time that a TLS handshake may take.

        Raises:
            OSError: the address cannot be listened on.
        """
        assert sockets is None  # noqa: S101 - sockets of a supervisor are not used here
        context = self.config.ssl
        server = await asyncio.get_running_loop().create_server(
            self._new_protocol,
            self.config.host,
            self.config.port,
            ssl=context,
            backlog=self.config.backlog,
            ssl_handshake_timeout=None if context is None else HEAD_SECONDS,
        )
        self.servers = [server]
        self._log_started_message(server.sockets)
        self.started = True

    def _new_protocol(self) -> _Protocol:
        state: dict[str, Any] = self.lifespan.state
        return _Protocol(self.config, self.server_state, state)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the process's signal handlers alone."""
        yield


async def serve_until(stop: asyncio.Event, listener: Listener) -> None:
    """Serve until the event is set, then let running requests end.

    Raises:
        OSError: the address cannot be listened on.
    """
    serving = asyncio.create_task(listener.serve())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    listener.should_exit = True
    await serving
