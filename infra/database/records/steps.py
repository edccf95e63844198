"""The progress of operations, written by the activity interceptor alone.

Not through the ORM: two writes an attempt are most of what an activity of ours costs beside a bare
one (`make bench`, engine), so each is one call of a function on a connection in autocommit.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString

from psycopg import OperationalError
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from domain.operation import BOOKKEEPING_PREFIX
from infra.database.engine import DatabaseRole, unavailable, url_of
from infra.settings import DatabaseSettings

_CONNECT_SECONDS: Final = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class StepAttempt:
    """One attempt at one step of an operation."""

    workspace_id: str
    operation_id: str
    name: str
    attempt: int

    @property
    def is_bookkeeping(self) -> bool:
        """Whether the step only writes rows; the contract hides such steps."""
        return self.name.startswith(BOOKKEEPING_PREFIX)


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

    async def started(self, step: StepAttempt) -> None:
        """An attempt begins; the first one of an operation shows that its workflow runs.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the database does not answer.
        """
        await self._call(
            "SELECT record_step_started(%s, %s, %s, %s, %s)",
            step.workspace_id,
            step.operation_id,
            step.name,
            step.attempt,
            not step.is_bookkeeping,
        )

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
        self, step: StepAttempt, reason: str, message: str, next_try_at: datetime | None
    ) -> None:
        """An attempt failed; with `next_try_at` it is tried again then.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the database does not answer.
        """
        await self._call(
            "SELECT record_step_failed(%s, %s, %s, %s, %s, %s)",
            step.workspace_id,
            step.operation_id,
            step.name,
            reason,
            message,
            next_try_at,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    async def _call(self, statement: LiteralString, *values: object) -> None:
        try:
            await self._pool.open()
            async with self._pool.connection() as connection:
                await connection.execute(statement, values)
        except (OperationalError, PoolTimeout) as error:
            raise unavailable() from error
