"""Finds and ends processes of one control plane, whoever started them."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from domain.errors import BulkheadError, Reason
from infra.control_planes.layout import Layout

_KILL_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.02

_GROUP_VARIABLE: Final = b"SUPERVISOR_GROUP_NAME="


def processes_of(layout: Layout) -> dict[int, str]:
    """Return the processes that belong to a control plane, by id, with their program's name.

    One belongs to it if its command line names the directory, if it works in there, if it was
    started for the cluster's group, or if it has the cluster's user id. Another installation on
    the same machine may use the same user ids: what runs in a group of its own is left alone.
    """
    return dict(_find(layout))


def end_processes(layout: Layout) -> None:
    """Kill whatever belongs to a control plane and is not stopped otherwise.

    Raises:
        BulkheadError: INTERNAL when something survives being killed.
    """
    deadline = time.monotonic() + _KILL_SECONDS
    while found := processes_of(layout):
        if time.monotonic() > deadline:
            raise BulkheadError(
                Reason.INTERNAL,
                f"Processes of the cluster survive SIGKILL: {found}. Look at the host's disks.",
            )
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(_POLL_SECONDS)


def _find(layout: Layout) -> Iterator[tuple[int, str]]:
    own = os.getpid()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != own and _belongs(Path(entry.path), layout):
            yield int(entry.name), _program(Path(entry.path))


def _belongs(process: Path, layout: Layout) -> bool:
    directory = os.fsencode(layout.directory)
    try:
        arguments = (process / "cmdline").read_bytes()
        if not arguments:
            return False  # A kernel thread, or one that has ended.
        if directory in arguments:
            return True
        uid = process.stat().st_uid
        environment = (process / "environ").read_bytes().split(b"\0")
        groups = [
            entry.removeprefix(_GROUP_VARIABLE)
            for entry in environment
            if entry.startswith(_GROUP_VARIABLE)
        ]
        if groups:
            return groups == [layout.name.encode()]
        if layout.uid is not None and uid == layout.uid:
            return True
        folder = os.fsencode((process / "cwd").readlink())
    except OSError:
        return False  # Gone meanwhile, or another user's, who cannot run ours.
    return folder == directory or folder.startswith(directory + b"/")


def _program(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "gone"
