"""Says why a control plane does not become ready: what its processes do, and their last words."""

import errno
import logging
import re
import socket
import time
from pathlib import Path
from typing import Final

from domain.cluster import Component
from domain.errors import BulkheadError, Reason
from infra.control_planes.files import disk_full, free_bytes
from infra.control_planes.first_start import begin_again, is_stuck
from infra.control_planes.layout import Layout
from infra.supervisor.program import ProcessInfo, ProcessState
from infra.supervisor.supervisor import Supervisor

_logger = logging.getLogger(__name__)

# Below this a process that ends is taken to have ended of it, whatever it says: etcd makes room
# for 64 MiB of its log at a time.
_LITTLE_SPACE_BYTES: Final = 64 * 1024 * 1024

# How often a component may end during one wait before the wait is given up. The controller
# manager and the scheduler are not listed: they end whenever the API server takes over 10 s.
_ENDS: Final = {Component.ETCD: 3, Component.API_SERVER: 5, Component.TUNNEL_SERVER: 5}

# A look costs an answer about every process of the host.
_LOOK_SECONDS: Final = 0.4

_TAIL_BYTES: Final = 16 * 1024
_LINE_CHARACTERS: Final = 300

_FULL: Final = re.compile(rb"no space left on device|disk quota exceeded", re.IGNORECASE)
_PORT_TAKEN: Final = re.compile(rb"address already in use", re.IGNORECASE)

# Lines of klog at the levels error and fatal, of cobra, and of etcd.
_LAST_WORDS: Final = re.compile(
    rb'^(?:[EF]\d{4} |Error: |panic: |\{"level":"(?:error|fatal|panic)")'
)


class ProcessWatch:
    """Follows the processes of one control plane during one wait.

    Only what they say from now on counts: their logs may hold the troubles of an earlier try.
    """

    def __init__(self, supervisor: Supervisor, layout: Layout) -> None:
        self._supervisor = supervisor
        self._layout = layout
        self._log_starts: dict[Path, int] = {}
        self._processes: dict[str, ProcessInfo] = {}
        self._ends: dict[str, int] = dict.fromkeys(Component, 0)
        self._looked_at = 0.0
        self._look()
        for process in self._processes.values():
            if process.log_file.exists():
                self._log_starts[process.log_file] = process.log_file.stat().st_size

    def check(self) -> None:
        """Mend what is known to hang, and raise when waiting does not mend what ended.

        Raises:
            BulkheadError: CAPACITY_UNAVAILABLE for a full disk, CONFLICT for a port that another
                process has, INTERNAL for a component that keeps ending.
        """
        if time.monotonic() - self._looked_at < _LOOK_SECONDS:
            return
        before = self._processes
        self._look()
        for component in Component:
            if not _has_ended(before.get(component), self._processes.get(component)):
                continue
            self._ends[component] += 1
            said = self._said(component)
            if _FULL.search(said) or free_bytes(self._layout.directory) < _LITTLE_SPACE_BYTES:
                raise disk_full(self._layout.directory)
            if _PORT_TAKEN.search(said):
                raise port_taken(self._layout, component)
            if self._ends[component] >= _ENDS.get(component, self._ends[component] + 1):
                raise BulkheadError(
                    Reason.INTERNAL,
                    f"{component} keeps ending. Its last words: {_last_words(said)}",
                    metadata={"component": component},
                )
        if is_stuck(self._layout, self._processes.get(Component.ETCD)):
            _logger.warning("etcd of %s begins again: it hangs", self._layout.name)
            begin_again(self._supervisor, self._layout)
            self._look()

    def all_run(self) -> bool:
        """Tell whether every component has a process, as of a fresh look."""
        self._look()
        return all(
            component in self._processes and self._processes[component].state.has_process
            for component in Component
        )

    def too_late(self, seconds: float, missing: str) -> BulkheadError:
        """Return the failure for a wait that took too long."""
        self._look()
        down = [
            f"{component} does not run; its last words: {_last_words(self._said(component))}"
            for component in Component
            if component not in self._processes
            or not self._processes[component].state.has_process
            or self._ends[component]
        ]
        return BulkheadError(
            Reason.DEADLINE_EXCEEDED,
            f"Waited {seconds:.0f} s in vain for {missing}."
            + (f" {'; '.join(down)}" if down else " All components run: the host may be too busy."),
            metadata={"missing": missing},
        )

    def _look(self) -> None:
        self._processes = self._supervisor.state(self._layout.name)
        self._looked_at = time.monotonic()

    def _said(self, component: Component) -> bytes:
        process = self._processes.get(component)
        if process is None or not process.log_file.exists():
            return b""
        with process.log_file.open("rb") as log:
            size = log.seek(0, 2)
            start = self._log_starts.get(process.log_file, 0)
            # A log that was cut meanwhile is smaller than it was.
            log.seek(max(size - _TAIL_BYTES, start if start <= size else 0))
            return log.read()


def check_ports(layout: Layout) -> None:
    """Raise CONFLICT when a process that is not the cluster's has one of its ports."""
    if busy_ports(layout):
        raise port_taken(layout, None)


def busy_ports(layout: Layout) -> dict[str, int]:
    """Return the ports of a control plane on which nothing new could listen, by whose they are."""
    busy: dict[str, int] = {}
    for name, (address, port) in layout.ports.items():
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As the programs do: connections that are still closing are no hindrance.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
                probe.listen(1)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                busy[name] = port
    return busy


def port_taken(layout: Layout, component: Component | None) -> BulkheadError:
    """Return the failure for ports, of one component or of any, that another process has."""
    busy = {
        name: port
        for name, port in busy_ports(layout).items()
        if component is None or name.startswith(component)
    }
    ports = ", ".join(f"{port} ({name})" for name, port in busy.items()) or "a port of the cluster"
    return BulkheadError(
        Reason.CONFLICT,
        f"Another process on the control-plane host listens on {ports}. End it, or give the host "
        "another CONTROL_PLANES__FIRST_PORT.",
        metadata={"ports": ",".join(str(port) for port in busy.values())},
        retryable=True,
    )


def _has_ended(before: ProcessInfo | None, now: ProcessInfo | None) -> bool:
    if now is None:
        return False
    if before is None or before.pid is None:
        return now.state in {ProcessState.BACKOFF, ProcessState.FATAL, ProcessState.EXITED} and (
            before is None or now.started_at != before.started_at or now.state != before.state
        )
    return now.pid != before.pid


def _last_words(said: bytes) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if _LAST_WORDS.match(line)] or lines
    return telling[-1].decode(errors="replace")[:_LINE_CHARACTERS] if telling else "none"
