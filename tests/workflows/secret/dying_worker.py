"""A worker on a queue of its own that kills itself at one moment of a rotation.

`python -m tests.workflows.secret.dying_worker` reads `Orders` as JSON from the first line of its
input, and ends with its input unless it died before.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from pydantic import BaseModel

from infra.settings import DatabaseSettings, OpenBaoSettings, TemporalSettings, WorkerSettings
from infra.supervisor.configuration import source_root
from infra.telemetry import configure_logging
from tests.durability import Fault, FaultInjector, Moment
from tests.servers import Servers
from worker import WorkerProcess


class Orders(BaseModel):
    """Where everything is, and when to die; without a step it lives."""

    database: DatabaseSettings
    temporal: TemporalSettings
    openbao: OpenBaoSettings
    queue: str
    step: str | None
    moment: Moment


@contextmanager
def dying_worker(
    servers: Servers, queue: str, step: str | None = None, moment: Moment = Moment.BEFORE
) -> Iterator[subprocess.Popen[str]]:
    """Run one for as long as the context lasts."""
    orders = Orders(
        database=servers.database,
        temporal=servers.temporal,
        openbao=servers.openbao("worker"),
        queue=queue,
        step=step,
        moment=moment,
    )
    with subprocess.Popen(
        [sys.executable, "-m", "tests.workflows.secret.dying_worker"],
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

    if orders.step is not None:
        injector.fault = Fault("RotateSecret", orders.step, orders.moment, die)
    settings = WorkerSettings(
        database=orders.database, temporal=orders.temporal, openbao=orders.openbao
    )
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    # Workers of other tests listen on the queue that every worker shares.
    with patch("worker.CONTROL_TASK_QUEUE", orders.queue), patch("worker.SCHEDULES", ()):
        await WorkerProcess(settings, [injector]).run(ended)


if __name__ == "__main__":
    configure_logging("WARNING")
    asyncio.run(_serve(Orders.model_validate_json(sys.stdin.readline())))
