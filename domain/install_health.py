"""When a finding about an install counts: one look is not enough to call it unhealthy."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from domain.install import Health

# How long a finding must last before it counts. A pod that is moved, an API server that starts
# again and a controller that is slow are over by then. Health itself must stay for a moment.
LASTS: Final = {
    Health.HEALTHY: timedelta(seconds=5),
    Health.SUSPENDED: timedelta(seconds=5),
    Health.PROGRESSING: timedelta(seconds=20),
    Health.UNKNOWN: timedelta(seconds=30),
    Health.MISSING: timedelta(seconds=30),
    Health.DEGRADED: timedelta(seconds=30),
}

# What should be done long ago and still is not, without a deadline of its own, is broken: no
# StatefulSet or DaemonSet ever says so itself.
STALLED_AFTER: Final = timedelta(minutes=5)

# With one of these an install does not do its work. Unknown is none of them.
UNHEALTHY: Final = frozenset({Health.DEGRADED, Health.MISSING})

# An install whose last look is older than this cannot be moved: nobody reaches its cluster. Looks
# are written each minute at least.
OFFLINE_AFTER: Final = timedelta(minutes=3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """What counts, since when, and what may count soon."""

    health: Health
    since: datetime
    candidate: Health
    candidate_since: datetime


def settle(before: Settled, found: Health, now: datetime) -> Settled:
    """Return the health after a look: a finding counts once it has lasted long enough.

    The first thing that is seen of an install counts at once, whatever it is but bad.
    """
    candidate_since = before.candidate_since if found is before.candidate else now
    lasted = now - candidate_since
    first = before.health is Health.UNKNOWN and found not in UNHEALTHY
    if found is Health.PROGRESSING and lasted >= STALLED_AFTER:
        counted = Health.DEGRADED
    elif first or lasted >= LASTS[found]:
        counted = found
    else:
        counted = before.health
    # On its way to Degraded, a stalled one is told as Progressing only until then.
    return Settled(
        health=counted,
        since=before.since if counted is before.health else now,
        candidate=found,
        candidate_since=candidate_since,
    )


def is_offline(observed_at: datetime | None, now: datetime) -> bool:
    """Return whether nobody has seen an install lately, so that it cannot be moved."""
    return observed_at is None or now - observed_at > OFFLINE_AFTER
