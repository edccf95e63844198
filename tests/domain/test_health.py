"""When a machine's health changes."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.health import LASTS, Health, MachineFacts, assess, outdated, settle
from domain.machine import MachineHealth

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)

WELL = {
    "reported_at": NOW - 20 * SECOND,
    "heard_at": NOW - 5 * SECOND,
    "has_node": True,
    "node_ready": True,
    "client_certificate_expires_at": NOW + HOUR,
    "serving_certificate_expires_at": NOW + HOUR,
}
SILENT = {"reported_at": NOW - 121 * SECOND, "heard_at": NOW - 121 * SECOND}


def facts(**changes: object) -> MachineFacts:
    return MachineFacts(**{**WELL, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, MachineHealth.HEALTHY),
        ({"reported_at": None, "heard_at": None, "has_node": False}, MachineHealth.UNKNOWN),
        ({"heard_at": None, "has_node": False}, MachineHealth.UNKNOWN),
        ({"has_node": False}, MachineHealth.NOT_READY),
        ({"server_missing_since": NOW}, MachineHealth.UNREACHABLE),
        ({"asleep": True, **SILENT}, MachineHealth.UNKNOWN),
        ({"node_ready": False}, MachineHealth.NOT_READY),
        ({"node_ready": None}, MachineHealth.NOT_READY),
        ({"reported_at": NOW - 121 * SECOND}, MachineHealth.DEGRADED),
        ({"heard_at": NOW - 121 * SECOND}, MachineHealth.HEALTHY),
        (SILENT, MachineHealth.UNREACHABLE),
        ({"pressures": ("DiskPressure",)}, MachineHealth.DEGRADED),
        ({"serving_certificate_expires_at": NOW - SECOND}, MachineHealth.DEGRADED),
        ({"serving_certificate_expires_at": None}, MachineHealth.DEGRADED),
        ({"reported_failure": "The tunnel is not connected."}, MachineHealth.DEGRADED),
        ({"clock_offset_seconds": -61}, MachineHealth.DEGRADED),
        ({"clock_offset_seconds": 301, **SILENT}, MachineHealth.CLOCK_OFF),
        ({"client_certificate_expires_at": NOW - 10 * SECOND}, MachineHealth.HEALTHY),
        (
            {"client_certificate_expires_at": NOW - 10 * SECOND, "node_ready": False},
            MachineHealth.NOT_READY,
        ),
        (
            {"client_certificate_expires_at": NOW - 10 * SECOND, **SILENT},
            MachineHealth.CERTIFICATE_EXPIRED,
        ),
    ],
)
def test_the_cause_wins_over_its_consequences(
    changes: dict[str, object], found: MachineHealth
) -> None:
    finding = assess(facts(**changes), NOW)
    assert finding.health is found
    assert (finding.reason is None) == (found is MachineHealth.HEALTHY)


HEALTHS = st.sampled_from(MachineHealth)
LOOKS = st.lists(st.tuples(HEALTHS, st.integers(1, 30)), max_size=40)


def after(looks: list[tuple[MachineHealth, int]], start: MachineHealth) -> list[Health]:
    now = NOW
    health = Health(health=start, since=now, candidate=start, candidate_since=now)
    found: list[Health] = []
    for seen, pause in looks:
        now += pause * SECOND
        health = settle(health, seen, now)
        found.append(health)
    return found


@given(LOOKS, HEALTHS)
def test_a_health_changes_only_to_what_lasted(
    looks: list[tuple[MachineHealth, int]], start: MachineHealth
) -> None:
    before = start
    for settled in after(looks, start):
        if settled.health is not before:
            first = before is MachineHealth.UNKNOWN and settled.health is MachineHealth.HEALTHY
            lasted = settled.since - settled.candidate_since
            assert first or lasted >= LASTS[settled.health]
            assert settled.health is settled.candidate
        before = settled.health


@given(LOOKS, HEALTHS, HEALTHS)
def test_what_lasts_always_wins_in_the_end(
    looks: list[tuple[MachineHealth, int]], start: MachineHealth, lasting: MachineHealth
) -> None:
    steady = [(lasting, 2)] * 22
    assert after([*looks, *steady], start)[-1].health is lasting


@given(st.lists(st.sampled_from([MachineHealth.NOT_READY, MachineHealth.DEGRADED]), max_size=100))
def test_a_flapping_node_stays_healthy(flaps: list[MachineHealth]) -> None:
    looks = [look for flap in flaps for look in ((flap, 2), (MachineHealth.HEALTHY, 2))]
    healths = {settled.health for settled in after(looks, MachineHealth.HEALTHY)}
    assert healths <= {MachineHealth.HEALTHY}


@pytest.mark.parametrize(
    ("health", "reported_at", "node_seen_at", "since"),
    [
        (MachineHealth.HEALTHY, NOW - 120 * SECOND, None, None),
        (MachineHealth.HEALTHY, None, NOW - 121 * SECOND, NOW - SECOND),
        (MachineHealth.NOT_READY, NOW - HOUR, NOW - HOUR, NOW - HOUR + 120 * SECOND),
        (MachineHealth.UNREACHABLE, NOW - HOUR, NOW - HOUR, None),
        (MachineHealth.CLOCK_OFF, NOW - HOUR, NOW - HOUR, None),
        (MachineHealth.HEALTHY, None, None, None),
    ],
)
def test_what_nobody_looked_at_is_unknown_once_a_look_would_find_silence(
    health: MachineHealth,
    reported_at: datetime | None,
    node_seen_at: datetime | None,
    since: datetime | None,
) -> None:
    found = outdated(health, reported_at, node_seen_at, NOW)
    assert (None if found is None else found[1]) == since
    if found is not None:
        assert found[0].health is MachineHealth.UNKNOWN
        assert f"it was {health} then" in str(found[0].reason)


@pytest.mark.parametrize(
    ("health", "seconds", "is_outdated"),
    [
        (MachineHealth.HEALTHY, 421, True),
        (MachineHealth.DEGRADED, 421, True),
        # The clock of a server that is degraded may be five minutes behind.
        (MachineHealth.DEGRADED, 420, False),
        (MachineHealth.NOT_READY, 3600, False),
    ],
)
def test_a_server_that_reports_hides_no_failing_looks_at_its_cluster(
    health: MachineHealth, seconds: int, *, is_outdated: bool
) -> None:
    found = outdated(health, NOW, NOW - seconds * SECOND, NOW)
    assert (found is not None) == is_outdated
    if found is not None:
        assert "platform cannot look" in str(found[0].reason)
