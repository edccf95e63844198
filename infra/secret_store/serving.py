"""Whether values may be served: not while a restored backup may hold what was purged.

OpenBao's store, the database and the machine each carry a mark that a restore of any of them puts
back or changes; values are served while the marks agree. A worker brings them back in agreement
(see `RestoreGuard`). The comparison here needs no worker to have run since the restore.
"""

import asyncio
import contextlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.errors import BulkheadError, Reason
from infra.openbao.marker import StoreMarker
from infra.openbao.restore_marker import read_restore_marker

# OpenBao is asked again after the first, beside the requests; a request waits for the answer once
# the last one is older than the second. A restore takes longer than either.
_FRESH_SECONDS: Final = 2.0
_STALE_SECONDS: Final = 10.0

# The generation moves once a minute, in three steps: who reads both sides while it moves looks
# again, and finds them in agreement.
_LOOKS: Final = 3

_STATE = text("SELECT serving, generation, next_generation, restore_id FROM secret_store_state")


@dataclass(frozen=True, slots=True)
class StoreState:
    """What the database says of the store."""

    serving: bool
    generation: int
    next_generation: int
    restore_id: str | None


async def read_state(session: AsyncSession) -> StoreState:
    """Return the state as it is committed now."""
    return StoreState(*(await session.execute(_STATE)).one())


class RestoreFile:
    """The file in which a restore is written down; read anew when it was replaced."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._seen: tuple[int, int] | None = None
        self._id: str | None = None

    def restore_id(self) -> str | None:
        """Return the id of the latest restore; None when there never was one."""
        if self._file is None:
            return None
        try:
            facts = self._file.stat()
        except FileNotFoundError:
            self._seen, self._id = None, None
            return None
        if (facts.st_ino, facts.st_mtime_ns) != self._seen:
            marker = read_restore_marker(self._file)
            self._id = None if marker is None else marker.id
            self._seen = (facts.st_ino, facts.st_mtime_ns)
        return self._id


class ServingGate:
    """Lets reads of values pass, or not. One instance a process.

    Args:
        marker: the generation that OpenBao holds.
        restored_at_file: where a restore on this machine is written down, if it is.
    """

    def __init__(self, marker: StoreMarker, restored_at_file: Path | None) -> None:
        self._marker = marker
        self._file = RestoreFile(restored_at_file)
        self._generation = 0
        self._read_at: float | None = None
        self._failed: _Failure | None = None
        self._reading: asyncio.Task[None] | None = None

    async def ask_ahead(self) -> None:
        """Ask OpenBao before a transaction is opened, if it has to be asked; raises nothing.

        A transaction that waits for a store that hangs holds a connection, and enough of them hold
        up every request that needs one.
        """
        if self._is_stale():
            with contextlib.suppress(BulkheadError):
                await asyncio.shield(self._read())

    async def require_serving(self, session: AsyncSession, known: StoreState | None = None) -> None:
        """Return when a value may be read, asked within the read's own transaction.

        `ask_ahead` comes before the transaction.

        Args:
            session: the transaction.
            known: the state, where a statement of this transaction has read it already.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE after a restore, until purges were made good, and
                when OpenBao does not answer.
        """
        for look in range(_LOOKS):
            state = known if known and look == 0 else await read_state(session)
            if not state.serving or state.restore_id != self._restore_id(state):
                raise not_serving()
            if await self._known_generation(anew=look > 0) in {
                state.generation,
                state.next_generation,
            }:
                return
        raise not_serving()

    def _restore_id(self, state: StoreState) -> str | None:
        # A machine without the file knows nothing of restores, and leaves it to the others.
        found = self._file.restore_id()
        return state.restore_id if found is None else found

    async def _known_generation(self, *, anew: bool) -> int:
        if anew:
            await asyncio.shield(self._read())
        elif self._is_stale():
            if self._failed is not None and _age(self._failed.at) < _STALE_SECONDS:
                raise self._failed.as_error()
            await asyncio.shield(self._read())
        elif _age(self._read_at) > _FRESH_SECONDS:
            # Its failure is that of whoever waits for a later one.
            self._read().add_done_callback(_look_at)
        return self._generation

    def _is_stale(self) -> bool:
        return _age(self._read_at) > _STALE_SECONDS

    def _read(self) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._take_in())
        return self._reading

    async def _take_in(self) -> None:
        started = time.monotonic()
        try:
            self._generation = await asyncio.to_thread(self._marker.read)
        except BulkheadError as error:
            self._failed = _Failure(time.monotonic(), error.reason, error.message, error.metadata)
            raise
        self._read_at, self._failed = started, None


@dataclass(frozen=True, slots=True)
class _Failure:
    """The latest look at OpenBao, which failed."""

    at: float
    reason: Reason
    message: str
    metadata: dict[str, str]

    def as_error(self) -> BulkheadError:
        return BulkheadError(self.reason, self.message, metadata=self.metadata)


def _age(moment: float | None) -> float:
    return math.inf if moment is None else time.monotonic() - moment


def _look_at(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


def not_serving() -> BulkheadError:
    """Return the failure of a read while what was purged may be back."""
    return BulkheadError(
        Reason.DEPENDENCY_UNAVAILABLE,
        "The secret store was put back to an older state, and what was purged since then is being "
        "removed from it again. Values are served as soon as that is proven: try again in a "
        "minute.",
        metadata={"dependency": "secret_store"},
    )
