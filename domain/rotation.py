"""One rotation of a secret, and when it comes: pure functions of a schedule, the ids and the time.

A turn comes an interval after the last one, spread by a jitter that is the same however often it
is computed, and inside the window. A turn that is missed by more than the bound is not made up for;
until then one that failed is tried again, after pauses that double.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

# What a rotation has not finished by then is taken back, so that no version stays pending.
ROTATION_DEADLINE: Final = timedelta(hours=24)

_DAY: Final = timedelta(days=1)

# Due turns are looked for once a minute, a number of them at a time: that much later than its time
# no turn is late.
_NEVER_TOO_LATE: Final = timedelta(minutes=5)

_FIRST_PAUSE: Final = timedelta(hours=1)
_LONGEST_PAUSE: Final = timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotation:
    """One rotation of one secret.

    Attributes:
        workspace_id: the secret's workspace.
        secret_id: what rotates.
        operation_id: the rotation; outside effects are named from it, so that they are found again.
        settings: of the rotator, as `Rotator.check_settings` returned them.
    """

    workspace_id: str
    secret_id: str
    operation_id: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Window:
    """When in a UTC day rotations may start; it may reach over midnight.

    Attributes:
        start: the time after midnight at which it opens.
        length: how long it stays open; a day or more is always.
    """

    start: timedelta
    length: timedelta

    def is_open(self, at: datetime) -> bool:
        """Tell whether a moment lies inside."""
        return (_since_midnight(at) - self.start) % _DAY < self.length

    def next_opening(self, after: datetime) -> datetime:
        """Return the first opening that is not before a moment."""
        return after + (self.start - _since_midnight(after)) % _DAY


@dataclass(frozen=True, kw_only=True, slots=True)
class RotationSchedule:
    """How often a secret rotates, and when.

    Attributes:
        interval: the least time between two turns.
        jitter: by how much a turn may come later, so that secrets do not fall due together.
        window: when turns may start; None for any time.
        catch_up: how late a turn may still be taken, or tried again; a few minutes late is on time.
    """

    interval: timedelta
    jitter: timedelta
    window: Window | None
    catch_up: timedelta

    def last_chance(self, due: datetime) -> datetime:
        """Return until when a turn that was due at a moment may be taken."""
        return due + max(self.catch_up, _NEVER_TOO_LATE)

    def allows(self, at: datetime) -> bool:
        """Tell whether a rotation may start at a moment."""
        return self.window is None or self.window.is_open(at)


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitingConsumers:
    """Who has not acknowledged the new version, and for how long a rotation waits for them.

    Attributes:
        consumers: their types and ids.
        grace_seconds: for how long in all.
        remaining_seconds: how much of that is left.
    """

    consumers: list[str]
    grace_seconds: int
    remaining_seconds: int


class Turn(StrEnum):
    """What becomes of a turn that is due."""

    TAKEN = "taken"
    POSTPONED = "postponed"
    MISSED = "missed"


def next_turn(schedule: RotationSchedule, secret_id: str, after: datetime) -> datetime:
    """Return the turn that follows a rotation, or the making of the schedule, at a moment."""
    earliest = after + schedule.interval
    return _inside(schedule, secret_id, earliest + _jitter(schedule.jitter, secret_id, earliest))


def take_turn(
    schedule: RotationSchedule, secret_id: str, due: datetime, now: datetime
) -> tuple[Turn, datetime]:
    """Decide about a turn that was due, and return when the next one is.

    A turn whose window has closed waits for the next opening if that is not too late; one that is
    too late is missed, and the turns keep their rhythm as if it had been taken.
    """
    last_chance = schedule.last_chance(due)
    if now <= last_chance:
        if schedule.allows(now):
            return Turn.TAKEN, next_turn(schedule, secret_id, now)
        reopened = _inside(schedule, secret_id, now)
        if reopened <= last_chance:
            return Turn.POSTPONED, reopened
    turns_before = (now - due) // schedule.interval
    return Turn.MISSED, next_turn(schedule, secret_id, due + turns_before * schedule.interval)


def pause_before_retry(failures: int) -> timedelta:
    """Return how long after its end a turn that failed so many times, at least once, is tried."""
    doubled = _FIRST_PAUSE * (1 << min(failures - 1, 10))
    return min(doubled, _LONGEST_PAUSE)


def _inside(schedule: RotationSchedule, secret_id: str, at: datetime) -> datetime:
    window = schedule.window
    if window is None or window.is_open(at):
        return at
    opening = window.next_opening(at)
    # Everything that waits for this opening would start in the same second.
    return opening + _jitter(min(schedule.jitter, window.length), secret_id, opening)


def _jitter(most: timedelta, secret_id: str, at: datetime) -> timedelta:
    seed = hashlib.sha256(f"{secret_id}/{at.timestamp():.0f}".encode()).digest()
    seconds = int(most.total_seconds())
    return timedelta(seconds=int.from_bytes(seed[:8]) % seconds if seconds else 0)


def _since_midnight(at: datetime) -> timedelta:
    return at - at.replace(hour=0, minute=0, second=0, microsecond=0)
