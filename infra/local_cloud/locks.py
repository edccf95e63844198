"""One at a time on this host, across threads and processes."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Which directories have anything on this host: gone with the host's own boot, as all of it is.
REGISTRY = Path("/run/bulkhead-local-cloud")


@contextmanager
def holding(name: str) -> Iterator[None]:
    """Hold a lock of this host; the kernel drops it with its holder. Not reentrant."""
    REGISTRY.mkdir(exist_ok=True)
    with (REGISTRY / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
