"""What the kernel says of running processes."""

from collections.abc import Iterator
from pathlib import Path


def core_limits(pid: int) -> tuple[str, str]:
    """Return how large a core dump of a process may get: the soft and the hard limit."""
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith("Max core file size"):
            soft, hard = line.removeprefix("Max core file size").split()[:2]
            return soft, hard
    message = "the kernel names no limit"
    raise AssertionError(message)


def processes_told(mark: str) -> Iterator[int]:
    """Find every process that has a text in its environment."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            variables = (directory / "environ").read_bytes()
        except OSError:
            continue
        if mark.encode() in variables:
            yield int(directory.name)
