"""One budget of calls for each credential, shared by everything that uses it.

A provider counts the calls of an account, and answers 429 to all of it when one of its users is too
fast. So each piece of work takes about as many calls as it will make from a bucket in the database
that refills slower than the provider's limit; and when the provider says that it takes no more for
a while, nobody asks it until then. What a client library made beyond that is counted, and taken
afterwards.
"""

from datetime import datetime
from typing import Final

from domain.errors import BulkheadError, Reason
from infra.clouds.registry import profile_of
from infra.database.engine import Database
from infra.database.records.compute import Account
from infra.database.statements import run_sql

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
_OWE: Final = """
UPDATE credential_budgets SET calls_left = greatest(calls_left - %(calls)s, -%(most)s)
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


class RateBudgets:
    """The budgets of all credentials, as the database has them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, account: Account, calls: int) -> None:
        """Take so many calls of an account's budget, which may owe some afterwards.

        So whoever needs many is not overtaken for ever by those who need few.

        Raises:
            BulkheadError: RATE_LIMITED, with the seconds until there is one again, when there is
                none, or when the provider wants to be left alone.
        """
        pace = profile_of(account.provider).pace
        values: dict[str, object] = {
            "workspace": account.workspace_id,
            "secret": account.secret_id,
            "calls": min(float(calls), pace.most),
            "most": pace.most,
            "pace": pace.per_second,
        }
        async with self._database.workspace(account.workspace_id) as session:
            if (await run_sql(session, _TAKE, values)).first() is not None:
                return
            seconds = (await run_sql(session, _WHEN, values)).scalar_one()
        raise BulkheadError(
            Reason.RATE_LIMITED,
            "The account takes no more calls for now; all of this credential's work waits its "
            f"turn. It is tried again in about {int(seconds)} s.",
            metadata={"retry_after_seconds": f"{float(seconds):.1f}"},
        )

    async def owe(self, account: Account, calls: int) -> None:
        """Take calls that were made already, and not taken before."""
        values: dict[str, object] = {
            "secret": account.secret_id,
            "calls": float(calls),
            "most": profile_of(account.provider).pace.most,
        }
        async with self._database.workspace(account.workspace_id) as session:
            await run_sql(session, _OWE, values)

    async def block_until(self, account: Account, until: datetime) -> None:
        """Ask nothing of an account before a moment: its provider said so."""
        async with self._database.workspace(account.workspace_id) as session:
            await run_sql(
                session,
                _BLOCK,
                {
                    "workspace": account.workspace_id,
                    "secret": account.secret_id,
                    "until": until,
                },
            )
