"""When secrets rotate."""

from datetime import UTC, datetime, timedelta

import pytest

from domain.rotation import (
    RotationSchedule,
    Turn,
    Window,
    next_turn,
    pause_before_retry,
    take_turn,
)

SECRET = "sec_0190d5a7c0de7000800000000000cafe"  # noqa: S105 - an id
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NIGHT = Window(start=23 * HOUR, length=2 * HOUR)


def schedule(
    *,
    jitter: timedelta = timedelta(0),
    window: Window | None = None,
    catch_up: timedelta = HOUR,
) -> RotationSchedule:
    return RotationSchedule(interval=30 * DAY, jitter=jitter, window=window, catch_up=catch_up)


@pytest.mark.parametrize(
    ("at", "inside"), [(22.99, False), (23, True), (0, True), (0.99, True), (1, False), (12, False)]
)
def test_a_window_reaches_over_midnight(at: float, inside: bool) -> None:  # noqa: FBT001 - a column of the table
    assert NIGHT.is_open(NOON.replace(hour=0) + at * HOUR) is inside


def test_a_window_of_a_day_is_always_open() -> None:
    window = Window(start=5 * HOUR, length=DAY)
    assert all(window.is_open(NOON + hour * HOUR) for hour in range(24))


def test_a_turn_comes_an_interval_later_by_a_jitter_that_is_always_the_same() -> None:
    plan = schedule(jitter=6 * HOUR)
    turns = {next_turn(plan, SECRET, NOON) for _ in range(3)}
    assert len(turns) == 1
    assert 30 * DAY <= turns.pop() - NOON < 30 * DAY + 6 * HOUR


def test_jitter_spreads_secrets_and_turns() -> None:
    plan = schedule(jitter=6 * HOUR)
    secrets = {next_turn(plan, f"{SECRET[:-2]}{number:02x}", NOON) for number in range(100)}
    turns = {next_turn(plan, SECRET, NOON + day * DAY) - day * DAY for day in range(100)}
    assert len(secrets) > 90
    assert len(turns) > 90


def test_a_turn_outside_the_window_moves_to_the_next_opening() -> None:
    assert next_turn(schedule(window=NIGHT), SECRET, NOON) == NOON + 30 * DAY + 11 * HOUR


def test_turns_that_wait_for_one_opening_are_spread_inside_the_window() -> None:
    plan = schedule(jitter=10 * DAY, window=NIGHT)
    turns = {next_turn(plan, f"{SECRET[:-2]}{number:02x}", NOON) for number in range(100)}
    assert all(NIGHT.is_open(turn) for turn in turns)
    assert len(turns) > 90


def test_a_turn_that_is_due_is_taken_and_the_next_follows_it() -> None:
    now = NOON + timedelta(minutes=59)
    assert take_turn(schedule(), SECRET, NOON, now) == (Turn.TAKEN, now + 30 * DAY)


def test_a_turn_that_is_too_late_is_missed_and_turns_keep_their_rhythm() -> None:
    late = take_turn(schedule(), SECRET, NOON, NOON + 2 * HOUR)
    assert late == (Turn.MISSED, NOON + 30 * DAY)
    much_later = take_turn(schedule(), SECRET, NOON, NOON + 95 * DAY)
    assert much_later == (Turn.MISSED, NOON + 120 * DAY)


@pytest.mark.parametrize("late", [timedelta(0), timedelta(seconds=90), timedelta(minutes=5)])
def test_a_turn_is_never_late_by_the_pace_of_those_who_look_for_it(late: timedelta) -> None:
    strict = schedule(catch_up=timedelta(0))
    assert take_turn(strict, SECRET, NOON, NOON + late)[0] is Turn.TAKEN
    too_late = NOON + timedelta(minutes=5, seconds=1)
    assert take_turn(strict, SECRET, NOON, too_late)[0] is Turn.MISSED


def test_the_pauses_before_a_turn_is_tried_again_double_up_to_a_day() -> None:
    hours = [pause_before_retry(failures) / HOUR for failures in (1, 2, 3, 4, 5, 6, 1000)]
    assert hours == [1, 2, 4, 8, 16, 24, 24]


def test_a_turn_whose_window_closed_waits_for_the_next_one_if_that_is_not_too_late() -> None:
    due = NOON.replace(hour=23)
    now = due + 3 * HOUR
    patient = schedule(window=NIGHT, catch_up=DAY)
    assert take_turn(patient, SECRET, due, now) == (Turn.POSTPONED, due + DAY)
    strict = schedule(window=NIGHT, catch_up=4 * HOUR)
    assert take_turn(strict, SECRET, due, now) == (Turn.MISSED, due + 30 * DAY)


@pytest.mark.parametrize("late", [timedelta(0), HOUR, 5 * DAY, 400 * DAY])
@pytest.mark.parametrize("window", [None, NIGHT])
def test_the_next_turn_is_always_ahead(late: timedelta, window: Window | None) -> None:
    plan = schedule(jitter=HOUR, window=window, catch_up=2 * DAY)
    _, following = take_turn(plan, SECRET, NOON, NOON + late)
    assert following > NOON + late
