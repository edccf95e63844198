"""How much memory processes have."""

from pathlib import Path


def resident_bytes(pid: int | None) -> int:
    """Return a process's resident memory, shared pages included; 0 when it does not run."""
    if pid is None:
        return 0
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
