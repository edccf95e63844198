"""How many machines are repaired, whatever happens to them."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.cloud import Provider
from domain.health import UNHEALTHY
from domain.machine import MachineHealth, MachineKind
from domain.repair_budget import (
    CLUSTER_AN_HOUR,
    CLUSTER_AT_ONCE,
    PAUSE_OF_MACHINE,
    PROVIDER_AT_ONCE,
    RepairLoad,
    RepairPlan,
    Standing,
    plan_repairs,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
KIND = MachineKind.OWN_SERVER
IDLE = RepairLoad(in_cluster=0, in_cluster_within_hour=0, of_provider={})


def standing(
    number: int,
    health: MachineHealth = MachineHealth.HEALTHY,
    repaired: datetime | None = None,
    provider: Provider | None = None,
) -> Standing:
    return Standing(
        machine_id=f"mch-{number:03}",
        kind=KIND,
        health=health,
        available=True,
        repaired_at=repaired,
        provider=provider,
    )


def cluster_with(unhealthy: int, *, of: int) -> list[Standing]:
    return [
        standing(number, MachineHealth.NOT_READY if number < unhealthy else MachineHealth.HEALTHY)
        for number in range(of)
    ]


def test_one_machine_of_a_cluster_is_repaired_and_the_next_waits() -> None:
    plan = plan_repairs(cluster_with(2, of=10), IDLE, NOW)
    assert plan.repair == ("mch-000",)
    assert "at most 1 at a time" in plan.withheld["mch-001"]


def test_the_only_machine_of_a_cluster_is_repaired() -> None:
    assert plan_repairs(cluster_with(1, of=1), IDLE, NOW).repair == ("mch-000",)


def test_nothing_is_repaired_when_more_than_a_third_are_unhealthy() -> None:
    assert plan_repairs(cluster_with(3, of=9), IDLE, NOW).repair
    plan = plan_repairs(cluster_with(4, of=9), IDLE, NOW)
    assert plan == RepairPlan(repair=(), withheld=plan.withheld)
    assert "no machine's fault" in plan.withheld["mch-000"]


def test_a_machine_is_not_repaired_twice_within_the_hour() -> None:
    lately = [standing(0, MachineHealth.NOT_READY, NOW - 59 * MINUTE), standing(1)]
    plan = plan_repairs(lately, IDLE, NOW)
    assert plan.repair == ()
    assert "did not help" in plan.withheld["mch-000"]
    assert plan_repairs(lately, IDLE, NOW + MINUTE).repair == ("mch-000",)


def test_a_silent_own_server_cannot_be_told_to_restart() -> None:
    silent = [standing(0, MachineHealth.UNREACHABLE), standing(1), standing(2)]
    assert plan_repairs(silent, IDLE, NOW) == RepairPlan(repair=(), withheld={})


@pytest.mark.parametrize(
    ("provider", "is_repaired"), [(Provider.AWS, False), (Provider.HCLOUD, True), (None, True)]
)
def test_each_provider_has_a_budget_of_its_own(
    provider: Provider | None, *, is_repaired: bool
) -> None:
    load = RepairLoad(
        in_cluster=0, in_cluster_within_hour=0, of_provider={Provider.AWS: PROVIDER_AT_ONCE}
    )
    plan = plan_repairs([standing(0, MachineHealth.NOT_READY, provider=provider)], load, NOW)
    assert bool(plan.repair) is is_repaired
    assert is_repaired or "of one provider" in plan.withheld["mch-000"]


CLUSTERS, MACHINES, TURNS = 10, 20, 60
# A turn: which machines change to which health, and how many of the repairs under way end.
HEALTHS = st.sampled_from([MachineHealth.HEALTHY, *sorted(UNHEALTHY)])
CHANGES = st.dictionaries(st.integers(0, CLUSTERS * MACHINES - 1), HEALTHS, max_size=40)
WEATHER = st.lists(st.tuples(CHANGES, st.integers(0, 3)), min_size=TURNS, max_size=TURNS)


@settings(max_examples=15)
@given(WEATHER)
def test_no_weather_among_200_machines_makes_a_repair_storm(
    weather: list[tuple[dict[int, MachineHealth], int]],
) -> None:
    machines = [standing(number) for number in range(CLUSTERS * MACHINES)]
    begun: list[tuple[datetime, int]] = []
    running: list[int] = []
    now = NOW
    for changes, ended in weather:
        now += 2 * MINUTE
        for number, health in changes.items():
            machines[number] = dataclasses.replace(machines[number], health=health)
        running = running[ended:]
        for cluster in range(CLUSTERS):
            own = range(cluster * MACHINES, (cluster + 1) * MACHINES)
            lately = [(at, number) for at, number in begun if now - at < PAUSE_OF_MACHINE]
            load = RepairLoad(
                in_cluster=sum(number in own for number in running),
                in_cluster_within_hour=sum(number in own for _, number in lately),
                of_provider={None: len(running)},
            )
            fleet = [
                dataclasses.replace(machines[number], available=number not in running)
                for number in own
            ]
            unhealthy = sum(machine.health in UNHEALTHY for machine in fleet)
            for machine_id in plan_repairs(fleet, load, now).repair:
                number = int(machine_id.removeprefix("mch-"))
                assert unhealthy <= max(1, MACHINES / 3)
                assert machines[number].health is MachineHealth.NOT_READY
                assert all(number != before for _, before in lately)
                machines[number] = dataclasses.replace(machines[number], repaired_at=now)
                begun.append((now, number))
                running.append(number)
            within_hour = [at for at, number in begun if number in own and now - at < 60 * MINUTE]
            assert len(within_hour) <= CLUSTER_AN_HOUR
            assert sum(number in own for number in running) <= CLUSTER_AT_ONCE
            assert len(running) <= PROVIDER_AT_ONCE
