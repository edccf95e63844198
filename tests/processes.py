"""What the kernel says of running processes, and how it suspends them."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def core_limits(pid: int) -> tuple[str, str]:
    """Return how large a core dump of a process may get: the soft and the hard limit."""
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith("Max core file size"):
            soft, hard = line.removeprefix("Max core file size").split()[:2]
            return soft, hard
    message = "the kernel names no limit"
    raise AssertionError(message)


@contextmanager
def suspended(*pids: int) -> Iterator[None]:
    """Let processes take connections and answer nothing, until the block ends."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        for pid in pids:
            _await_standstill(pid)
        yield
    finally:
        for pid in pids:
            # Killed in between, it is gone.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _await_standstill(pid: int) -> None:
    # The signal is only sent when `kill` returns: a thread on another processor runs on for long
    # enough to answer a handshake, which happened once in a few hundred runs.
    deadline = time.monotonic() + 10
    while any(_state_of(thread) not in "TtZ" for thread in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < deadline, f"process {pid} does not stand still"
        time.sleep(0.001)


def _state_of(thread: Path) -> str:
    # The name before it, in brackets, may hold anything.
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def is_busy(pid: int) -> bool:
    """Tell whether a process's first thread runs, or would if it were let."""
    return _state_of(Path(f"/proc/{pid}/task/{pid}")) in "RD"


def processes_told(mark: str) -> Iterator[int]:
    """Find every process that has a text in its environment."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            variables = (directory / "environ").read_bytes()
        except OSError:
            continue
        if mark.encode() in variables:
            yield int(directory.name)
