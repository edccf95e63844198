"""What a rollout does next, and what may stand in a target's way."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.cluster import ClusterState
from domain.install import Consent
from domain.rollout import TERMINAL, Gate, Obstacle, RolloutState
from domain.rollout_course import CourseSight, Move, WaveSight, next_move
from domain.rollout_obstacles import Blocked, LeftOut, TargetFacts, Wanted, what_stops
from domain.rollout_strategy import Share, Strategy

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
NEW = Wanted(version_id="pkgv_new", semver="2.0.0")
COUNTS = st.integers(0, 3)
SIGHTS = st.builds(
    CourseSight,
    state=st.sampled_from(RolloutState),
    wave=COUNTS,
    waves=st.integers(4, 5),
    pause=st.booleans(),
    cancel=st.booleans(),
    rollback=st.booleans(),
    plan_only=st.booleans(),
    planned=st.booleans(),
    approved_waves=st.frozensets(COUNTS),
    unplanned=COUNTS,
    unreachable=COUNTS,
    begun=COUNTS,
    parked=COUNTS,
    baking=COUNTS,
    waiting=COUNTS,
    due=COUNTS,
    later=COUNTS,
    in_wave=st.builds(WaveSight, size=COUNTS, pending=COUNTS, moved=COUNTS, failed=COUNTS),
    late=st.booleans(),
    to_take_back=COUNTS,
    bake_until=st.sampled_from([None, NOW - timedelta(1), NOW + timedelta(1)]),
    check_due=st.booleans(),
    checked_after_bake=st.booleans(),
    to_ask=COUNTS,
    unasked=COUNTS,
    past_deadline=st.booleans(),
    stopped=st.booleans(),
)
STRATEGIES = st.builds(
    Strategy,
    gate=st.sampled_from(Gate),
    automatic_rollback=st.booleans(),
    error_budget=st.builds(Share, count=st.integers(0, 2)),
)
FREE = TargetFacts(
    host="here",
    cluster_state=ClusterState.ACTIVE,
    observed_at=NOW,
    active_operation_id=None,
    held=False,
    hold_until=None,
    window=None,
    pinned_semver=None,
    consent=Consent.AUTOMATIC,
    consented_version_id=None,
    granted=True,
    current_version_id="pkgv_old",
)
NIGHT = {"timezone": "UTC", "start": "22:00", "end": "23:00"}


@given(SIGHTS, STRATEGIES)
def test_nothing_begins_where_somebody_asked_to_stop_or_must_approve(
    sight: CourseSight, strategy: Strategy
) -> None:
    move = next_move(sight, strategy, NOW)
    if sight.pause or sight.cancel or sight.rollback or sight.state is not RolloutState.RUNNING:
        assert move is not Move.CLAIM
    if strategy.gate is Gate.EACH_WAVE and sight.wave not in sight.approved_waves:
        assert move is not Move.CLAIM
    if sight.state in TERMINAL:
        assert move is Move.NOTHING


@given(SIGHTS, STRATEGIES)
def test_a_rollback_comes_before_everything_else(sight: CourseSight, strategy: Strategy) -> None:
    asked = replace(sight, rollback=True)
    if sight.state not in TERMINAL and sight.state is not RolloutState.ROLLING_BACK:
        assert next_move(asked, strategy, NOW) is Move.BEGIN_ROLLBACK


@given(SIGHTS, STRATEGIES)
def test_nothing_ends_while_something_moves(sight: CourseSight, strategy: Strategy) -> None:
    ends = {Move.SUCCEED, Move.FAIL, Move.CANCEL, Move.END_ROLLBACK, Move.NEXT_WAVE, Move.BAKE}
    if sight.begun and sight.bake_until is None:
        assert next_move(sight, strategy, NOW) not in ends


@given(SIGHTS, STRATEGIES)
def test_people_end_a_rollout_although_operations_wait(
    sight: CourseSight, strategy: Strategy
) -> None:
    waits = replace(sight, cancel=True, rollback=False, stalled=sight.begun, parked=1)
    if sight.state not in TERMINAL and sight.state is not RolloutState.ROLLING_BACK:
        assert next_move(waits, strategy, NOW) is Move.CANCEL
    late = replace(sight, state=RolloutState.ROLLING_BACK, to_take_back=0, past_deadline=True)
    assert next_move(replace(late, parked=1), strategy, NOW) is Move.GIVE_UP_WAITING


@given(SIGHTS, STRATEGIES)
def test_no_wave_follows_a_canary_that_nobody_tried(sight: CourseSight, strategy: Strategy) -> None:
    wave = replace(sight.in_wave, moved=0, failed=0)
    untried = replace(sight, wave=0, in_wave=wave, later=sight.later + 1)
    move = next_move(untried, strategy, NOW)
    assert move not in {Move.NEXT_WAVE, Move.LATE_WAVE, Move.SUCCEED}
    if sight.past_deadline:
        assert move is not Move.FILL_CANARY


@given(SIGHTS, STRATEGIES)
def test_no_wave_is_over_while_a_stop_holds_the_rollout(
    sight: CourseSight, strategy: Strategy
) -> None:
    over = {Move.NEXT_WAVE, Move.LATE_WAVE, Move.FILL_CANARY, Move.GIVE_UP_WAITING, Move.SUCCEED}
    held = replace(sight, stopped=True, waiting=sight.waiting + 1)
    # A rollback has no waves; past its deadline it waits for no operation, whatever holds that.
    if sight.state is not RolloutState.ROLLING_BACK:
        assert next_move(held, strategy, NOW) not in over


@given(SIGHTS, STRATEGIES)
def test_a_wave_that_spent_its_budget_moves_nobody(sight: CourseSight, strategy: Strategy) -> None:
    wave = replace(sight.in_wave, size=5, failed=3)
    assert next_move(replace(sight, in_wave=wave), strategy, NOW) not in {
        Move.CLAIM,
        Move.PASS,
        Move.NEXT_WAVE,
        Move.SUCCEED,
    }


@pytest.mark.parametrize(
    ("changes", "obstacle"),
    [
        ({"stop_id": "stop_1"}, Obstacle.EMERGENCY_STOP),
        ({"held": True}, Obstacle.HOLD),
        ({"consent": Consent.ASK}, Obstacle.CONSENT),
        ({"consent": Consent.ASK, "consented_version_id": "pkgv_old"}, Obstacle.CONSENT),
        ({"window": NIGHT}, Obstacle.WINDOW),
        ({"cluster_state": ClusterState.SUSPENDED}, Obstacle.OFFLINE),
        ({"observed_at": NOW - timedelta(minutes=10)}, Obstacle.OFFLINE),
        ({"observed_at": None}, Obstacle.OFFLINE),
        ({"active_operation_id": "op_1"}, Obstacle.BUSY),
    ],
)
def test_what_is_in_the_way_is_said_and_looked_at_again(
    changes: dict[str, object], obstacle: Obstacle
) -> None:
    found = what_stops(replace(FREE, **changes), NEW, NOW)  # type: ignore[arg-type]
    assert isinstance(found, Blocked)
    assert found.obstacle is obstacle
    assert NOW < found.next_try_at <= NOW + timedelta(minutes=5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"held": True, "hold_until": NOW - timedelta(seconds=1)},
        {"consent": Consent.ASK, "consented_version_id": "pkgv_new"},
        {"consent": None},
        {"window": {"timezone": "UTC", "start": "11:00", "end": "13:00"}},
        {"pinned_semver": "2.0.0"},
    ],
)
def test_what_is_not_in_the_way_stops_nobody(changes: dict[str, object]) -> None:
    assert what_stops(replace(FREE, **changes), NEW, NOW) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"granted": False}, {"pinned_semver": "1.0.0"}])
def test_a_target_without_grant_or_pinned_elsewhere_is_left_out(
    changes: dict[str, object],
) -> None:
    assert isinstance(what_stops(replace(FREE, **changes), NEW, NOW), LeftOut)  # type: ignore[arg-type]


def test_a_rollback_asks_for_holds_and_not_for_windows_pins_and_consent() -> None:
    back = Wanted(version_id="", semver="", takes_back=True)
    closed = replace(FREE, window=NIGHT, pinned_semver="1.0.0", consent=Consent.ASK)
    assert what_stops(closed, back, NOW) is None
    assert isinstance(what_stops(replace(closed, held=True), back, NOW), Blocked)


def test_who_only_looks_asks_for_neither_holds_nor_stops() -> None:
    facts = replace(FREE, held=True, stop_id="stop_x", pinned_semver="1.0.0", consent=Consent.ASK)
    assert what_stops(facts, replace(NEW, only_looks=True), NOW) is None
    assert what_stops(replace(facts, observed_at=None), replace(NEW, only_looks=True), NOW)
