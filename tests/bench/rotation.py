"""How rotations end, and how long they take, when a quarter of all activities fails at random."""

import asyncio
from collections import Counter

from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

from infra.telemetry import configure_logging
from tests.bench.measure import Figures, spread
from tests.durability import FaultInjector
from tests.platform import running_platform
from tests.servers import Servers, running_servers
from tests.workflows.secret.many import Outcome, rotate_many

RUNS = 200


def measure() -> Figures:
    """Rotate many secrets; each must end done, or undone with nothing left."""
    _warn_of_nothing()
    with running_servers() as servers:
        return _figures(asyncio.run(_measure(servers)))


def _warn_of_nothing() -> None:
    """Every planted failure is a warning, and the SDK's core writes its own to standard output."""
    configure_logging("ERROR")
    silent = LoggingConfig(filter=TelemetryFilter(core_level="ERROR", other_level="ERROR"))
    runtime = Runtime(telemetry=TelemetryConfig(logging=silent))
    Runtime.set_default(runtime, error_if_already_set=False)


async def _measure(servers: Servers) -> Outcome:
    injector = FaultInjector()
    async with running_platform(servers, injector) as platform:
        return await rotate_many(platform, injector, RUNS)


def _figures(outcome: Outcome) -> Figures:
    ends: dict[str, Counter[str]] = {}
    for (disturbance, state), count in outcome.ends.items():
        ends.setdefault(disturbance, Counter())[state] += count
    return {
        "rotations": RUNS,
        "failed_attempts": outcome.outages,
        "ends": {disturbance: dict(counts) for disturbance, counts in ends.items()},
        "stuck": len(outcome.stuck),
        "dangling_versions": outcome.dangling,
        "wrong": outcome.wrong,
        "seconds": spread(outcome.seconds),
    }
