"""Faults in front of an API, whichever of Python's two interfaces for web servers it has."""

import asyncio
import io
import socket
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from infra.local_cloud.faults import (
    CONTROL_PATH,
    AsgiApp,
    FaultKind,
    Faults,
    Message,
    Receive,
    Refuse,
    RefusedCall,
    Scope,
    Send,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_REFUSALS: Final = (FaultKind.UNAVAILABLE, FaultKind.RATE_LIMIT)
_LARGEST_BODY: Final = 1 << 24


def _refused(faults: Faults, refuse: Refuse, call: str) -> RefusedCall | None:
    for kind in _REFUSALS:
        if faults.strikes(kind, call):
            return refuse(kind, call)
    return None


class AsgiFaults:
    """Faults in front of an ASGI application that uvicorn serves."""

    def __init__(self, app: AsgiApp, faults: Faults, refuse: Refuse) -> None:
        self._app = app
        self._faults = faults
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = f"{scope['method']} {scope['path']}"
        if scope["path"] == CONTROL_PATH:
            status, body = self._faults.control(scope["method"], await _body(receive))
            await _answer(send, RefusedCall(status, body, {"content-type": "application/json"}))
            return
        refused = _refused(self._faults, self._refuse, call)
        if refused is not None:
            await _answer(send, refused)
            return
        if slow := self._faults.strikes(FaultKind.SLOW, call):
            await asyncio.sleep(slow.delay_seconds)
        if self._faults.strikes(FaultKind.LOST_RESPONSE, call):
            await self._app(scope, receive, _swallow)
            _cut(send)
            return
        await self._app(scope, receive, send)


async def _swallow(message: Message) -> None:
    """Take an answer that nobody gets."""


def _cut(send: Send) -> None:
    """Cut the connection without a word: what `send` is bound to in uvicorn has its transport."""
    cycle: Any = getattr(send, "__self__", None)
    cycle.disconnected = True
    cycle.transport.abort()


async def _body(receive: Receive) -> bytes:
    body = b""
    while len(body) < _LARGEST_BODY:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body


async def _answer(send: Send, refused: RefusedCall) -> None:
    headers = {**refused.headers, "content-length": str(len(refused.body))}
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": encoded})
    await send({"type": "http.response.body", "body": refused.body})


class WsgiFaults:
    """Faults in front of a WSGI application that werkzeug serves.

    `name` returns a call's name from its environment and its body, where the path says too little.
    """

    def __init__(
        self,
        app: "WSGIApplication",
        faults: Faults,
        refuse: Refuse,
        name: "Callable[[WSGIEnvironment, bytes], str] | None" = None,
    ) -> None:
        self._app = app
        self._faults = faults
        self._refuse = refuse
        self._name = name or _path_of

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Serve a request."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        if environ["PATH_INFO"] == CONTROL_PATH:
            status, answer = self._faults.control(environ["REQUEST_METHOD"], body)
            return _start(start_response, RefusedCall(status, answer))
        call = self._name(environ, body)
        refused = _refused(self._faults, self._refuse, call)
        if refused is not None:
            return _start(start_response, refused)
        if slow := self._faults.strikes(FaultKind.SLOW, call):
            time.sleep(slow.delay_seconds)
        if self._faults.strikes(FaultKind.LOST_RESPONSE, call):
            for _part in self._app(environ, lambda *_: lambda _part: None):
                pass
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return _start(start_response, RefusedCall(200, b""))
        return self._app(environ, start_response)


def _path_of(environ: "WSGIEnvironment", _body: bytes) -> str:
    return f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"


def _start(start_response: "StartResponse", refused: RefusedCall) -> Iterable[bytes]:
    headers = {**refused.headers, "Content-Length": str(len(refused.body))}
    phrase = HTTPStatus(refused.status).phrase
    start_response(f"{refused.status} {phrase}", list(headers.items()))
    return [refused.body]
