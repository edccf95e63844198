"""One budget of calls for each credential, shared by everything that uses it.

A provider counts the calls of an account, and answers 429 to all of it when one of its users is too
fast. So each piece of work takes about as many calls as it will make from a bucket in the database
that refills slower than the provider's limit; and when the provider says that it takes no more for
a while, nobody asks it until then. When the work is done, what it really made is settled: what it
made beyond is taken afterwards, and what it did not make comes back.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from domain.cloud import Provider
from domain.errors import BulkheadError, Reason
from infra.clouds.cloud import CallCount
from infra.clouds.registry import profile_of
from infra.database.engine import Database
from infra.database.statements import run_sql

# When a provider says that it takes no more calls, and not for how long.
_PAUSE_SECONDS: Final = 30.0

# The clock of each statement is its own, not the transaction's begin.
_TAKE: Final = """
INSERT INTO credential_budgets AS b (workspace_id, secret_id, calls_left, refilled_at)
VALUES (%(workspace)s, %(secret)s, %(most)s - %(calls)s, clock_timestamp())
ON CONFLICT (workspace_id, secret_id) DO UPDATE SET
    calls_left = least(%(most)s, b.calls_left
        + %(pace)s * extract(epoch FROM clock_timestamp() - b.refilled_at)) - %(calls)s,
    refilled_at = clock_timestamp()
WHERE coalesce(b.blocked_until <= clock_timestamp(), true)
    AND b.calls_left + %(pace)s * extract(epoch FROM clock_timestamp() - b.refilled_at) >= 1
RETURNING calls_left
"""

# A debt is paid back within the time in which a whole budget comes back.
_SETTLE: Final = """
UPDATE credential_budgets
SET calls_left = least(%(most)s, greatest(calls_left - %(calls)s, -%(most)s))
WHERE secret_id = %(secret)s
"""

_WHEN: Final = """
SELECT greatest(
    extract(epoch FROM blocked_until - clock_timestamp()),
    (1 - calls_left) / %(pace)s - extract(epoch FROM clock_timestamp() - refilled_at),
    1)
FROM credential_budgets WHERE secret_id = %(secret)s
"""

_BLOCK: Final = """
INSERT INTO credential_budgets AS b (workspace_id, secret_id, calls_left, blocked_until)
VALUES (%(workspace)s, %(secret)s, 0, %(until)s)
ON CONFLICT (workspace_id, secret_id) DO UPDATE SET
    blocked_until = greatest(b.blocked_until, excluded.blocked_until)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Credential:
    """Whose budget it is: a secret's, whichever of its versions is used."""

    workspace_id: str
    secret_id: str
    provider: Provider


class RateBudgets:
    """The budgets of all credentials, as the database has them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def spending(self, credential: Credential, calls: int) -> AsyncIterator["Spending"]:
        """Do a piece of work within a budget; what it made is settled when it is done.

        Args:
            credential: with which it is done.
            calls: about how many it will make, as far as that is known when it begins.

        Raises:
            BulkheadError: RATE_LIMITED when the budget has none, or the provider says so, which is
                then so for all.
        """
        spending = Spending(self, credential)
        await spending.take(calls)
        try:
            yield spending
        except BulkheadError as error:
            if error.reason is Reason.RATE_LIMITED and not spending.was_refused:
                seconds = float(error.metadata.get("retry_after_seconds", _PAUSE_SECONDS))
                until = datetime.now(UTC) + timedelta(seconds=seconds)
                await self.block_until(credential, until)
            raise
        finally:
            # Nobody's work fails because it cannot be settled.
            with suppress(BulkheadError):
                await self.settle(credential, spending.made - spending.taken)

    async def take(self, credential: Credential, calls: int) -> None:
        """Take so many calls of a budget, which may owe some afterwards.

        So whoever needs many is not overtaken for ever by those who need few.

        Raises:
            BulkheadError: RATE_LIMITED, with the seconds until there is one again, when there is
                none, or when the provider wants to be left alone.
        """
        values = self._values(credential, calls)
        async with self._database.workspace(credential.workspace_id) as session:
            if (await run_sql(session, _TAKE, values)).first() is not None:
                return
            seconds = (await run_sql(session, _WHEN, values)).scalar_one()
        raise BulkheadError(
            Reason.RATE_LIMITED,
            "The account takes no more calls for now; all of this credential's work waits its "
            f"turn. It is tried again in about {int(seconds)} s.",
            metadata={"retry_after_seconds": f"{float(seconds):.1f}"},
        )

    async def settle(self, credential: Credential, calls: int) -> None:
        """Take calls that were made already, and not taken before; less than none come back."""
        if not calls:
            return
        async with self._database.workspace(credential.workspace_id) as session:
            await run_sql(session, _SETTLE, self._values(credential, calls))

    async def block_until(self, credential: Credential, until: datetime) -> None:
        """Ask nothing of an account before a moment: its provider said so."""
        async with self._database.workspace(credential.workspace_id) as session:
            await run_sql(
                session,
                _BLOCK,
                {
                    "workspace": credential.workspace_id,
                    "secret": credential.secret_id,
                    "until": until,
                },
            )

    @staticmethod
    def _values(credential: Credential, calls: int) -> dict[str, object]:
        pace = profile_of(credential.provider).pace
        return {
            "workspace": credential.workspace_id,
            "secret": credential.secret_id,
            "calls": float(calls),
            "most": pace.most,
            "pace": pace.per_second,
        }


class Spending:
    """What one piece of work takes of a budget, and what it made.

    Attributes:
        taken: calls that were taken of the budget.
        was_refused: the budget had none when more were to be taken.
    """

    def __init__(self, budgets: RateBudgets, credential: Credential) -> None:
        self._budgets = budgets
        self._credential = credential
        self._counts: list[CallCount] = []
        self.taken = 0
        self.was_refused = False

    @property
    def made(self) -> int:
        """Calls that were made so far."""
        return sum(count.made for count in self._counts)

    def count(self, calls: CallCount) -> None:
        """Add what a client counts; from any thread."""
        self._counts.append(calls)

    async def take(self, calls: int) -> None:
        """Take some, or some more.

        Raises:
            BulkheadError: RATE_LIMITED when there is none.
        """
        calls = min(calls, int(profile_of(self._credential.provider).pace.most))
        try:
            await self._budgets.take(self._credential, calls)
        except BulkheadError:
            self.was_refused = True
            raise
        self.taken += calls
