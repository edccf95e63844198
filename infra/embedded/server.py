"""What the parts of a stack have in common: prepared, kept running, waited for."""

import time
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import httpx

from domain.errors import BulkheadError, Reason
from infra.embedded.ports import Ports, taken_by_others
from infra.supervisor.program import ProcessInfo, Program
from infra.supervisor.supervisor import Supervisor

# Cold starts on a busy machine with two cores: PostgreSQL 2 s, Temporal 3 s, OpenBao 9 s.
_READY_SECONDS = 90.0

# A program that was started this often without getting ready will not get ready by waiting.
_STARTS = 4

# A first start that takes longer has either died unseen, in another `up`, or is very slow.
_HALF_MADE_SECONDS = 30.0

_POLL_SECONDS = 0.05


class Part(StrEnum):
    """The parts of a stack, in the order in which people read them."""

    POSTGRESQL = "postgresql"
    TEMPORAL = "temporal"
    OPENBAO = "openbao"
    CONTROL_PLANES = "control-planes"
    WORKER = "worker"
    API = "api"
    CHARTS = "charts"
    REGISTRY = "registry"
    GATEWAY = "gateway"
    CLOUDS = "clouds"


class PartFailedError(BulkheadError):
    """A part did not get ready. `log_file` has its own words."""

    def __init__(self, part: Part, message: str, log_file: Path | None) -> None:
        super().__init__(Reason.DEPENDENCY_UNAVAILABLE, message, metadata={"part": part})
        self.part = part
        self.log_file = log_file

    def log_tail(self, lines: int = 15) -> list[str]:
        """Return the last lines of the part's log."""
        if self.log_file is None or not self.log_file.exists():
            return []
        with self.log_file.open("rb") as file:
            file.seek(max(0, self.log_file.stat().st_size - 64 * 1024))
            return file.read().decode(errors="replace").splitlines()[-lines:]


class Server(Protocol):
    """One part that is a program of its own."""

    @property
    def part(self) -> Part:
        """Which part it is; also the name of its group and of its program."""

    @property
    def address(self) -> str:
        """Where it answers, for people."""

    def prepare(self, *, running: bool) -> None:
        """Make everything that its program needs to find."""

    def program(self) -> Program:
        """Return the program to keep running."""

    def is_ready(self, process: ProcessInfo) -> bool:
        """Tell whether this very process does its work."""

    def is_half_made(self) -> bool:
        """Tell whether a death at the wrong moment left what no new start can use."""

    def repair(self) -> None:
        """Remove what is half-made, once the program has ended."""


def start(
    supervisor: Supervisor, server: Server, ports: Ports, seconds: float = _READY_SECONDS
) -> ProcessInfo:
    """Start a server unless it runs, and wait until it is ready.

    Raises:
        PartFailedError: it ended again and again, or did not get ready in time.
    """
    part = server.part
    before = supervisor.state(part).get(part)
    server.prepare(running=before is not None and before.state.has_process)
    supervisor.add(part, [server.program()])
    began = time.monotonic()
    repair_at = began + _HALF_MADE_SECONDS
    starts: set[int] = set()
    while True:
        process = supervisor.state(part)[part]
        if process.state.has_process and server.is_ready(process):
            return process
        if process.started_at:
            starts.add(process.started_at)
        # While it runs once more, nobody knows how it ended or who has its ports.
        ended = not process.state.has_process
        taken = taken_by_others(ports, part) if ended else []
        if ended and len(starts) > (1 if taken else _STARTS):
            why = f"{part} does not start: it ended {len(starts)} times, last with status"
            message = " ".join([f"{why} {process.exit_status}.", *taken])
            raise PartFailedError(part, message, process.log_file)
        now = time.monotonic()
        if now > began + seconds:
            message = f"{part} is not ready after {seconds:.0f} s."
            raise PartFailedError(part, message, process.log_file)
        if (len(starts) > 1 or now > repair_at) and server.is_half_made():
            supervisor.stop(part, part)
            server.repair()
            supervisor.add(part, [server.program()])
            starts.clear()
            repair_at = now + 2 * _HALF_MADE_SECONDS
        time.sleep(_POLL_SECONDS)


def answers(url: str) -> bool:
    """Tell whether a loopback address answers 200."""
    return get(url) is not None


def get(url: str) -> httpx.Response | None:
    """Return what a loopback address answers with 200, None for anything else."""
    try:
        # The environment's proxies have no part in what goes over loopback.
        with httpx.Client(trust_env=False, timeout=2.0) as client:
            response = client.get(url)
    except httpx.HTTPError:
        return None
    return response if response.status_code == httpx.codes.OK else None
