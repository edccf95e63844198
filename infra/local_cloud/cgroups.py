"""Control groups of servers: one of the same name in every hierarchy, version 1 or 2."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from domain.errors import BulkheadError, Reason

_ROOT = Path("/sys/fs/cgroup")
_GONE_SECONDS = 10.0
_POLL_SECONDS = 0.02


def hierarchies() -> list[Path]:
    """Where the hierarchies are mounted: several of version 1, the one of version 2, or both."""
    found = []
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            mounted, _, system = line.partition(" - ")
            place = Path(mounted.split()[4])
            if system.startswith(("cgroup ", "cgroup2 ")) and place.is_relative_to(_ROOT):
                found.append(place)
    return found


def are_writable() -> bool:
    """Whether groups can be made here; tried, because a read-only mount belies the mode."""
    name = f"bulkhead-probe-{os.getpid()}"
    try:
        made = make(name)
        remove(name)
    except OSError:
        return False
    return bool(made)


def make(name: str) -> list[Path]:
    """Make the groups of a server, or find them; a process joins by its number in cgroup.procs."""
    groups = []
    for hierarchy in hierarchies():
        group = hierarchy / name
        # Version 2 hands on what the parent enables, version 1 wants processors named first.
        with suppress(OSError):
            enabled = (hierarchy / "cgroup.controllers").read_text().split()
            for controller in enabled:
                with suppress(OSError):
                    (hierarchy / "cgroup.subtree_control").write_text(f"+{controller}")
        group.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            source = hierarchy / setting
            if source.exists():
                (group / setting).write_text(source.read_text())
        groups.append(group)
    return groups


def processes(name: str) -> list[int]:
    """Return every process of a server: of its own, of its pods, and what carries it."""
    found: set[int] = set()
    for hierarchy in hierarchies():
        for group in _tree(hierarchy / name):
            with suppress(OSError):
                found.update(map(int, (group / "cgroup.procs").read_text().split()))
    return sorted(found)


def remove(name: str) -> None:
    """Remove the groups of a server, whose processes must be gone.

    Raises:
        BulkheadError: INTERNAL, when the kernel keeps one for longer than ten seconds.
    """
    deadline = time.monotonic() + _GONE_SECONDS
    while True:
        for hierarchy in hierarchies():
            for group in _tree(hierarchy / name):
                with suppress(OSError):
                    group.rmdir()
        left = [place / name for place in hierarchies() if (place / name).exists()]
        if not left:
            return
        if time.monotonic() > deadline:
            raise BulkheadError(
                Reason.INTERNAL, f"The control group {left[0]} is still in use; try again."
            )
        time.sleep(_POLL_SECONDS)


def named(prefix: str) -> set[str]:
    """Return the names of groups that begin so."""
    return {path.name for place in hierarchies() for path in place.glob(f"{prefix}*")}


def _tree(top: Path) -> Iterator[Path]:
    """Yield a group and all below it, the deepest first."""
    for directory, _, _ in os.walk(top, topdown=False):
        yield Path(directory)
