"""What stands between a target and its move: why it waits, until when, or why it never moves."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from domain.cluster import ClusterState
from domain.errors import Reason
from domain.install import Consent
from domain.install_health import is_offline
from domain.rollout import CheckKind, Obstacle
from domain.rollout_strategy import Check
from domain.windows import Window

# How long until it is worth another look. A cluster that comes back is seen within a minute, and an
# operation of another takes some; what a person decides may be decided at any moment.
_PAUSES: Final = {
    Obstacle.OFFLINE: timedelta(seconds=30),
    Obstacle.BUSY: timedelta(seconds=10),
    Obstacle.HOLD: timedelta(seconds=30),
    Obstacle.CONSENT: timedelta(seconds=30),
    Obstacle.EMERGENCY_STOP: timedelta(seconds=15),
    # A window that somebody moves counts from the next look on.
    Obstacle.WINDOW: timedelta(minutes=5),
}

# For installs that cannot be asked for their plans an approval waits so long, and for no longer
# than the deadline of the rollout; then they are left out of the plan.
PLANNED_WITHIN: Final = timedelta(hours=1)

# An operation that waits, such as for an approval, holds its wave up for so long; then the wave
# goes on without it. A person who is there has approved by then.
PATIENCE: Final = timedelta(minutes=5)

# One that has not ended after so long counts as one that waits, whatever it does. Most take
# minutes; a step of an install may be tried for four hours.
LONGEST_MOVE: Final = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetFacts:
    """What is known of an install at the moment of a decision.

    Attributes:
        host: of the control plane.
        cluster_state: of its cluster.
        observed_at: when its objects were last seen.
        active_operation_id: the operation that works on it.
        held: its customer holds it.
        hold_until: when the hold ends by itself; None: it does not.
        window: when its customer lets it be moved; None: at any time.
        pinned_semver: the version to which its customer pinned it.
        consent: whether its customer is asked for each version; None: no grant is needed, because
            the install is the vendor's own.
        consented_version_id: the last version to which the customer said yes.
        granted: a grant is in force, or none is needed.
        current_version_id: what it has.
        stop_id: the emergency stop that covers it.
        fits: the version fits its cluster, as far as was looked at that.
    """

    host: str
    cluster_state: ClusterState
    observed_at: datetime | None
    active_operation_id: str | None
    held: bool
    hold_until: datetime | None
    window: Mapping[str, Any] | None
    pinned_semver: str | None
    consent: Consent | None
    consented_version_id: str | None
    granted: bool
    current_version_id: str | None
    stop_id: str | None = None
    fits: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a target shall become.

    Attributes:
        version_id: the version.
        semver: of the same.
        takes_back: it returns to what it had before.
        only_looks: nothing of it changes, so that it only has to be reached.
    """

    version_id: str
    semver: str
    takes_back: bool = False
    only_looks: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocked:
    """It may not be moved now, and is looked at again."""

    obstacle: Obstacle
    next_try_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """It is never moved by this rollout."""

    reason: Reason
    message: str


REVOKED: Final = LeftOut(reason=Reason.PERMISSION_DENIED, message="The customer revoked the grant.")


def what_stops(
    facts: TargetFacts | None, wanted: Wanted, now: datetime
) -> Blocked | LeftOut | None:
    """Return what is in the way of a move; None: nothing.

    An install that is taken back returns to what its customer had: neither its window, its pin nor
    a consent is asked about. A hold is: it says that nothing shall touch the install. Who only
    looks asks neither for that nor for a stop.

    Args:
        facts: of the install; None: it is gone.
        wanted: what it shall become.
        now: the moment.
    """
    if facts is None:
        return LeftOut(reason=Reason.NOT_FOUND, message="The install was deleted.")
    if not facts.granted:
        return REVOKED
    pinned = facts.pinned_semver
    stays = wanted.takes_back or wanted.only_looks
    if not stays and pinned is not None and pinned != wanted.semver:
        message = f"The customer pinned the install to version {pinned}."
        return LeftOut(reason=Reason.FAILED_PRECONDITION, message=message)
    if not wanted.takes_back and not facts.fits:
        # Why not is about the customer's cluster, and is not told.
        message = "The version does not fit its cluster."
        return LeftOut(reason=Reason.FAILED_PRECONDITION, message=message)
    blocked = None if wanted.only_looks else _forbidden(facts, wanted, now)
    return blocked or _out_of_reach(facts, now)


def what_stops_check(
    facts: TargetFacts | None, check: Check, now: datetime
) -> Obstacle | LeftOut | None:
    """Return what keeps a vendor from a check inside a cluster; None: nothing.

    A hold keeps every one, because nothing shall touch the install; a stop keeps Jobs, because the
    others only look.
    """
    if facts is None or not facts.granted:
        return REVOKED
    if _is_held(facts, now):
        return Obstacle.HOLD
    if facts.stop_id is not None and check.kind is CheckKind.JOB:
        return Obstacle.EMERGENCY_STOP
    return None


def _is_held(facts: TargetFacts, now: datetime) -> bool:
    return facts.held and (facts.hold_until is None or facts.hold_until > now)


def _forbidden(facts: TargetFacts, wanted: Wanted, now: datetime) -> Blocked | None:
    if facts.stop_id is not None:
        return _until(Obstacle.EMERGENCY_STOP, now)
    if _is_held(facts, now):
        return _until(Obstacle.HOLD, now, facts.hold_until)
    if not wanted.takes_back:
        if facts.consent is Consent.ASK and facts.consented_version_id != wanted.version_id:
            return _until(Obstacle.CONSENT, now)
        window = None if facts.window is None else Window.from_json(facts.window)
        if window is not None and not window.is_open(now):
            return _until(Obstacle.WINDOW, now, window.next_opening(now))
    return None


def _out_of_reach(facts: TargetFacts, now: datetime) -> Blocked | None:
    if facts.cluster_state is not ClusterState.ACTIVE or is_offline(facts.observed_at, now):
        return _until(Obstacle.OFFLINE, now)
    if facts.active_operation_id is not None:
        return _until(Obstacle.BUSY, now)
    return None


def busy(now: datetime) -> Blocked:
    """Return that another rollout moves the install."""
    return _until(Obstacle.BUSY, now)


def offline(now: datetime) -> Blocked:
    """Return that the install's cluster does not answer."""
    return _until(Obstacle.OFFLINE, now)


def _until(obstacle: Obstacle, now: datetime, moment: datetime | None = None) -> Blocked:
    soon = now + _PAUSES[obstacle]
    return Blocked(obstacle=obstacle, next_try_at=soon if moment is None else min(soon, moment))
