"""The API as a process of its own."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from infra.embedded.applications import environment_of
from infra.settings import ApiSettings, OpenBaoSettings
from infra.supervisor.configuration import source_root
from tests.api.gate import Gate

# Ports that were given out, bound and not listened on, until this process ends.
_given_out: list[socket.socket] = []


def free_port() -> int:
    """Return a port that nobody else is given: a server that reuses addresses can listen on it.

    One that was only looked up may be another program's by the time its server has started.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    _given_out.append(holder)
    port: int = holder.getsockname()[1]
    return port


@dataclass(frozen=True)
class Process:
    """A running API process and its two addresses."""

    process: subprocess.Popen[bytes]
    log: Path
    http: str
    https: str

    @property
    def https_port(self) -> int:
        return int(self.https.rpartition(":")[2])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextlib.contextmanager
def running_process(
    gate: Gate, *, openbao: OpenBaoSettings | None = None, **api: object
) -> Iterator[Process]:
    http, https = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    settings = ApiSettings.model_validate({"http_address": http, "https_address": https, **api})
    environment = environment_of(
        gate.settings.database,
        gate.settings.temporal,
        openbao or gate.settings.openbao,
        settings,
    )
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory, "api.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "api"],
                cwd=source_root(),
                env={
                    "PATH": os.environ["PATH"],
                    "PROVIDERS": gate.settings.providers.model_dump_json(),
                    **environment,
                },
                stderr=output,
            )
        try:
            yield Process(process, log, f"http://{http}", f"https://{https}")
        finally:
            process.kill()
            process.wait()


async def answers(url: str, *, trust: ssl.SSLContext | bool = True, seconds: float = 120) -> None:
    """Wait until an address answers."""
    deadline = time.monotonic() + seconds
    async with httpx.AsyncClient(verify=trust) as client:
        while True:
            try:
                assert (await client.get(f"{url}/healthz")).status_code == 200
            except httpx.TransportError:
                assert time.monotonic() < deadline, f"{url} does not answer"
                await asyncio.sleep(0.1)
            else:
                return
