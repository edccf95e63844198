"""A target in hand: its row and its rollout's are held, and what is written keeps the counts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from weakref import WeakValueDictionary

from sqlmodel.ext.asyncio.session import AsyncSession

from domain.errors import Reason
from domain.rollout import TargetState
from domain.rollout_obstacles import LeftOut
from domain.rollout_work import TargetPlace
from infra.database.engine import Database
from infra.database.queries.access import act_in
from infra.database.queries.rollout_sight import candidate_of, facts_of
from infra.database.records.rollout_rows import (
    add_event,
    change_state,
    error_of,
    lock_rollout,
    lock_target,
)
from infra.database.tables import RolloutRow, RolloutTargetRow


@dataclass(slots=True)
class TargetInHand:
    """A target whose rollout is held, in a transaction that acts in the vendor's workspace."""

    session: AsyncSession
    rollout: RolloutRow
    row: RolloutTargetRow
    now: datetime

    async def note(self, kind: str, message: str) -> None:
        """Add a line about the target to the timeline."""
        await add_event(
            self.session,
            self.rollout,
            kind,
            message,
            wave=self.row.wave,
            install_id=self.row.install_id,
        )

    def end(
        self,
        state: TargetState,
        reason: Reason | str | None,
        message: str,
        *,
        moved: bool | None,
        stuck: bool | None = None,
    ) -> None:
        """Give the target a state in which it stays; see `error_of`."""
        change_state(self.rollout, self.row, state)
        self.row.waiting_for = self.row.next_try_at = None
        self.row.completed_at = self.now
        self.row.last_error = (
            None if reason is None else error_of(reason, message, moved=moved, stuck=stuck)
        )

    async def leave_out(self, left_out: LeftOut, state: TargetState = TargetState.SKIPPED) -> None:
        """Have nothing more to do with the target, and say so in the timeline."""
        self.end(state, left_out.reason, left_out.message, moved=False)
        await self.note(f"target.{state}", left_out.message)

    async def is_granted(self) -> bool:
        """Tell whether the vendor may still have to do with the install; not with one that is gone.

        The grant is not held: it may be revoked a moment later.
        """
        vendor, row = self.rollout.workspace_id, self.row
        await self.session.flush()
        await act_in(self.session, row.customer_workspace_id)
        facts = (await facts_of(self.session, vendor, [candidate_of(row)])).get(row.install_id)
        await act_in(self.session, vendor)
        return facts is not None and facts.granted


class TargetRows:
    """Holds targets, one at a time for each rollout."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._turnstiles: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def held(self, place: TargetPlace) -> AsyncIterator[TargetInHand]:
        """Hold a rollout and one of its targets.

        A hundred targets at once would wait for the one row with a connection each, and leave none
        of the pool to anybody else: in this process they wait without one.
        """
        rollout_id = place.rollout.rollout_id
        turnstile = self._turnstiles.setdefault(rollout_id, asyncio.Lock())
        async with turnstile, self.database.workspace(place.rollout.workspace_id) as session:
            rollout = await lock_rollout(session, rollout_id)
            row = await lock_target(session, rollout, place.install_id)
            yield TargetInHand(session, rollout, row, datetime.now(UTC))
