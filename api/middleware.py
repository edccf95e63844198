"""What surrounds every request: its id, its size, its log line, and defects of ours."""

import asyncio
import re
import time
import traceback
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import error_response, internal_error
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id

_logger: structlog.stdlib.BoundLogger = structlog.get_logger("api.requests")

# The largest request of the contract is a secret's value of 64 KiB, each byte of it written as
# an escape of JSON with six.
MAXIMUM_BODY_BYTES: Final = 512 * 1024

_LENGTH = re.compile(r"[0-9]{1,9}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class RequestMiddleware:
    """Gives each request an id, refuses large bodies unread, and logs one line about it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        try:
            if exchange.announces_too_much():
                response = error_response(_too_large())
                response.headers["connection"] = "close"
                await response(scope, exchange.receive, exchange.send)
            else:
                await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:  # noqa: BLE001 - the last line of defence of the process
            _log_defect(error)
            if not exchange.status:
                await error_response(internal_error())(scope, exchange.receive, exchange.send)
        finally:
            # In the loop's next round, for the answer is sent at the end of this one.
            asyncio.get_running_loop().call_soon(exchange.log)


class _Exchange:
    """One request and its answer, as they pass."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._started = time.perf_counter()
        self._headers = Headers(scope=scope)
        self._received = 0
        self.status = 0
        given = self._headers.get("x-request-id", "")
        self._request_id = given if _REQUEST_ID.fullmatch(given) else new_id(Prefix.REQUEST)
        self._state = scope.setdefault("state", {})
        self._state["request_id"] = self._request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=self._request_id)

    def announces_too_much(self) -> bool:
        length = self._headers.get("content-length", "0")
        return _LENGTH.fullmatch(length) is None or int(length) > MAXIMUM_BODY_BYTES

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            if self._received > MAXIMUM_BODY_BYTES:
                raise HTTPException(413)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["x-request-id"] = self._request_id
        await self._send(message)

    def log(self) -> None:
        _logger.info(
            "request",
            method=self._scope["method"],
            path=self._scope["path"],
            status=self.status,
            milliseconds=round((time.perf_counter() - self._started) * 1000, 1),
            **self._state.get("caller", {}),
        )


def _too_large() -> BulkheadError:
    return BulkheadError(
        Reason.INVALID_ARGUMENT,
        f"The body is larger than the {MAXIMUM_BODY_BYTES} bytes that this API reads.",
        path=("body",),
        status=413,
    )


def _log_defect(error: Exception) -> None:
    """Log where it happened, and not the message: it may quote what was sent."""
    frames = traceback.extract_tb(error.__traceback__)
    _logger.error(
        "defect",
        error=type(error).__name__,
        frames=[f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-12:]],
    )
