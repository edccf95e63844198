"""Gives out turns: which targets of a rollout begin now, and why the others do not.

A turn is given out by a row, for a while: `waiting_for` is empty and `next_try_at` lies ahead. Who
takes it begins within that time, or the turn is given out again; nothing else remembers it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlmodel.ext.asyncio.session import AsyncSession

from domain.errors import Reason
from domain.rollout import TargetState
from domain.rollout_obstacles import Blocked, LeftOut, TargetFacts, Wanted, what_stops
from domain.rollout_work import Claim
from infra.database.engine import Database
from infra.database.queries.compatibility import misfits_among
from infra.database.queries.rollout_sight import (
    Candidate,
    due_to_move,
    due_to_plan,
    due_to_return,
    facts_of,
    later_targets,
    targets_to_ask,
    untaken_turns,
)
from infra.database.records.rollout_rows import (
    add_event,
    end_targets,
    error_of,
    recordset,
    recount,
)
from infra.database.statements import run_sql
from infra.database.tables import PackageVersionRow, RolloutRow

# A workflow begins what it was given within milliseconds. A worker that dies in between is missed
# after six seconds, and its successor begins it.
_TURN: Final = timedelta(seconds=30)

# A look from the host of a cluster takes a minute when a Service does not answer.
_LOOK: Final = timedelta(minutes=2)

# Facts of so many installs are read at a time, and so often in one transaction.
_LOOKED_AT: Final = 200
_ROUNDS: Final = 10

# So many are named one by one in a timeline.
_NAMED: Final = 5

_GIVE = """
UPDATE rollout_targets SET state = %(state)s, wave = coalesce(%(wave)s, wave), waiting_for = NULL,
    next_try_at = %(until)s, attempts = attempts + 1, started_at = coalesce(started_at, now())
WHERE rollout_id = %(rollout)s AND install_id = ANY (%(installs)s)
"""

# The state of a target that shall return stays: it still has the new version.
_GIVE_BACK = """
UPDATE rollout_targets SET waiting_for = NULL, next_try_at = %(until)s, attempts = attempts + 1
WHERE rollout_id = %(rollout)s AND install_id = ANY (%(installs)s)
"""

# What is looked at stays as it is.
_ASK = """
UPDATE rollout_targets SET next_try_at = %(until)s, attempts = attempts + 1
WHERE rollout_id = %(rollout)s AND install_id = ANY (%(installs)s)
"""

_BLOCK = """
UPDATE rollout_targets SET state = coalesce(%(state)s, state), waiting_for = b.obstacle,
    next_try_at = b.next_try_at
FROM unnest(%(installs)s::text[], %(obstacles)s::text[], %(moments)s::timestamptz[])
    AS b (install_id, obstacle, next_try_at)
WHERE rollout_id = %(rollout)s AND rollout_targets.install_id = b.install_id
"""

_UNPLANNED = """
UPDATE rollout_targets SET last_error = e.error
FROM jsonb_to_recordset(%(errors)s) AS e (install_id text, error jsonb)
WHERE rollout_id = %(rollout)s AND rollout_targets.install_id = e.install_id
"""

_TO_CANARY = """
UPDATE rollout_targets SET wave = 0
WHERE rollout_id = %(rollout)s AND install_id = ANY (%(installs)s)
"""


@dataclass(slots=True)
class _Sorted:
    """Candidates by what becomes of them."""

    free: list[Claim] = field(default_factory=list)
    blocked: dict[str, Blocked] = field(default_factory=dict)
    left_out: dict[str, LeftOut] = field(default_factory=dict)


class Turns:
    """Reads facts as the sweeper does, and writes in the transaction of the rollout's row."""

    def __init__(self, sweeper: Database) -> None:
        self._sweeper = sweeper

    async def to_move(
        self, session: AsyncSession, rollout: RolloutRow, wanted: Wanted, places: int, now: datetime
    ) -> list[Claim]:
        """Give turns to targets of the wave and to stragglers, which join it."""
        claims: list[Claim] = []
        for _ in range(_ROUNDS):
            found = await due_to_move(session, rollout.id, rollout.wave, now, _LOOKED_AT)
            sorted_ = await self._sort(session, rollout, found, wanted, now)
            given = sorted_.free[: places - len(claims)]
            await self._block(session, rollout, sorted_.blocked, TargetState.WAITING)
            await self._leave_out(session, rollout, sorted_.left_out)
            if given:
                parameters = {
                    "rollout": rollout.id,
                    "state": TargetState.WAITING,
                    "wave": rollout.wave,
                    "until": now + _TURN,
                    "installs": [each.install_id for each in given],
                }
                await run_sql(session, _GIVE, parameters)
            claims += given
            if len(found) < _LOOKED_AT or len(claims) >= places:
                break
        await recount(session, rollout)
        return claims

    async def to_return(
        self,
        session: AsyncSession,
        rollout: RolloutRow,
        wanted: Wanted,
        places: int,
        now: datetime,
        *,
        wave: int | None,
        late: bool,
    ) -> list[Claim]:
        """Give turns to targets that shall return.

        Args:
            session: the transaction that holds the rollout.
            rollout: the rollout.
            wanted: what they shall become.
            places: how many turns there are.
            now: the moment.
            wave: of which wave; None: of each.
            late: those that cannot return now are given up.
        """
        asked_at = rollout.rollback_requested_at
        found = await due_to_return(session, rollout.id, wave, now, _LOOKED_AT, asked_at=asked_at)
        sorted_ = await self._sort(session, rollout, found, wanted, now)
        given = sorted_.free[:places]
        errors = _errors_of(sorted_.left_out)
        if late:
            errors |= {
                install_id: error_of(
                    Reason.DEADLINE_EXCEEDED,
                    f"It could not be taken back in time: {blocked.obstacle}.",
                    moved=True,
                    stuck=True,
                )
                for install_id, blocked in sorted_.blocked.items()
            }
        else:
            await self._block(session, rollout, sorted_.blocked, None)
        await end_targets(session, rollout, errors, TargetState.FAILED)
        if given:
            parameters = {
                "rollout": rollout.id,
                "until": now + _TURN,
                "installs": [each.install_id for each in given],
            }
            await run_sql(session, _GIVE_BACK, parameters)
        await recount(session, rollout)
        return given

    async def to_plan(
        self, session: AsyncSession, rollout: RolloutRow, wanted: Wanted, places: int, now: datetime
    ) -> list[Claim]:
        """Give turns to targets whose plan is made; those that cannot be asked are tried again."""
        found = await due_to_plan(session, rollout.id, now, _LOOKED_AT)
        # A plan changes nothing: what a customer lets happen, or stops, does not matter to it.
        peek = replace(wanted, only_looks=True)
        sorted_ = await self._sort(session, rollout, found, peek, now)
        given = sorted_.free[:places]
        await self._block(session, rollout, sorted_.blocked, None)
        errors = _errors_of(sorted_.left_out)
        if errors:
            await run_sql(session, _UNPLANNED, {"rollout": rollout.id, "errors": recordset(errors)})
        if given:
            parameters = {
                "rollout": rollout.id,
                "state": TargetState.PENDING,
                "wave": None,
                "until": now + _TURN,
                "installs": [each.install_id for each in given],
            }
            await run_sql(session, _GIVE, parameters)
        return given

    async def untaken(
        self, session: AsyncSession, rollout: RolloutRow, now: datetime, limit: int
    ) -> list[Claim]:
        """Return the turns that were given out and that nobody has taken yet."""
        found = await untaken_turns(session, rollout, now, limit)
        return await self._at_their_hosts(rollout, found)

    async def to_ask(
        self, session: AsyncSession, rollout: RolloutRow, now: datetime, limit: int
    ) -> list[Claim]:
        """Return which targets are looked at from their clusters' hosts now; until then no more."""
        found = await targets_to_ask(session, rollout.id, now, limit)
        claims = await self._at_their_hosts(rollout, found)
        there = {each.install_id for each in claims}
        # Who is gone, or not the vendor's any more, is found by the look from here.
        gone = [each.install_id for each in found if each.install_id not in there]
        for installs, until in ((list(there), now + _LOOK), (gone, None)):
            parameters = {"rollout": rollout.id, "until": until, "installs": installs}
            await run_sql(session, _ASK, parameters)
        return claims

    async def _at_their_hosts(self, rollout: RolloutRow, found: Sequence[Candidate]) -> list[Claim]:
        if not found:
            return []
        async with self._sweeper.transaction() as sweeping:
            facts = await facts_of(sweeping, rollout.workspace_id, found)
        return [
            Claim(install_id=each, host=known.host)
            for each, known in facts.items()
            if known.granted
        ]

    async def fill_canary(
        self, session: AsyncSession, rollout: RolloutRow, wanted: Wanted, size: int, now: datetime
    ) -> int:
        """Have targets of later waves be the canary; return how many could be reached."""
        found = await later_targets(session, rollout.id, rollout.wave, _LOOKED_AT)
        sorted_ = await self._sort(session, rollout, found, wanted, now)
        await self._leave_out(session, rollout, sorted_.left_out)
        await recount(session, rollout)
        free = sorted_.free[:size]
        if free:
            installs = [each.install_id for each in free]
            await run_sql(session, _TO_CANARY, {"rollout": rollout.id, "installs": installs})
        return len(free)

    async def _sort(
        self,
        session: AsyncSession,
        rollout: RolloutRow,
        candidates: Sequence[Candidate],
        wanted: Wanted,
        now: datetime,
    ) -> _Sorted:
        facts: Mapping[str, TargetFacts] = {}
        misfits: Mapping[str, str] = {}
        if candidates:
            async with self._sweeper.transaction() as sweeping:
                facts = await facts_of(sweeping, rollout.workspace_id, candidates)
                if not wanted.takes_back:
                    key = (rollout.workspace_id, rollout.package_version_id)
                    version = await session.get_one(PackageVersionRow, key)
                    clusters = {(one.customer_workspace_id, one.cluster_id) for one in candidates}
                    misfits = await misfits_among(sweeping, version, clusters)
        sorted_ = _Sorted()
        for each in candidates:
            found = facts.get(each.install_id)
            if found is not None and each.cluster_id in misfits:
                found = replace(found, fits=False)
            match what_stops(found, wanted, now):
                case Blocked() as blocked:
                    sorted_.blocked[each.install_id] = blocked
                case LeftOut() as left_out:
                    sorted_.left_out[each.install_id] = left_out
                case None if found is not None:
                    sorted_.free.append(Claim(install_id=each.install_id, host=found.host))
        return sorted_

    async def _block(
        self,
        session: AsyncSession,
        rollout: RolloutRow,
        blocked: Mapping[str, Blocked],
        state: TargetState | None,
    ) -> None:
        if blocked:
            parameters = {
                "rollout": rollout.id,
                "state": state,
                "installs": list(blocked),
                "obstacles": [each.obstacle.value for each in blocked.values()],
                "moments": [each.next_try_at for each in blocked.values()],
            }
            await run_sql(session, _BLOCK, parameters)

    async def _leave_out(
        self, session: AsyncSession, rollout: RolloutRow, left_out: Mapping[str, LeftOut]
    ) -> None:
        await end_targets(session, rollout, _errors_of(left_out), TargetState.SKIPPED)
        for install_id, each in list(left_out.items())[:_NAMED]:
            await add_event(
                session,
                rollout,
                "target.skipped",
                f"Left out: {each.message}",
                wave=rollout.wave,
                install_id=install_id,
            )


def _errors_of(left_out: Mapping[str, LeftOut]) -> dict[str, dict[str, Any]]:
    return {key: error_of(each.reason, each.message) for key, each in left_out.items()}
