"""Which machines may be repaired now: few at a time, and none when no machine is at fault.

A repair restarts what Bulkhead installed on a server. Where many machines are unhealthy at once
the cause is elsewhere, and restarts would only take away what still works.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from domain.cloud import Provider
from domain.health import UNHEALTHY
from domain.machine import MachineHealth, MachineKind

CLUSTER_AT_ONCE: Final = 1
CLUSTER_AN_HOUR: Final = 3
PROVIDER_AT_ONCE: Final = 5

# A machine that one repair did not mend needs a person, not another repair.
PAUSE_OF_MACHINE: Final = timedelta(hours=1)

# More of a cluster's machines than this share, and at least two, point at their network, their
# power or the control plane.
_SHARE: Final = 1 / 3
_AT_LEAST: Final = 2

# What a restart of the services on a server can mend. One that is silent cannot even be told: an
# own server is switched on by its owner, and one in a cloud is replaced when a person says so.
_MENDED_BY_RESTART: Final = frozenset({MachineHealth.NOT_READY})
REPAIRABLE: Final = {
    MachineKind.OWN_SERVER: _MENDED_BY_RESTART,
    MachineKind.CLOUD: _MENDED_BY_RESTART,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """One machine as the budget sees it.

    Attributes:
        machine_id: its id.
        kind: who made its server.
        health: debounced.
        available: whether it is active, and no operation works on it.
        repaired_at: when its last repair was planned.
        provider: who has its server, which is whose budget it takes from; None: its owner, who has
            one budget with all owners of servers.
    """

    machine_id: str
    kind: MachineKind
    health: MachineHealth
    available: bool
    repaired_at: datetime | None
    provider: Provider | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RepairLoad:
    """What runs already.

    Attributes:
        in_cluster: repairs under way in the cluster.
        in_cluster_within_hour: repairs of the cluster that were planned in the last hour.
        of_provider: repairs under way by provider, in all clusters of the platform.
    """

    in_cluster: int
    in_cluster_within_hour: int
    of_provider: Mapping[Provider | None, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class RepairPlan:
    """Whom to repair now, and why the others have to wait, by machine and as a sentence."""

    repair: tuple[str, ...]
    withheld: Mapping[str, str]


def needs_repair(machine: Standing) -> bool:
    """Tell whether a repair could help, if the budget allows it."""
    return machine.health in REPAIRABLE[machine.kind] and machine.available


def plan_repairs(machines: Sequence[Standing], load: RepairLoad, now: datetime) -> RepairPlan:
    """Decide for all machines of one cluster that is active."""
    room = min(CLUSTER_AT_ONCE - load.in_cluster, CLUSTER_AN_HOUR - load.in_cluster_within_hour)
    running = dict(load.of_provider)
    common_cause = _common_cause(machines)
    repair: list[str] = []
    withheld: dict[str, str] = {}
    for machine in sorted(filter(needs_repair, machines), key=_longest_ago):
        reason = common_cause or _pause_of(machine, now)
        if reason is None and len(repair) >= room:
            reason = (
                f"It waits for its repair: a cluster has at most {CLUSTER_AT_ONCE} at a time and "
                f"{CLUSTER_AN_HOUR} an hour."
            )
        if reason is None and running.get(machine.provider, 0) >= PROVIDER_AT_ONCE:
            reason = (
                f"It waits for its repair: at most {PROVIDER_AT_ONCE} machines of one provider "
                "are repaired at a time."
            )
        if reason is not None:
            withheld[machine.machine_id] = reason
            continue
        repair.append(machine.machine_id)
        running[machine.provider] = running.get(machine.provider, 0) + 1
    return RepairPlan(repair=tuple(repair), withheld=withheld)


def _common_cause(machines: Sequence[Standing]) -> str | None:
    unhealthy = sum(machine.health in UNHEALTHY for machine in machines)
    if unhealthy < _AT_LEAST or unhealthy <= len(machines) * _SHARE:
        return None
    return (
        f"It is not repaired: {unhealthy} of the {len(machines)} machines of the cluster are "
        "unhealthy at once, which is no machine's fault. Look at their network and at the cluster."
    )


def _pause_of(machine: Standing, now: datetime) -> str | None:
    before = machine.repaired_at
    if before is None or now - before >= PAUSE_OF_MACHINE:
        return None
    return (
        f"The repair that began at {before:%H:%M:%S} UTC did not help, and is not repeated within "
        "the hour. Look at the server: `journalctl -u bulkhead-kubelet`."
    )


def _longest_ago(machine: Standing) -> tuple[datetime, str]:
    return machine.repaired_at or datetime.min.replace(tzinfo=UTC), machine.machine_id
