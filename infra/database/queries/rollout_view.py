"""Rollouts as people look at them: their rows, targets in order, timelines, and counts."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import tuple_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.rollout import RolloutState, TargetState
from infra.database.queries.pages import Page, page_of
from infra.database.statements import run_sql
from infra.database.tables import (
    RolloutEventRow,
    RolloutRow,
    RolloutTargetRow,
)

# With 5,000 targets this reads their rows once; it is what tells one wave from another.
_COUNTS = """
SELECT wave, state, waiting_for, count(*) AS targets FROM rollout_targets
WHERE rollout_id = %(rollout)s GROUP BY wave, state, waiting_for
"""


@dataclass(frozen=True, slots=True)
class WaveCount:
    """How many targets of a wave are in a state, and wait for the same."""

    wave: int
    state: str
    waiting_for: str | None
    targets: int


async def find_rollout(
    session: AsyncSession, rollout_id: str, *, lock: bool = False
) -> RolloutRow | None:
    """Read a rollout; with `lock` nobody else changes it before the end of the transaction."""
    query = select(RolloutRow).where(RolloutRow.id == rollout_id)
    if lock:
        query = query.with_for_update(key_share=True)
    return (await session.exec(query)).one_or_none()


async def page_of_rollouts(
    session: AsyncSession,
    *,
    product_id: str | None,
    state: RolloutState | None,
    before: str | None,
    limit: int,
) -> Page[RolloutRow]:
    """Read a page of rollouts, newest first, of one product and in one state if they are given."""
    conditions = []
    if product_id is not None:
        conditions.append(col(RolloutRow.product_id) == product_id)
    if state is not None:
        conditions.append(col(RolloutRow.state) == state)
    return await page_of(session, RolloutRow, *conditions, before=before, limit=limit)


async def counts_of_waves(session: AsyncSession, rollout_id: str) -> Sequence[WaveCount]:
    """Count a rollout's targets by wave, state and what they wait for."""
    found = await run_sql(session, _COUNTS, {"rollout": rollout_id})
    return [WaveCount(row.wave, row.state, row.waiting_for, row.targets) for row in found]


async def targets_of(
    session: AsyncSession,
    rollout_id: str,
    *,
    state: TargetState | None,
    wave: int | None,
    after: tuple[int, int] | None,
    limit: int,
) -> Sequence[RolloutTargetRow]:
    """Read targets in the order in which they move.

    Args:
        session: the transaction.
        rollout_id: of which rollout.
        state: only those in this state.
        wave: only those of this wave.
        after: the wave and position behind which to begin.
        limit: how many at most.
    """
    place = tuple_(col(RolloutTargetRow.wave), col(RolloutTargetRow.position))
    query = select(RolloutTargetRow).where(RolloutTargetRow.rollout_id == rollout_id)
    if state is not None:
        query = query.where(RolloutTargetRow.state == state)
    if wave is not None:
        query = query.where(RolloutTargetRow.wave == wave)
    if after is not None:
        query = query.where(place > after)
    order = (col(RolloutTargetRow.wave), col(RolloutTargetRow.position))
    return (await session.exec(query.order_by(*order).limit(limit))).all()


async def events_of(
    session: AsyncSession, rollout_id: str, *, after: int, limit: int
) -> Sequence[RolloutEventRow]:
    """Read lines of a timeline, oldest first, behind the one with this number."""
    query = (
        select(RolloutEventRow)
        .where(RolloutEventRow.rollout_id == rollout_id, RolloutEventRow.sequence > after)
        .order_by(col(RolloutEventRow.sequence))
        .limit(limit)
    )
    return (await session.exec(query)).all()
