"""The progress of operations, written by the activity interceptor.

Not through the ORM: two writes an attempt are most of what an activity of ours costs beside a bare
one (`make bench`, engine), so each is one call of a function on a connection in autocommit.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, LiteralString

from psycopg import OperationalError
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from domain.errors import BulkheadError, Reason
from domain.operation import BOOKKEEPING_PREFIX, STEPS_WITHOUT_EFFECT
from infra.database.engine import (
    ANSWERS_WITHIN_SECONDS,
    DatabaseRole,
    unavailable,
    url_of,
)
from infra.settings import DatabaseSettings

_CONNECT_SECONDS: Final = 5


class Decision(StrEnum):
    """What may become of an attempt.

    Attributes:
        SKIP: the operation that took the lock over makes it needless.
        HOLD: an emergency stop covers it; it has not begun.
    """

    RUN = "run"
    SKIP = "skip"
    HOLD = "hold"


@dataclass(frozen=True, kw_only=True, slots=True)
class StepAttempt:
    """One attempt at one step of an operation; `takes_back` is true for an undo."""

    workspace_id: str
    operation_id: str
    owner_id: str
    name: str
    attempt: int
    takes_back: bool = False

    @property
    def is_bookkeeping(self) -> bool:
        """Whether the step only writes rows; the contract hides such steps."""
        return self.name.startswith(BOOKKEEPING_PREFIX)

    @property
    def has_effect(self) -> bool:
        """Whether it does more than look and wait; an emergency stop holds such steps alone."""
        return self.name not in STEPS_WITHOUT_EFFECT


class StepRecords:
    """Writes the start and the end of each attempt. One instance a process."""

    def __init__(self, settings: DatabaseSettings) -> None:
        url = url_of(settings, DatabaseRole.WORKER)
        self._pool = AsyncConnectionPool(
            kwargs={
                **url.translate_connect_args(username="user", database="dbname"),
                "autocommit": True,
                "connect_timeout": _CONNECT_SECONDS,
                "application_name": "bulkhead_steps",
                # Progress that a crash of the database loses is written again by the next step.
                "options": "-c synchronous_commit=off",
            },
            min_size=1,
            max_size=settings.pool_size,
            timeout=_CONNECT_SECONDS,
            open=False,
        )

    async def started(self, step: StepAttempt) -> Decision:
        """An attempt would begin; return whether it may.

        Raises:
            BulkheadError: ABORTED when the operation has ended, is of another owner, or lost the
                lock: nothing may be done for it, whatever its workflow believes.
                DEPENDENCY_UNAVAILABLE when the database does not answer.
        """
        if step.is_bookkeeping:
            if step.attempt == 1:
                await self._call(
                    "SELECT record_workflow_started(%s, %s)", step.workspace_id, step.operation_id
                )
            return Decision.RUN
        decision = await self._call(
            "SELECT record_step_started(%s, %s, %s, %s, %s, %s, %s)",
            step.workspace_id,
            step.operation_id,
            step.owner_id,
            step.name,
            step.attempt,
            step.takes_back,
            step.has_effect,
        )
        if decision == "refuse":
            raise BulkheadError(
                Reason.ABORTED,
                "The operation has ended, or another one took over what it works on.",
            )
        return Decision(str(decision))

    async def completed(self, step: StepAttempt) -> None:
        """An attempt succeeded; the operation's last error, if it was this step's, is over.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the database does not answer.
        """
        if step.is_bookkeeping and step.attempt == 1:
            return
        await self._call(
            "SELECT record_step_completed(%s, %s, %s, %s)",
            step.workspace_id,
            step.operation_id,
            step.name,
            step.attempt,
        )

    async def failed(
        self,
        step: StepAttempt,
        reason: str,
        message: str,
        next_try_at: datetime | None,
        gives_up_at: datetime | None = None,
    ) -> None:
        """An attempt failed; with `next_try_at` it is tried again then, until `gives_up_at`.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the database does not answer.
        """
        await self._call(
            "SELECT record_step_failed(%s, %s, %s, %s, %s, %s, %s)",
            step.workspace_id,
            step.operation_id,
            step.name,
            reason,
            message,
            next_try_at,
            gives_up_at,
        )

    async def progressed(self, step: StepAttempt, progress: str) -> None:
        """A step that takes minutes has come so far, in words.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the database does not answer.
        """
        await self._call(
            "SELECT record_step_progress(%s, %s, %s, %s)",
            step.workspace_id,
            step.operation_id,
            step.name,
            progress,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    async def _call(self, statement: LiteralString, *values: object) -> object:
        try:
            async with asyncio.timeout(ANSWERS_WITHIN_SECONDS):
                await self._pool.open()
                async with self._pool.connection() as connection:
                    row = await (await connection.execute(statement, values)).fetchone()
                    return None if row is None else row[0]
        except (OperationalError, PoolTimeout, TimeoutError) as error:
            raise unavailable() from error
