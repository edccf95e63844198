"""How much memory a process and its descendants hold, from /proc."""

import contextlib
import os
from pathlib import Path


def memory_of(pid: int) -> int:
    """Return the bytes of one process; of a page that n processes share, it holds one n-th."""
    # Gone meanwhile, or another user's.
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def memory_of_tree(pid: int) -> int:
    """Return the bytes of a process and all below it; pages that they share count once."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            # Gone meanwhile.
            with contextlib.suppress(OSError):
                children.setdefault(_parent_of(entry.name), []).append(int(entry.name))
    total = 0
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        waiting += children.get(current, [])
        total += memory_of(current)
    return total


def _parent_of(pid: str) -> int:
    # The second field, the command's name in brackets, may hold spaces and brackets.
    return int(Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[1])
