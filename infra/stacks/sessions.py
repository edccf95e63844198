"""The processes of a run, found by a mark in their environment, and their certain end.

The mark is inherited by whatever a run starts: the runner, the engine, provider programs. It is
found also when the worker that started them is gone and nothing was written down.
"""

import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from uuid_utils import uuid7

# The name of the engine's process: Pulumi's CLI.
ENGINE: Final = "pulumi"
# How long a provider program may take to finish the call that it is in.
INTERRUPT_SECONDS: Final = 20.0
_SECOND_INTERRUPT_SECONDS: Final = 5.0
# What has no engine any more ends by itself, or is in a call that cannot be taken back.
_ORPHAN_SECONDS: Final = 2.0
_KILL_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.1
_MARK: Final = "BULKHEAD_STACK_RUN"
_PROC: Final = Path("/proc")


def mark_of(stack_id: str) -> dict[str, str]:
    """Return the environment that marks the processes of a stack's run."""
    return {_MARK: stack_id}


def processes_of(stack_id: str) -> list[int]:
    """Return the ids of the processes of a stack's runs on this host, zombies left out."""
    mark = f"{_MARK}={stack_id}".encode()
    found = []
    for directory in _PROC.iterdir():
        if not directory.name.isdecimal():
            continue
        try:
            # A zombie's is empty.
            variables = (directory / "environ").read_bytes()
        except OSError:
            continue
        if mark in variables.split(b"\0"):
            found.append(int(directory.name))
    return found


def end_processes(stack_id: str, *, patience: float = INTERRUPT_SECONDS) -> bool:
    """End all processes of a stack's runs on this host; blocks until they are gone.

    Args:
        stack_id: whose.
        patience: how long the engine may finish what the provider is doing, in seconds.

    Returns:
        Whether there were any.
    """
    if not processes_of(stack_id):
        return False
    end_engine(stack_id, patience=patience)
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while processes_of(stack_id) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    kill_processes(stack_id)
    return True


def end_engine(stack_id: str, *, patience: float) -> None:
    """End the engine of a stack's runs on this host; blocks until it is gone.

    It gets an interrupt, at which it finishes what the provider is doing and writes it down; a
    second one, at which it writes down what it knows; then it is killed. Nobody else is
    interrupted: a provider program would leave the call that the engine waits for.
    """
    for seconds in (patience, _SECOND_INTERRUPT_SECONDS):
        deadline = time.monotonic() + seconds
        _signal(_engines_of(stack_id), signal.SIGINT)
        while _engines_of(stack_id) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    _signal(_engines_of(stack_id), signal.SIGKILL)


def kill_processes(stack_id: str, *, spare: int | None = None) -> None:
    """Kill all processes of a stack's runs on this host, one spared if need be."""
    deadline = time.monotonic() + _KILL_SECONDS
    while left := [process for process in processes_of(stack_id) if process != spare]:
        _signal(left, signal.SIGKILL)
        if time.monotonic() > deadline:
            return
        time.sleep(_POLL_SECONDS)


def _signal(processes: Sequence[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def _engines_of(stack_id: str) -> list[int]:
    return [process for process in processes_of(stack_id) if _name_of(process) == ENGINE]


def _name_of(process: int) -> str:
    try:
        return (_PROC / str(process) / "comm").read_text().strip()
    except OSError:
        return ""


def new_holder() -> str:
    """Return a name for whoever takes a lease in this process: never used twice."""
    process = os.getpid()
    return "/".join((_host(), str(process), _start_of(process) or "", uuid7().hex))


def is_gone(holder: str) -> bool:
    """Tell whether a holder is known to have ended: its process was on this host, and is not."""
    parts = holder.split("/")
    if len(parts) != 4 or parts[0] != _host() or not parts[1].isdecimal():  # noqa: PLR2004
        return False
    return _start_of(int(parts[1])) != parts[2]


def _host() -> str:
    """Name this host and, where a container has processes of its own, that container."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    return f"{socket.gethostname()}~{boot[:8]}~{namespace}"


def _start_of(process: int) -> str | None:
    """Return when a process started, in ticks since the boot; None: there is none."""
    try:
        text = (_PROC / str(process) / "stat").read_text()
    except OSError:
        return None
    # The name stands in parentheses and may have any character.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]
