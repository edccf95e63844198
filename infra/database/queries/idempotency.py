"""Idempotency keys: reserved before the effect, answered after it.

In one transaction; but for what is stored elsewhere too, where the key is bound to what it stands
for in the first transaction, and answered in the last.
"""

from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb
from sqlmodel.ext.asyncio.session import AsyncSession

from infra.database.statements import run_sql

_UNANSWERED = 0

# A key is forgotten after a day, as the contract says.
_RESERVE = """
INSERT INTO idempotency_keys (workspace_id, key, fingerprint, status, answer)
VALUES (%(workspace)s, %(key)s, %(fingerprint)s, %(status)s, '{}')
ON CONFLICT (workspace_id, key) DO UPDATE
    SET fingerprint = excluded.fingerprint, status = excluded.status, answer = excluded.answer,
        created_at = now()
    WHERE idempotency_keys.created_at < now() - interval '24 hours'
RETURNING key
"""
_FIND = "SELECT fingerprint, status, answer FROM idempotency_keys WHERE key = %(key)s"
_HOLD = f"{_FIND} FOR UPDATE"
_ANSWER = "UPDATE idempotency_keys SET status = %(status)s, answer = %(answer)s WHERE key = %(key)s"


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What a key was answered with, and for which request.

    Attributes:
        fingerprint: of the request.
        status: of the answer; 0 while there is none.
        answer: its body; while there is none, what `bind_key` stored.
    """

    fingerprint: bytes
    status: int
    answer: dict[str, Any]

    @property
    def is_answered(self) -> bool:
        """Whether the request was done to its end."""
        return self.status != _UNANSWERED


async def reserve_key(
    session: AsyncSession, workspace_id: str, key: str, fingerprint: bytes
) -> StoredAnswer | None:
    """Take a key for this transaction; else return what it was answered with before.

    A duplicate that runs at the same time waits here until the first one has ended.
    """
    taken = await run_sql(
        session,
        _RESERVE,
        {
            "workspace": workspace_id,
            "key": key,
            "fingerprint": fingerprint,
            "status": _UNANSWERED,
        },
    )
    if taken.first() is not None:
        return None
    row = (await run_sql(session, _FIND, {"key": key})).one()
    return StoredAnswer(row.fingerprint, row.status, row.answer)


async def answer_key(session: AsyncSession, key: str, status: int, answer: dict[str, Any]) -> None:
    """Store the answer of a key that this transaction took; never a one-time value."""
    await run_sql(session, _ANSWER, {"key": key, "status": status, "answer": Jsonb(answer)})


async def bind_key(session: AsyncSession, key: str, subject: dict[str, Any]) -> None:
    """Store what a key stands for that is not answered in this transaction: ids, nothing else."""
    await answer_key(session, key, _UNANSWERED, subject)


async def find_answer(session: AsyncSession, key: str) -> StoredAnswer | None:
    """Read what a key was answered with, and keep others from answering it meanwhile."""
    row = (await run_sql(session, _HOLD, {"key": key})).one_or_none()
    if row is None or row.status == _UNANSWERED:
        return None
    return StoredAnswer(row.fingerprint, row.status, row.answer)
