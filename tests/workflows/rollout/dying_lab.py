"""A lab's worker in a process of its own, that kills itself at one moment of a rollout.

`python -m tests.workflows.rollout.dying_lab` reads `Orders` as JSON from the first line of its
input, and ends with its input unless it died before.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

from pydantic import BaseModel

from infra.openbao.policies import WORKER
from infra.settings import DatabaseSettings, OpenBaoSettings, TemporalSettings
from infra.supervisor.configuration import source_root
from infra.telemetry import configure_logging
from infra.temporal.client import TemporalConnection
from infra.waiting import when_available
from tests.durability import Death, Fault, FaultInjector
from tests.rollout_worker import LabWorker, lab_queues
from tests.servers import Servers


class Orders(BaseModel):
    """Where everything is, and when to die; without a death it lives."""

    database: DatabaseSettings
    temporal: TemporalSettings
    openbao: OpenBaoSettings
    queue: str
    death: Death | None


@contextlib.contextmanager
def running_worker(
    servers: Servers, queue: str, death: Death | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a worker on a lab's queues."""
    orders = Orders(
        database=servers.database,
        temporal=servers.temporal,
        openbao=servers.openbao("worker"),
        queue=queue,
        death=death,
    )
    with subprocess.Popen(
        [sys.executable, "-m", "tests.workflows.rollout.dying_lab"],
        cwd=source_root(),
        stdin=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(orders.model_dump_json() + "\n")
        process.stdin.flush()
        yield process
        process.kill()


async def _serve(orders: Orders) -> None:
    injector = FaultInjector()

    async def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    death = orders.death
    if death is not None:
        injector.fault = Fault(death.workflow, death.step, death.moment, die)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    connection = TemporalConnection(orders.temporal, orders.openbao, WORKER)
    client = await when_available(connection.client)
    with lab_queues(orders.queue):
        worker = LabWorker(orders.database, connection, orders.queue, [injector])
        async with worker.running(client):
            await ended.wait()


if __name__ == "__main__":
    configure_logging("WARNING")
    asyncio.run(_serve(Orders.model_validate_json(sys.stdin.readline())))
