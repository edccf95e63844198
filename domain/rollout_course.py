"""What a rollout does next: a pure function of what its rows say at one moment."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from domain.rollout import TERMINAL, Gate, RolloutState
from domain.rollout_obstacles import PATIENCE
from domain.rollout_strategy import Strategy


class Move(StrEnum):
    """The next thing that is done to a rollout.

    Attributes:
        NOTHING: it is over.
        WAIT: until something that was begun has ended, or somebody asks for something.
        PLAN: the plan of each target is made.
        SETTLE_PLAN: all plans are made, so that the rollout has a digest.
        AWAIT_APPROVAL: it becomes PLANNED.
        PAUSE: it becomes PAUSED.
        GO_ON: it becomes RUNNING.
        CLAIM: targets of the wave begin to move.
        FILL_CANARY: nothing of the canary can be reached, so others take its place. While there
            are none either, nothing goes on: a version is tried on a canary first.
        BAKE: the wave has moved and is looked at for a while.
        CHECK: its targets are looked at once more.
        CHECK_SERVICES: targets are looked at once more from the hosts of their clusters.
        PASS: the wave is good.
        NEXT_WAVE: the next wave's turn.
        LATE_WAVE: those that could not be reached in their own wave make a last one.
        GIVE_UP_WAITING: those that still cannot be reached, or whose operation waits, are left out.
        FAIL_UNTRIED: it ends, because no canary could be reached before the deadline.
        SUCCEED: it has ended well.
        FAIL: it ends with what was moved staying moved.
        CANCEL: a person ended it.
        BEGIN_ROLLBACK: it becomes ROLLING_BACK.
        TAKE_BACK: targets return to what they had.
        END_ROLLBACK: all that could be taken back has been.
    """

    NOTHING = "nothing"
    WAIT = "wait"
    PLAN = "plan"
    SETTLE_PLAN = "settle_plan"
    AWAIT_APPROVAL = "await_approval"
    PAUSE = "pause"
    GO_ON = "go_on"
    CLAIM = "claim"
    FILL_CANARY = "fill_canary"
    BAKE = "bake"
    CHECK = "check"
    CHECK_SERVICES = "check_services"
    PASS = "pass"  # noqa: S105 - the name of a move
    NEXT_WAVE = "next_wave"
    LATE_WAVE = "late_wave"
    GIVE_UP_WAITING = "give_up_waiting"
    FAIL_UNTRIED = "fail_untried"
    SUCCEED = "succeed"
    FAIL = "fail"
    CANCEL = "cancel"
    BEGIN_ROLLBACK = "begin_rollback"
    TAKE_BACK = "take_back"
    END_ROLLBACK = "end_rollback"


@dataclass(frozen=True, kw_only=True, slots=True)
class WaveSight:
    """The targets of the wave whose turn it is, by what they do.

    Attributes:
        size: all of them.
        pending: their turn has come, and they have not been looked at.
        moved: they have the new version, whether they still bake or have passed.
        failed: they failed.
    """

    size: int
    pending: int
    moved: int
    failed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CourseSight:
    """Everything on which the next move depends.

    Attributes:
        state: of the rollout.
        wave: whose turn it is.
        waves: how many there are.
        pause: a person asked for a pause.
        cancel: a person asked for an end.
        rollback: a person asked to take everything back.
        plan_only: each target's plan is made, and approved as a whole.
        planned: the rollout has a digest.
        approved_waves: for which waves there is an approval.
        unplanned: targets whose plan is tried for now.
        unreachable: targets whose plan is tried for later, because something is in its way.
        begun: targets that move, or whose turn was given out, over all waves; without those that
            are parked.
        stalled: of those begun, how many have an operation that waits.
        parked: targets whose operation has waited for so long that nobody waits for them any more.
        baking: targets that bake, over all waves.
        waiting: targets in whose way something is, over all waves, and those that are parked.
        due: of those, how many are worth another look.
        later: targets of later waves that wait for their turn.
        in_wave: of the current wave.
        late: the current wave is the one of those that could not be reached.
        to_take_back: targets that have the new version and shall return now; while a rollback
            goes on, `waiting` are those of them in whose way something is.
        bake_until: when the bake ends; None: nothing bakes.
        check_due: it is time for another look at what bakes.
        checked_after_bake: what baked was looked at after the bake's end.
        to_ask: targets that bake and are to be looked at from the hosts of their clusters now.
        unasked: targets that bake and were not looked at from there after the bake's end.
        past_deadline: it is too late to try again.
        stopped: an emergency stop covers the vendor's workspace, the product, or everything. Then
            nobody can be reached, and no wave is over whose targets wait for that.
    """

    state: RolloutState
    wave: int
    waves: int
    pause: bool = False
    cancel: bool = False
    rollback: bool = False
    plan_only: bool = False
    planned: bool = False
    approved_waves: frozenset[int] = frozenset()
    unplanned: int = 0
    unreachable: int = 0
    begun: int = 0
    stalled: int = 0
    parked: int = 0
    baking: int = 0
    waiting: int = 0
    due: int = 0
    later: int = 0
    in_wave: WaveSight
    late: bool = False
    to_take_back: int = 0
    bake_until: datetime | None = None
    check_due: bool = False
    checked_after_bake: bool = False
    to_ask: int = 0
    unasked: int = 0
    past_deadline: bool = False
    stopped: bool = False


def next_move(  # noqa: PLR0911 - an order of precedence
    sight: CourseSight, strategy: Strategy, now: datetime
) -> Move:
    """Return what a rollout does next.

    What people asked for comes first, and of that the rollback: a pause, or an end, that is asked
    for at the same time does not keep installs from returning to what they had.
    """
    if sight.state in TERMINAL:
        return Move.NOTHING
    if sight.state is RolloutState.ROLLING_BACK:
        return _rolling_back(sight)
    if sight.rollback:
        return Move.BEGIN_ROLLBACK
    if sight.cancel:
        return Move.WAIT if sight.begun > sight.stalled else Move.CANCEL
    if sight.pause:
        return Move.WAIT if sight.state is RolloutState.PAUSED else Move.PAUSE
    if not sight.planned:
        return _planning(sight)
    if _needs_approval(sight, strategy):
        return Move.WAIT if sight.state is RolloutState.PLANNED else Move.AWAIT_APPROVAL
    if sight.state is not RolloutState.RUNNING:
        return Move.GO_ON
    return _running(sight, strategy, now)


def _rolling_back(sight: CourseSight) -> Move:
    if sight.to_take_back:
        return Move.TAKE_BACK
    if sight.parked and sight.past_deadline:
        return Move.GIVE_UP_WAITING
    return Move.WAIT if sight.begun or sight.waiting else Move.END_ROLLBACK


def _planning(sight: CourseSight) -> Move:
    if sight.plan_only and sight.unplanned:
        return Move.PLAN
    waits = sight.begun or (sight.plan_only and sight.unreachable)
    return Move.WAIT if waits else Move.SETTLE_PLAN


def _needs_approval(sight: CourseSight, strategy: Strategy) -> bool:
    if strategy.gate is Gate.EACH_WAVE:
        return sight.wave not in sight.approved_waves
    return (sight.plan_only or strategy.gate is Gate.START) and not sight.approved_waves


def _running(  # noqa: PLR0911 - the same
    sight: CourseSight, strategy: Strategy, now: datetime
) -> Move:
    wave = sight.in_wave
    if wave.failed > strategy.error_budget.within(wave.size):
        if strategy.automatic_rollback:
            return Move.BEGIN_ROLLBACK
        return Move.WAIT if sight.begun else Move.FAIL
    if sight.bake_until is not None:
        return _baking(sight, sight.bake_until, now)
    if wave.pending or (sight.due and not sight.past_deadline):
        return Move.CLAIM
    if sight.waiting and sight.past_deadline and not sight.stopped:
        return Move.GIVE_UP_WAITING
    if sight.begun:
        return Move.WAIT
    if sight.baking:
        return Move.BAKE
    return _wave_is_over(sight, strategy)


def _baking(sight: CourseSight, until: datetime, now: datetime) -> Move:
    # First, because they go on by themselves.
    if sight.to_ask:
        return Move.CHECK_SERVICES
    if now < until:
        return Move.CHECK if sight.check_due else Move.WAIT
    if not sight.checked_after_bake:
        return Move.CHECK
    # Such as of a customer who holds the install: its checks have passed once, and it holds nobody
    # up for longer than one that moves and waits.
    return Move.WAIT if sight.unasked and now < until + PATIENCE else Move.PASS


def _wave_is_over(sight: CourseSight, strategy: Strategy) -> Move:
    if sight.stopped and sight.waiting:
        return Move.WAIT
    untried = not sight.in_wave.moved and not sight.in_wave.failed
    if untried and strategy.canary and sight.wave == 0 and sight.later:
        return Move.FAIL_UNTRIED if sight.past_deadline else Move.FILL_CANARY
    if sight.wave + 1 < sight.waves:
        return Move.NEXT_WAVE
    if sight.waiting:
        return Move.WAIT if sight.late else Move.LATE_WAVE
    return Move.SUCCEED
