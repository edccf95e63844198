"""A workshop for each test, and a loopback server of releases."""

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.tools.workshop import Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Serve a directory over HTTP; gives the directory and its address."""
    directory = tmp_path / "releases"
    directory.mkdir()
    handler = functools.partial(_QuietHandler, directory=os.fspath(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield directory, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Keep standard error for the tests."""
