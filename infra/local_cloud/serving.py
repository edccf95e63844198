"""Serves the local clouds' APIs on loopback, in threads of this process."""

import importlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, cast

import uvicorn
from werkzeug.serving import WSGIRequestHandler, make_server

from domain.cloud import Provider
from infra.local_cloud.boots import Boots, NoBoots
from infra.local_cloud.fault_middleware import AsgiFaults, WsgiFaults

LOOPBACK: Final = "127.0.0.1"
_START_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiOptions:
    """What the API of each local cloud is made with: `create_app(options)` of its `api` module.

    `create_app` returns its application behind `AsgiFaults` or `WsgiFaults`.

    Attributes:
        url: where it will be served, for answers that say so.
        boots: what is done when a server is switched on.
        action_seconds: how long what the provider does asynchronously takes.
    """

    url: str
    boots: Boots = field(default_factory=NoBoots)
    action_seconds: float = 0.05


@contextmanager
def served(
    provider: Provider, *, boots: Boots | None = None, action_seconds: float = 0.05, port: int = 0
) -> Iterator[str]:
    """Serve a provider's API until the context ends; gives its URL without a slash at its end.

    Args:
        provider: which.
        boots: see `ApiOptions`.
        action_seconds: see `ApiOptions`.
        port: 0: one that is free.
    """
    # Before all else: an API takes a second to load, in which another process could get the port.
    with socket.create_server((LOOPBACK, port)) as listener:
        url = f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        options = ApiOptions(url=url, boots=boots or NoBoots(), action_seconds=action_seconds)
        module = importlib.import_module(f"infra.local_cloud.{provider}.api")
        app = cast("AsgiFaults | WsgiFaults", module.create_app(options))
        with (
            _serve_wsgi(app, listener)
            if isinstance(app, WsgiFaults)
            else _serve_asgi(app, listener)
        ):
            yield url


@contextmanager
def _serve_asgi(app: AsgiFaults, listener: socket.socket) -> Iterator[None]:
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            message = "The API did not start."
            raise OSError(message)
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(_START_SECONDS)


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Keep calls to ourselves."""


@contextmanager
def _serve_wsgi(app: WsgiFaults, listener: socket.socket) -> Iterator[None]:
    host, port = listener.getsockname()
    server = make_server(
        host, port, app, threaded=True, request_handler=_Quiet, fd=listener.fileno()
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join(_START_SECONDS)
        server.server_close()


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
