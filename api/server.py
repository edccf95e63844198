"""The process's two listeners: HTTP on loopback, and HTTPS wherever it is asked to listen."""

import asyncio
import json
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

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
    """Bounds the head of a request, and answers what is no HTTP as everything else is answered."""

    _in_head = False
    _head_bytes = 0

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        # The parser keeps a head that never ends, however long it gets.
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _MAXIMUM_HEAD_BYTES:
                self.send_400_response("")
                return
        super().data_received(data)

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

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the process's signal handlers alone."""
        yield


async def serve_until(stop: asyncio.Event, listener: Listener) -> None:
    """Serve until the event is set, then let running requests end.

    Raises:
        OSError: the address cannot be listened on.
    """
    serving = asyncio.create_task(_serve(listener))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    listener.should_exit = True
    await serving


async def _serve(listener: Listener) -> None:
    try:
        await listener.serve()
    except SystemExit as error:
        # How uvicorn reports an address that is in use, after logging which.
        message = f"cannot listen on {listener.config.host}:{listener.config.port}"
        raise OSError(message) from error
