"""When a finding about an install counts."""

from datetime import UTC, datetime, timedelta

from domain.install import Health
from domain.install_health import Settled, is_offline, settle

START = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def history(begin: Health, *looks: tuple[int, Health]) -> list[Health]:
    """Return what counts after each look; looks are at seconds after the start."""
    settled = Settled(health=begin, since=START, candidate=begin, candidate_since=START)
    found = []
    for second, health in looks:
        settled = settle(settled, health, START + timedelta(seconds=second))
        found.append(settled.health)
    return found


def test_a_moment_of_illness_does_not_count() -> None:
    looks = [(10, Health.DEGRADED), (20, Health.DEGRADED), (30, Health.HEALTHY)]
    assert history(Health.HEALTHY, *looks) == [Health.HEALTHY] * 3


def test_illness_that_lasts_counts_and_recovery_has_to_stay() -> None:
    looks = [
        (0, Health.DEGRADED),
        (30, Health.DEGRADED),
        (40, Health.HEALTHY),
        (50, Health.HEALTHY),
    ]
    counted = [Health.HEALTHY, Health.DEGRADED, Health.DEGRADED, Health.HEALTHY]
    assert history(Health.HEALTHY, *looks) == counted


def test_a_cluster_that_does_not_answer_is_never_degraded() -> None:
    looks = [(second, Health.UNKNOWN) for second in range(0, 7200, 600)]
    assert history(Health.HEALTHY, *looks) == [Health.HEALTHY] + [Health.UNKNOWN] * 11


def test_what_is_seen_first_counts_at_once_but_bad_news() -> None:
    assert history(Health.UNKNOWN, (1, Health.HEALTHY)) == [Health.HEALTHY]
    assert history(Health.UNKNOWN, (1, Health.PROGRESSING)) == [Health.PROGRESSING]
    looks = [(1, Health.DEGRADED), (31, Health.DEGRADED)]
    assert history(Health.UNKNOWN, *looks) == [Health.UNKNOWN, Health.DEGRADED]


def test_what_is_never_done_is_degraded_and_stays_so_until_it_is_done() -> None:
    seconds = (0, 100, 299, 300, 310, 320)
    looks = [(second, Health.PROGRESSING) for second in seconds]
    counted = history(Health.HEALTHY, *looks, (330, Health.HEALTHY), (340, Health.HEALTHY))
    assert counted == [
        Health.HEALTHY,
        *[Health.PROGRESSING] * 2,
        *[Health.DEGRADED] * 4,
        Health.HEALTHY,
    ]


def test_an_install_is_offline_when_nobody_saw_it_for_minutes() -> None:
    assert is_offline(None, START)
    assert is_offline(START - timedelta(minutes=4), START)
    assert not is_offline(START - timedelta(minutes=2), START)
