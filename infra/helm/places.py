"""How many Helms run on one host at a time, as its memory can take, and whose turn it is."""

import asyncio
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

# A template can ask for any amount of memory, on a host that has other customers' control planes.
# Helm with the largest charts that we know takes 300 MB.
MOST_BYTES: Final = 2 * 1024 * 1024 * 1024
# More than what of those charts is in use at a time.
RENDER_HEAP_BYTES: Final = 256 * 1024 * 1024

# A deployment holds its release, of which a cluster takes 1 MiB at most. With its heap collected
# from here on, one of that size took 87 MB; 138 MB from 100 MiB on, and no less of the processor.
DEPLOYMENT_HEAP_BYTES: Final = 48 * 1024 * 1024
# What a deployment is taken to need at most.
_DEPLOYMENT_BYTES: Final = 100 * 1024 * 1024
_FEWEST_DEPLOYMENTS: Final = 4

# Of the control group that a container is limited by.
_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True)
class Places:
    """At most so many at a time.

    Two numbers, because they differ in what they can do to a host: a render takes a minute at most
    and whatever memory its chart wants; a deployment waits long, for hooks, and takes little.

    Attributes:
        renders: half of the memory, if each of them takes all that it may.
        deployments: a quarter of the memory, as they are.
    """

    renders: int
    deployments: int

    @classmethod
    def for_memory(cls, total: int) -> Self:
        """Return the places of a host with so many bytes of memory."""
        return cls(
            renders=max(1, total // 2 // MOST_BYTES),
            deployments=max(_FEWEST_DEPLOYMENTS, total // 4 // _DEPLOYMENT_BYTES),
        )

    @classmethod
    def of_this_host(cls) -> Self:
        """Return the places of the machine, or of the container, that this process is in."""
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        limit = _LIMIT.read_text().strip() if _LIMIT.exists() else ""
        return cls.for_memory(min(total, int(limit)) if limit.isdecimal() else total)


class Turns:
    """Places, for which those who wait get their turn by workspace: one of each, then the next."""

    def __init__(self, places: int) -> None:
        self._free = places
        # The workspace whose turn it is comes first.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def acquire(self, workspace_id: str) -> bool:
        """Take a place, as soon as there is one; tell whether it had to be waited for."""
        if self._free:
            self._free -= 1
            return False
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(workspace_id, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            # Its turn may have come in the same moment.
            if not turn.cancelled():
                self.release()
            raise
        return True

    def release(self) -> None:
        """Give a place back, to whose turn it is."""
        while self._waiting:
            workspace_id, turns = next(iter(self._waiting.items()))
            del self._waiting[workspace_id]
            turn = turns.popleft()
            if turns:
                self._waiting[workspace_id] = turns
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
