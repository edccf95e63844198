"""Drives a rollout's rows: one look decides what is next, writes it, and tells the workflow.

A look is one transaction that holds the rollout's row. It goes from move to move until something
has to happen outside the database, or nothing can.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.rollout import TERMINAL, Gate, RolloutState
from domain.rollout_course import CourseSight, Move, WaveSight, next_move
from domain.rollout_obstacles import PATIENCE, PLANNED_WITHIN, Wanted
from domain.rollout_plan import sizes_of_waves
from domain.rollout_strategy import Strategy
from domain.rollout_work import RolloutPlace, Step, Verb
from infra.database.engine import Database
from infra.database.queries.emergency_stop import stop_of_product
from infra.database.queries.rollout_sight import count_returns, count_targets
from infra.database.records import rollout_moves as moves
from infra.database.records.rollout_look import Look
from infra.database.records.rollout_plans import bind_anew, settle_plan
from infra.database.records.rollout_rows import add_event, lock_rollout
from infra.database.records.rollout_turns import Turns
from infra.database.tables import PackageVersionRow, RolloutRow

# How often a baking wave is looked at: often enough to stop soon, seldom enough for a thousand.
_LONGEST_BETWEEN_CHECKS: Final = timedelta(seconds=30)
_SHORTEST_BETWEEN_CHECKS: Final = timedelta(seconds=2)
_CHECKS_OF_A_BAKE: Final = 5

# Without a reason to look, and without a signal. The schedule wakes each minute as well.
_LONGEST_REST: Final = timedelta(seconds=60)
_SHORTEST_REST: Final = timedelta(milliseconds=50)

# While an emergency stop holds the whole rollout. Whoever lifts it may be in another workspace, and
# does not know what it held.
_STOPPED_REST: Final = timedelta(seconds=15)

# How soon it is worth looking for a canary when nobody can be reached.
_CANARY_REST: Final = timedelta(seconds=10)

# So many workflows are started by one step at most: its size is a part of the parent's history.
_CLAIMS_A_STEP: Final = 50

# Moves of one look; a rollout of fifty waves in which nobody can be reached makes a hundred.
_MOVES_A_LOOK: Final = 500

# Moves that are made in rows alone; there may be another one after them.
_IN_ROWS: Final[Mapping[Move, Callable[[Look], Awaitable[None]]]] = {
    Move.SETTLE_PLAN: settle_plan,
    Move.AWAIT_APPROVAL: moves.await_approval,
    Move.PAUSE: moves.pause,
    Move.GO_ON: moves.go_on,
    Move.BAKE: moves.bake,
    Move.PASS: moves.pass_wave,
    Move.NEXT_WAVE: moves.next_wave,
    Move.LATE_WAVE: moves.late_wave,
    Move.GIVE_UP_WAITING: moves.give_up_waiting,
    Move.FAIL_UNTRIED: moves.fail_untried,
    Move.SUCCEED: moves.succeed,
    Move.FAIL: moves.fail,
    Move.CANCEL: moves.cancel,
    Move.BEGIN_ROLLBACK: moves.begin_rollback,
    Move.END_ROLLBACK: moves.end_rollback,
}


class RolloutRecords:
    """The moves of rollouts; see `domain.rollout_course`."""

    def __init__(self, database: Database, sweeper: Database) -> None:
        self._database = database
        self._sweeper = sweeper
        self._turns = Turns(sweeper)

    async def live_rollouts(self) -> list[RolloutPlace]:
        """Return every rollout that has not ended, oldest first."""
        query = (
            select(RolloutRow.workspace_id, RolloutRow.id)
            .where(col(RolloutRow.state).not_in(TERMINAL))
            .order_by(col(RolloutRow.created_at))
        )
        async with self._sweeper.transaction() as session:
            found = await session.exec(query)
            return [RolloutPlace(workspace_id=one, rollout_id=other) for one, other in found]

    async def look(
        self, place: RolloutPlace, known_turns: int, checked_at: datetime | None
    ) -> Step:
        """Do all that can be done now, and return what the workflow does next.

        Args:
            place: the rollout.
            known_turns: how many turns the workflow knows of.
            checked_at: when what bakes was last looked at.

        Returns:
            What to do; with `busy` when something that was begun goes on, and its end is worth
            another look.
        """
        async with self._database.workspace(place.workspace_id) as session:
            look = await _open(session, place, checked_at)
            if look.counts.parked:
                await moves.call_stalled(look)
            sight = await _see(look)
            if look.counts.turns != known_turns:
                claims = await self._turns.untaken(session, look.rollout, look.now, _CLAIMS_A_STEP)
                if claims:
                    verb = _verb_of(look.rollout)
                    return Step(verb=verb, claims=claims, turns=look.counts.turns)
            for _ in range(_MOVES_A_LOOK):
                move = next_move(sight, look.strategy, look.now)
                step = await self._make(look, move)
                if step is not None:
                    return replace(step, turns=look.counts.turns + len(step.claims))
                await _count(look)
                sight = await _see(look)
            return Step(turns=look.counts.turns)

    async def _make(  # noqa: PLR0911 - a table of moves
        self, look: Look, move: Move
    ) -> Step | None:
        """Make a move; return what the workflow does next, None: there may be another move."""
        in_rows = _IN_ROWS.get(move)
        if in_rows is not None:
            await in_rows(look)
            return None
        match move:
            case Move.NOTHING:
                return Step(ended=True)
            case Move.CHECK:
                return Step(check=True)
            case Move.CHECK_SERVICES:
                return await self._check_services(look)
            case Move.PLAN:
                return await self._plan(look)
            case Move.CLAIM:
                return await self._claim(look)
            case Move.TAKE_BACK:
                return await self._take_back(look)
            case Move.FILL_CANARY:
                return await self._fill_canary(look)
            case _:
                return _wait(look)

    async def _plan(self, look: Look) -> Step | None:
        places = self._places(look)
        if not places:
            return _wait(look)
        claims = await self._turns.to_plan(
            look.session, look.rollout, look.wanted, places, look.now
        )
        return Step(verb=Verb.PLAN, claims=claims) if claims else None

    async def _check_services(self, look: Look) -> Step | None:
        claims = await self._turns.to_ask(look.session, look.rollout, look.now, _CLAIMS_A_STEP)
        return Step(verb=Verb.CHECK, claims=claims) if claims else None

    async def _claim(self, look: Look) -> Step | None:
        places = self._places(look)
        if not places:
            return _wait(look)
        if look.counts.wave_pending == look.counts.wave_size:
            await moves.note_wave(look)
        claims = await self._turns.to_move(
            look.session, look.rollout, look.wanted, places, look.now
        )
        return Step(verb=Verb.MOVE, claims=claims) if claims else None

    async def _take_back(self, look: Look) -> Step | None:
        places = self._places(look)
        if not places:
            return _wait(look)
        rollout = look.rollout
        claims = await self._turns.to_return(
            look.session,
            rollout,
            Wanted(version_id="", semver="", takes_back=True),
            places,
            look.now,
            wave=wave_taken_back(rollout),
            late=rollout.deadline_at is not None and look.now >= rollout.deadline_at,
        )
        return Step(verb=Verb.ROLL_BACK, claims=claims) if claims else None

    async def _fill_canary(self, look: Look) -> Step | None:
        size = look.strategy.canary
        filled = await self._turns.fill_canary(
            look.session, look.rollout, look.wanted, size, look.now
        )
        if not filled:
            return Step(look_again_seconds=_CANARY_REST.total_seconds())
        others = "another one takes" if filled == 1 else f"{filled} others take"
        message = f"The canary cannot be reached; {others} its place."
        await add_event(look.session, look.rollout, "canary.replaced", message, wave=0)
        await bind_anew(look)
        return None

    def _places(self, look: Look) -> int:
        return max(0, min(look.strategy.concurrency - look.counts.begun, _CLAIMS_A_STEP))


async def _open(session: AsyncSession, place: RolloutPlace, checked_at: datetime | None) -> Look:
    """Hold a rollout, and begin to look at it."""
    rollout = await lock_rollout(session, place.rollout_id)
    key = (place.workspace_id, rollout.package_version_id)
    version = await session.get_one(PackageVersionRow, key)
    now = datetime.now(UTC)
    stop = await stop_of_product(session, place.workspace_id, rollout.product_id)
    return Look(
        session=session,
        rollout=rollout,
        strategy=Strategy.from_json(rollout.strategy),
        wanted=Wanted(version_id=version.id, semver=version.semver),
        now=now,
        checked_at=checked_at,
        counts=await count_targets(session, rollout, now),
        stopped=stop is not None,
    )


async def _count(look: Look) -> None:
    """Count the targets anew, after a move."""
    await look.session.flush()
    look.counts = await count_targets(look.session, look.rollout, look.now)


def _verb_of(rollout: RolloutRow) -> Verb:
    """Return for what turns are given out in the state of a rollout."""
    if rollout.state is RolloutState.ROLLING_BACK:
        return Verb.ROLL_BACK
    if rollout.bake_until is not None:
        return Verb.CHECK
    return Verb.PLAN if rollout.started_at is None else Verb.MOVE


async def _see(look: Look) -> CourseSight:
    rollout, counts = look.rollout, look.counts
    look.returns = None
    waiting = counts.waiting
    if rollout.state is RolloutState.ROLLING_BACK:
        wave = wave_taken_back(rollout)
        asked_at = rollout.rollback_requested_at
        look.returns = await count_returns(
            look.session, rollout.id, wave, look.now, asked_at=asked_at
        )
        waiting = look.returns.waiting + counts.parked
    past_planning = look.now >= _planned_by(look)
    return CourseSight(
        state=rollout.state,
        wave=rollout.wave,
        waves=rollout.waves,
        pause=rollout.pause_requested_at is not None,
        cancel=rollout.cancel_requested_at is not None,
        rollback=rollout.rollback_requested_at is not None,
        plan_only=rollout.plan_only,
        planned=rollout.plan_digest is not None,
        approved_waves=_approved_waves(look),
        # Whose turn did not come in time is not left out for that.
        unplanned=counts.untried if past_planning else counts.unplanned,
        unreachable=0 if past_planning else counts.unreachable,
        begun=counts.begun,
        stalled=counts.stalled,
        parked=counts.parked,
        baking=counts.baking,
        waiting=waiting,
        due=counts.due,
        later=counts.later,
        in_wave=WaveSight(
            size=counts.wave_size,
            pending=counts.wave_pending,
            moved=counts.wave_moved,
            failed=counts.wave_failed,
        ),
        late=rollout.waves > len(sizes_of_waves(sum(rollout.counts.values()), look.strategy)),
        to_take_back=0 if look.returns is None else look.returns.due,
        bake_until=rollout.bake_until,
        check_due=_next_check(look) <= look.now,
        checked_after_bake=_checked_after_bake(look),
        to_ask=counts.to_ask,
        unasked=counts.unasked,
        past_deadline=rollout.deadline_at is not None and look.now >= rollout.deadline_at,
        stopped=look.stopped,
    )


def _planned_by(look: Look) -> datetime:
    """Return until when an approval waits for plans."""
    deadline = timedelta(seconds=look.strategy.deadline_seconds)
    return look.rollout.created_at + min(PLANNED_WITHIN, deadline)


def _approved_waves(look: Look) -> frozenset[int]:
    """Return for which waves there is an approval; of one wave, for who is in it now."""
    digest = look.rollout.plan_digest if look.strategy.gate is Gate.EACH_WAVE else None
    return frozenset(
        each["wave"] for each in look.rollout.approvals if digest in {None, each["digest"]}
    )


def _wait(look: Look) -> Step:
    """Return how long nothing is to be done, unless something that was begun ends."""
    rollout = look.rollout
    moments = [look.now + (_STOPPED_REST if look.stopped else _LONGEST_REST)]
    asks = False
    if rollout.state is RolloutState.RUNNING:
        moments += _present(look.counts.next_try_at, rollout.bake_until, rollout.deadline_at)
        if rollout.bake_until is not None:
            moments += _present(_next_check(look), look.counts.next_ask_at)
            moments.append(rollout.bake_until + PATIENCE)
            asks = look.counts.unasked > 0 and look.now >= rollout.bake_until
    elif rollout.state is RolloutState.PLANNING:
        moments += _present(look.counts.next_try_at, _planned_by(look))
    elif look.returns is not None:
        moments += _present(look.returns.next_try_at, look.counts.next_try_at, rollout.deadline_at)
    ahead = min(each for each in moments if each > look.now)
    rest = max(ahead - look.now, _SHORTEST_REST)
    busy = asks or look.counts.begun + look.counts.parked > 0
    return Step(look_again_seconds=round(rest.total_seconds(), 3), busy=busy)


def _present(*moments: datetime | None) -> list[datetime]:
    return [each for each in moments if each is not None]


def wave_taken_back(rollout: RolloutRow) -> int | None:
    """Return which wave is taken back; None: all of them, because a person asked for it."""
    return rollout.wave if rollout.rollback_requested_at is None else None


def _next_check(look: Look) -> datetime:
    """Return when what bakes is worth another look from here."""
    if look.checked_at is None:
        return look.now
    pause = timedelta(seconds=look.strategy.bake_seconds) / _CHECKS_OF_A_BAKE
    bounded = min(max(pause, _SHORTEST_BETWEEN_CHECKS), _LONGEST_BETWEEN_CHECKS)
    return look.checked_at + bounded


def _checked_after_bake(look: Look) -> bool:
    until, checked_at = look.rollout.bake_until, look.checked_at
    return until is not None and checked_at is not None and checked_at >= until
