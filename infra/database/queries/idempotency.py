"""Idempotency keys: reserved before the effect, answered after it.

In one transaction; but for what is stored elsewhere too, where the key is bound to what it stands
for in the first transaction, and answered in the last.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from infra.database.tables import IdempotencyKeyRow

# A key is forgotten after a day, as the contract says.
_FORGOTTEN = text("idempotency_keys.created_at < now() - interval '24 hours'")

_UNANSWERED = 0


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
    taken = await session.execute(
        insert(IdempotencyKeyRow)
        .values(
            workspace_id=workspace_id,
            key=key,
            fingerprint=fingerprint,
            status=_UNANSWERED,
            answer={},
        )
        .on_conflict_do_update(
            index_elements=["workspace_id", "key"],
            set_={
                "fingerprint": fingerprint,
                "status": _UNANSWERED,
                "answer": {},
                "created_at": func.now(),
            },
            where=_FORGOTTEN,
        )
        .returning(col(IdempotencyKeyRow.key))
    )
    if taken.first() is not None:
        return None
    row = (await session.exec(select(IdempotencyKeyRow).where(IdempotencyKeyRow.key == key))).one()
    return StoredAnswer(row.fingerprint, row.status, row.answer)


async def answer_key(session: AsyncSession, key: str, status: int, answer: dict[str, Any]) -> None:
    """Store the answer of a key that this transaction took; never a one-time value."""
    await session.execute(
        update(IdempotencyKeyRow)
        .where(col(IdempotencyKeyRow.key) == key)
        .values(status=status, answer=answer)
    )


async def bind_key(session: AsyncSession, key: str, subject: dict[str, Any]) -> None:
    """Store what a key stands for that is not answered in this transaction: ids, nothing else."""
    await answer_key(session, key, _UNANSWERED, subject)


async def find_answer(session: AsyncSession, key: str) -> StoredAnswer | None:
    """Read what a key was answered with, and keep others from answering it meanwhile."""
    query = select(IdempotencyKeyRow).where(IdempotencyKeyRow.key == key).with_for_update()
    row = (await session.exec(query)).one_or_none()
    if row is None or row.status == _UNANSWERED:
        return None
    return StoredAnswer(row.fingerprint, row.status, row.answer)
