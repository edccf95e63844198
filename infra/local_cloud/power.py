"""What runs of a server, known by the one name that its parts have on the host."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from domain.errors import BulkheadError, Reason
from infra.local_cloud import cgroups
from infra.local_cloud.commands import execute

NAMESPACES = Path("/run/netns")
_DEATH_SECONDS = 10.0
_POLL_SECONDS = 0.02


def first_process(key: str) -> int | None:
    """Find the process that is number 1 in the server's own namespace."""
    for pid in cgroups.processes(key):
        with suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text()
            numbers = status.partition("NSpid:")[2].partition("\n")[0].split()
            # Pods have a further namespace each, with a process 1 of its own.
            if len(numbers) == 2 and numbers[1] == "1":  # noqa: PLR2004 - outside, inside
                return pid
    return None


def end_processes(key: str) -> None:
    """End all processes of a server at once, and remove its control groups.

    Raises:
        BulkheadError: INTERNAL, when the kernel does not end them within ten seconds.
    """
    deadline = time.monotonic() + _DEATH_SECONDS
    while running := cgroups.processes(key):
        # With the first process of its namespace the kernel ends all others in it; what carries
        # it must not go first, because it would leave the others running.
        first = first_process(key)
        for pid in (first,) if first else running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise BulkheadError(
                Reason.INTERNAL, f"The processes {running} of {key} cannot be ended; try again."
            )
        time.sleep(_POLL_SECONDS)
    cgroups.remove(key)


def remove_network(key: str) -> None:
    """Remove the network namespace and the interface of a server, if they are there."""
    if (NAMESPACES / key).exists():
        execute("ip", "netns", "delete", key)
    # The pair would go with the namespace, but only once the kernel has got round to it.
    with suppress(BulkheadError):
        execute("ip", "link", "delete", key)
