"""Clients that send a request slowly, or none: they hold no connection."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from api.certificates import new_context
from api.server import Listener, serve_until
from tests.api.process import answers, free_port
from tests.api.test_listeners import self_signed


async def application(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read a body and take a second to answer."""
    while (await receive()).get("more_body", False):
        pass
    await asyncio.sleep(1)
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
    )
    await send({"type": "http.response.body"})


def serving_context(directory: Path) -> ssl.SSLContext:
    self_signed(directory, "localhost")
    context = new_context()
    context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
    return context


@contextlib.asynccontextmanager
async def listening(context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """Serve the application from within this process."""
    stop, port = asyncio.Event(), free_port()
    listener = Listener(application, f"127.0.0.1:{port}", context)
    serving = asyncio.create_task(serve_until(stop, listener))
    await answers(f"{'http' if context is None else 'https'}://127.0.0.1:{port}", trust=False)
    try:
        yield port
    finally:
        stop.set()
        await serving


async def trickle(port: int, sent: bytes, *, tls: bool) -> tuple[bytes, float]:
    """Send something, then a byte now and then; return what came and after how many seconds."""
    unchecked = ssl._create_unverified_context() if tls else None  # noqa: S323, SLF001 - any certificate
    # The server counts from when it took the connection.
    started = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=unchecked)
    writer.write(sent)
    answer = asyncio.create_task(reader.read())
    while not answer.done():
        assert time.monotonic() - started < 8
        await asyncio.wait({answer}, timeout=0.1)
        if sent:
            writer.write(sent[-1:])
    writer.close()
    with contextlib.suppress(ConnectionError):
        return await answer, time.monotonic() - started
    return b"", time.monotonic() - started


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        (b"", 0.5),
        (b"GET / HTTP/1.1\r\nx: y", 0.5),
        (b"\r\n", 0.5),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\nx", 1.5),
    ],
)
async def test_a_connection_on_which_no_request_arrives_is_closed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, tls: bool, sent: bytes, seconds: float
) -> None:
    monkeypatch.setattr("api.server.HEAD_SECONDS", 0.5)
    monkeypatch.setattr("api.server.BODY_SECONDS", 1.5)
    context = serving_context(tmp_path) if tls else None
    async with listening(context) as port:
        answer, took = await trickle(port, sent, tls=tls)
    assert answer == b""
    assert seconds - 0.1 < took < seconds + 2


async def test_a_handshake_that_does_not_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("api.server.HEAD_SECONDS", 0.5)
    context = serving_context(tmp_path)
    async with listening(context) as port:
        answer, took = await trickle(port, b"", tls=False)
    assert answer == b""
    assert took < 3


async def test_an_answer_that_takes_long_outlives_what_follows_its_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.server.HEAD_SECONDS", 0.4)
    request = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx"
    async with listening(None) as port:
        answer, took = await trickle(port, request + b"\r\n", tls=False)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert took < 4
        both, _ = await trickle(port, request * 2 + b"\r\n", tls=False)
        assert both.count(b"HTTP/1.1 200 ") == 2


async def test_an_address_in_use_ends_a_listener_with_what_is_wrong() -> None:
    async with listening(None) as port:
        taken = Listener(application, f"127.0.0.1:{port}")
        with pytest.raises(OSError, match=f"{port}"):
            await serve_until(asyncio.Event(), taken)
