"""When an install may be moved, by its customer's clock."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.windows import DAYS, Window

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")
TIMES = st.builds(
    lambda hour, minute: f"{hour:02}:{minute:02}", st.integers(0, 23), st.integers(0, 59)
)
WINDOWS = st.fixed_dictionaries(
    {
        "timezone": st.sampled_from(ZONES),
        "days": st.lists(st.sampled_from(DAYS), max_size=7, unique=True),
        "start": TIMES,
        "end": TIMES,
    }
).map(Window.from_json)
MOMENTS = st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds have no zone


def window(start: str, end: str, *days: str, zone: str = "Europe/Berlin") -> Window:
    return Window.from_json({"timezone": zone, "days": list(days), "start": start, "end": end})


@given(WINDOWS, MOMENTS)
def test_the_next_opening_is_open_and_nothing_before_it_is(window: Window, at: datetime) -> None:
    opening = window.next_opening(at)
    assert window.is_open(opening)
    assert at <= opening <= at + timedelta(days=8, hours=2)
    if opening > at:
        assert not window.is_open(at)
        assert not window.is_open(opening - timedelta(seconds=1))


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_opens() -> None:
    night = window("22:00", "04:00", "fri")
    assert night.is_open(datetime(2026, 11, 27, 21, 30, tzinfo=UTC))
    assert night.is_open(datetime(2026, 11, 28, 2, 30, tzinfo=UTC))
    assert not night.is_open(datetime(2026, 11, 28, 21, 30, tzinfo=UTC))


def test_a_window_follows_the_clock_of_its_zone_through_the_year() -> None:
    morning = window("02:00", "04:00")
    assert morning.next_opening(datetime(2026, 1, 10, 12, tzinfo=UTC)).hour == 1
    assert morning.next_opening(datetime(2026, 7, 10, 12, tzinfo=UTC)).hour == 0


def test_a_window_in_the_hour_that_is_jumped_over_opens_after_it() -> None:
    jumped = window("02:15", "02:45", "sun")
    at = datetime(2026, 3, 28, tzinfo=UTC)
    opening = jumped.next_opening(at)
    assert opening == datetime(2026, 3, 29, 1, 15, tzinfo=UTC)
    assert not jumped.is_open(opening + timedelta(minutes=30))


def test_a_window_in_the_hour_that_comes_twice_stays_open_through_both() -> None:
    twice = window("02:15", "02:45", "sun")
    opening = twice.next_opening(datetime(2026, 10, 24, tzinfo=UTC))
    assert opening == datetime(2026, 10, 25, 0, 15, tzinfo=UTC)
    assert twice.is_open(opening + timedelta(minutes=89))
    assert not twice.is_open(opening + timedelta(minutes=90))


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        ({"timezone": "Mars/Base", "start": "01:00", "end": "02:00"}, "timezone"),
        ({"timezone": "../etc/passwd", "start": "01:00", "end": "02:00"}, "timezone"),
        ({"days": ["someday"], "start": "01:00", "end": "02:00"}, "days"),
        ({"start": "25:00", "end": "02:00"}, "start"),
        ({"start": "01:00"}, "end"),
    ],
)
def test_a_window_that_cannot_be_is_refused_with_what_is_wrong(
    stored: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        Window.from_json(stored)
