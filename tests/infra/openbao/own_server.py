"""An OpenBao of a test's own, to be stopped, sealed and wiped."""

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from infra.openbao.server import write_server_configuration
from infra.settings import OpenBaoSettings

STARTS_WITHIN_SECONDS = 30.0
SEALED = 503


class OpenBaoServer:
    """One real server, not under any supervisor."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self._port = port
        self._address = f"http://127.0.0.1:{port}"
        self._program = Path(sys.executable).parent / "bao"
        self._process: subprocess.Popen[bytes] | None = None

    def settings(self, principal: str) -> OpenBaoSettings:
        """Return what a process of the name connects with."""
        return OpenBaoSettings(
            address=self._address, login_key_file=self.directory / f"{principal}.key"
        )

    def start(self, *, until: int = httpx.codes.OK) -> None:
        """Start it and wait until it answers with this status."""
        configuration = write_server_configuration(
            self.directory, port=self._port, cluster_port=self._port + 1
        )
        self._process = subprocess.Popen(
            [self._program, "server", f"-config={configuration}", "-log-level=error"],
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + STARTS_WITHIN_SECONDS
        while self._status() != until:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def wipe(self) -> None:
        """Forget everything that it stored; keys stay."""
        shutil.rmtree(self.directory / "raft")

    def _status(self) -> int | None:
        """Say how it answers for the authority, which it makes last when it sets itself up."""
        with contextlib.suppress(httpx.TransportError):
            url = f"{self._address}/v1/pki/platform/roles/api-server"
            status = httpx.get(url, trust_env=False).status_code
            # Without a token the role is refused, once there is a mount to refuse it.
            return httpx.codes.OK if status == httpx.codes.FORBIDDEN else status
        return None


@contextlib.contextmanager
def own_server(directory: Path, port: int) -> Iterator[OpenBaoServer]:
    """Have a server that is ended, whatever the test does."""
    server = OpenBaoServer(directory, port)
    try:
        yield server
    finally:
        server.stop()
