"""Update windows: when an install may be moved, by its customer's clock.

A window is `{timezone, days, start, end}`: the days on which it opens (`mon` to `sun`; empty: each
day), and wall-clock times `HH:MM`. An end that is not after the start is on the next day. A time
that the clock jumps over is as much after the jump as it was after the jump's begin; where an hour
comes twice, a window opens in the first and closes in the last.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

# A window opens at least once a week.
_LOOKED_AHEAD_DAYS: Final = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """When an install may be moved."""

    timezone: ZoneInfo
    days: frozenset[int]
    start: time
    end: time

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Read a window as a row or a request has it.

        Raises:
            ValueError: a sentence about what is wrong.
        """
        names = [str(day).lower()[:3] for day in stored.get("days") or DAYS]
        unknown = set(names) - set(DAYS)
        if unknown:
            message = f"days are some of {', '.join(DAYS)}, not {', '.join(sorted(unknown))}."
            raise ValueError(message)
        return cls(
            timezone=_zone(str(stored.get("timezone") or "UTC")),
            days=frozenset(DAYS.index(name) for name in names),
            start=_time(stored.get("start"), "start"),
            end=_time(stored.get("end"), "end"),
        )

    def is_open(self, at: datetime) -> bool:
        """Return whether something may begin at a moment."""
        return any(opens <= at < closes for opens, closes in self._near(at))

    def next_opening(self, at: datetime) -> datetime:
        """Return the moment, or the next one after it, at which the window is open."""
        if self.is_open(at):
            return at
        return min(opens for opens, _ in self._near(at) if opens > at)

    def _near(self, at: datetime) -> list[tuple[datetime, datetime]]:
        """Return the openings from two days before a moment on."""
        first = at.astimezone(self.timezone).date() - timedelta(days=2)
        dates = (first + timedelta(days=ahead) for ahead in range(_LOOKED_AHEAD_DAYS + 2))
        spans = []
        for date in dates:
            if date.weekday() not in self.days:
                continue
            ends = date if self.end > self.start else date + timedelta(days=1)
            opens = datetime.combine(date, self.start, self.timezone).astimezone(UTC)
            end = datetime.combine(ends, self.end, self.timezone)
            closes = max(end.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
            spans.append((opens, closes))
        return spans


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        message = f"timezone is a name such as Europe/Berlin, not {name[:50]!r}."
        raise ValueError(message) from None


def _time(text: object, name: str) -> time:
    try:
        return time.fromisoformat(str(text)).replace(tzinfo=None, second=0, microsecond=0)
    except ValueError:
        message = f"{name} is a time such as 02:30, not {str(text)[:50]!r}."
        raise ValueError(message) from None
