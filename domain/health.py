"""The health of a machine: what one look at it finds, and when a finding counts."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from domain.machine import MachineHealth

# A signed request whose time is further off than this is refused, and so are certificates of an
# hour sooner or later.
CLOCK_LIMIT_SECONDS: Final = 300

# Off by this much nothing fails yet, and somebody should look before it does.
CLOCK_WARNING_SECONDS: Final = 60

# Four reports of a server (one each 30 s), and twelve heartbeats of its kubelet.
SILENT_AFTER: Final = timedelta(minutes=2)

# How long a finding must last before it counts. What says itself that something lasted, a silence
# or a clock that was measured, counts at once; a node that is not ready for a restart of its
# kubelet does not count at all, and one that comes back has to stay for a moment.
LASTS: Final = {
    MachineHealth.UNKNOWN: timedelta(0),
    MachineHealth.HEALTHY: timedelta(seconds=10),
    MachineHealth.DEGRADED: timedelta(seconds=40),
    MachineHealth.NOT_READY: timedelta(seconds=40),
    MachineHealth.UNREACHABLE: timedelta(0),
    MachineHealth.CLOCK_OFF: timedelta(0),
    # Two heartbeats: the next one shows that there is a newer certificate than we know of.
    MachineHealth.CERTIFICATE_EXPIRED: timedelta(seconds=20),
}

# With one of these a machine does not do its work.
UNHEALTHY: Final = frozenset(
    {
        MachineHealth.NOT_READY,
        MachineHealth.UNREACHABLE,
        MachineHealth.CLOCK_OFF,
        MachineHealth.CERTIFICATE_EXPIRED,
    }
)


# What a look would not find again once nothing is heard of the server.
_NEEDS_A_SIGN: Final = frozenset(
    {MachineHealth.HEALTHY, MachineHealth.DEGRADED, MachineHealth.NOT_READY}
)

# Without one for a minute the cluster takes a node for not ready, which the next look would find.
_NEEDS_A_HEARTBEAT: Final = frozenset({MachineHealth.HEALTHY, MachineHealth.DEGRADED})

# A heartbeat has the time of its server's clock.
_LOOKED_AT_WITHIN: Final = SILENT_AFTER + timedelta(seconds=CLOCK_LIMIT_SECONDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineFacts:
    """What is known of a machine at one moment.

    Attributes:
        reported_at: when its server last reported.
        heard_at: when its kubelet last renewed its lease; kept when the Node object is gone.
        has_node: whether its Node object is there.
        node_ready: what the Ready condition says; None when the cluster does not know.
        node_message: the Ready condition's sentence.
        pressures: the further conditions of the node that should be false, and are not.
        clock_offset_seconds: how far its clock is ahead, as last measured.
        client_certificate_expires_at: the end of its kubelet's client certificate.
        serving_certificate_expires_at: the end of its kubelet's serving certificate.
        reported_failure: what its server's last report says that does not work.
        server_missing_since: since when its cloud account has no such server.
        asleep: it is suspended, and shall have no server.
    """

    reported_at: datetime | None = None
    heard_at: datetime | None = None
    has_node: bool = False
    node_ready: bool | None = None
    node_message: str = ""
    pressures: tuple[str, ...] = ()
    clock_offset_seconds: int | None = None
    client_certificate_expires_at: datetime | None = None
    serving_certificate_expires_at: datetime | None = None
    reported_failure: str | None = None
    server_missing_since: datetime | None = None
    asleep: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found, and why, for a person."""

    health: MachineHealth
    reason: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """What counts, since when, and what may count soon."""

    health: MachineHealth
    since: datetime
    candidate: MachineHealth
    candidate_since: datetime


def assess(facts: MachineFacts, now: datetime) -> Finding:
    """Return the worst that is true, with the cause before its consequences."""
    return (
        _server(facts)
        or _clock(facts)
        or _expired(facts, now)
        or _silent(facts, now)
        or _node(facts)
        or _degraded(facts, now)
        or Finding(MachineHealth.HEALTHY, None)
    )


def outdated(
    health: MachineHealth,
    reported_at: datetime | None,
    node_seen_at: datetime | None,
    now: datetime,
) -> tuple[Finding, datetime] | None:
    """Return what is known of a machine at which nobody looked lately, and since; None: as before.

    Nobody looks while the platform is stopped, or while its looks at the cluster fail, which keep
    no server from reporting: what a machine was then it need not be now.
    """
    heard = [moment for moment in (reported_at, node_seen_at) if moment is not None]
    if health not in _NEEDS_A_SIGN or not heard:
        return None
    last = max(heard)
    if now - last > SILENT_AFTER:
        reason = f"Nothing was heard of the server since {_clock_time(last)}; it was {health} then."
        return Finding(MachineHealth.UNKNOWN, reason), last + SILENT_AFTER
    if health not in _NEEDS_A_HEARTBEAT or node_seen_at is None:
        return None
    if now - node_seen_at > _LOOKED_AT_WITHIN:
        reason = (
            f"Its server reports, and no heartbeat of its kubelet was seen since "
            f"{_clock_time(node_seen_at)}; it was {health} then. Either the platform cannot look "
            "at its cluster, or the kubelet's lease has a wrong time."
        )
        return Finding(MachineHealth.UNKNOWN, reason), node_seen_at + _LOOKED_AT_WITHIN
    return None


def settle(before: Health, found: MachineHealth, now: datetime) -> Health:
    """Return the health after a look: a finding counts once it has lasted long enough."""
    candidate_since = before.candidate_since if found is before.candidate else now
    first = before.health is MachineHealth.UNKNOWN and found is MachineHealth.HEALTHY
    counts = first or now - candidate_since >= LASTS[found]
    changes = counts and found is not before.health
    return Health(
        health=found if counts else before.health,
        since=now if changes else before.since,
        candidate=found,
        candidate_since=candidate_since,
    )


def _server(facts: MachineFacts) -> Finding | None:
    if facts.asleep:
        return Finding(MachineHealth.UNKNOWN, "It is suspended: it has a snapshot and no server.")
    if facts.server_missing_since is None:
        return None
    return Finding(
        MachineHealth.UNREACHABLE,
        f"Its server is gone from the cloud account, which was seen at "
        f"{_clock_time(facts.server_missing_since)}: somebody removed it there. Replace the "
        "machine, or delete it.",
    )


def _clock(facts: MachineFacts) -> Finding | None:
    offset = facts.clock_offset_seconds or 0
    if abs(offset) <= CLOCK_LIMIT_SECONDS:
        return None
    return Finding(
        MachineHealth.CLOCK_OFF,
        f"The clock of the server is {_off(offset)}, so that certificates do not count on it. "
        "Have it synchronised (timedatectl set-ntp true); the server comes back by itself.",
    )


def _expired(facts: MachineFacts, now: datetime) -> Finding | None:
    end = facts.client_certificate_expires_at
    # A kubelet that was heard later has a newer one than we know of.
    if end is None or end > now or (facts.heard_at is not None and facts.heard_at > end):
        return None
    return Finding(
        MachineHealth.CERTIFICATE_EXPIRED,
        f"The certificate of its kubelet ended at {_clock_time(end)} and was not renewed: the "
        "server was off or cut off for too long. Once it runs and reaches the platform it gets a "
        "new one by itself; if not, run `bulkhead-node report` on it and read what it says.",
    )


def _silent(facts: MachineFacts, now: datetime) -> Finding | None:
    heard = [moment for moment in (facts.reported_at, facts.heard_at) if moment is not None]
    if not heard:
        return Finding(MachineHealth.UNKNOWN, "Nothing was heard of the server yet.")
    last = max(heard)
    if now - last <= SILENT_AFTER:
        return None
    return Finding(
        MachineHealth.UNREACHABLE,
        f"Nothing was heard of the server since {_clock_time(last)}, neither a report nor a "
        "heartbeat of its kubelet. Look whether it is on and reaches the platform; it comes back "
        "by itself.",
    )


def _node(facts: MachineFacts) -> Finding | None:
    if not facts.has_node:
        if facts.heard_at is None:
            return Finding(
                MachineHealth.UNKNOWN, "Its server reports; it has no node in the cluster yet."
            )
        return Finding(
            MachineHealth.NOT_READY,
            "Its Node object is gone from the cluster; a restart of its kubelet makes a new one.",
        )
    if facts.node_ready:
        return None
    said = facts.node_message or "without a reason"
    return Finding(MachineHealth.NOT_READY, f"The node is not ready: {said}")


def _degraded(facts: MachineFacts, now: datetime) -> Finding | None:
    offset = facts.clock_offset_seconds or 0
    serving_end = facts.serving_certificate_expires_at
    problems: list[str] = []
    if facts.pressures:
        problems.append(f"The node is under {', '.join(facts.pressures)}.")
    if abs(offset) > CLOCK_WARNING_SECONDS:
        problems.append(f"The clock of the server is {_off(offset)}; have it synchronised.")
    if facts.reported_at is None or now - facts.reported_at > SILENT_AFTER:
        problems.append(
            "The node is ready, but its server no longer reports; look at "
            "`systemctl status bulkhead-node.timer` on it."
        )
    if facts.reported_failure is not None:
        problems.append(f"Its server reports: {facts.reported_failure}")
    if serving_end is None:
        problems.append(
            "Its kubelet has no serving certificate, so that logs and exec fail; the audit log has "
            "why it was denied one, if it was."
        )
    elif serving_end < now:
        problems.append(
            "The serving certificate of its kubelet has ended, so that logs and exec fail."
        )
    return Finding(MachineHealth.DEGRADED, " ".join(problems)) if problems else None


def _off(seconds: int) -> str:
    return f"{abs(seconds)} s {'ahead' if seconds > 0 else 'behind'}"


def _clock_time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
