"""What our interceptor, the rows and the codec cost a workflow of the shape of CreateCluster.

Both workers run the same workflow with the same no-op activities on the same server, each in a
process of its own so that its CPU time can be read: one bare, one with the activity interceptor
writing every step to PostgreSQL and every payload sealed. `python -m tests.bench.engine bare|ours`
is such a worker; it reads its settings as JSON from standard input and ends with it.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel
from temporalio.client import Client
from temporalio.worker import Worker

from activities.interceptor import ActivityInterceptor
from domain.names import task_queue_of_host, workflow_id_of
from domain.operation import OPERATIONS, OperationType
from infra.database.records.steps import StepRecords
from infra.openbao.policies import WORKER
from infra.settings import DatabaseSettings, OpenBaoSettings, TemporalSettings
from infra.temporal.client import TemporalConnection
from tests.bench.measure import Figures, compare
from tests.no_ops import NO_OPS
from tests.platform import Platform
from tests.servers import Servers, running_servers
from workflows.cluster.create import CreateCluster
from workflows.registry import sandbox

BLOCKS = 5
RUNS_A_BLOCK = 20
WARM_UP = 10
KINDS = ("bare", "ours")
TICKS = os.sysconf("SC_CLK_TCK")


class WorkerInput(BaseModel):
    """What a worker's process gets."""

    temporal: TemporalSettings
    database: DatabaseSettings
    openbao: OpenBaoSettings


def measure() -> Figures:
    """Alternate blocks of workflows between the two workers."""
    with running_servers() as servers:
        return asyncio.run(_measure(servers))


async def _measure(servers: Servers) -> Figures:
    connection = TemporalConnection(servers.temporal, servers.openbao("worker"), WORKER)
    clients = {
        "bare": await Client.connect(servers.temporal.address),
        "ours": await connection.client(),
    }
    platform = Platform(servers, connection, clients["ours"])
    caller = await platform.new_workspace()
    latency: dict[str, list[float]] = {kind: [] for kind in KINDS}
    cpu: dict[str, list[float]] = {kind: [] for kind in KINDS}
    events: dict[str, int] = {}

    async def run(kind: str) -> None:
        planned = await platform.plan_cluster(caller, host=kind)
        started = time.perf_counter()
        handle = await clients[kind].start_workflow(
            CreateCluster.run,
            planned,
            id=workflow_id_of(
                OperationType.CLUSTER_CREATE,
                planned.control_plane.cluster_id,
                planned.operation_id,
            ),
            task_queue=kind,
        )
        await handle.result()
        latency[kind].append((time.perf_counter() - started) * 1000)
        events[kind] = (await handle.describe()).history_length

    with _worker("bare", servers) as bare, _worker("ours", servers) as ours:
        processes = {"bare": bare, "ours": ours}
        for kind in KINDS * WARM_UP:
            await run(kind)
        latency = {kind: [] for kind in KINDS}
        for kind in KINDS * BLOCKS:
            before = _cpu_seconds(processes[kind])
            for _ in range(RUNS_A_BLOCK):
                await run(kind)
            cpu[kind].append((_cpu_seconds(processes[kind]) - before) / RUNS_A_BLOCK * 1000)
    await platform.close()
    return {
        "activities": len(OPERATIONS[OperationType.CLUSTER_CREATE].steps) + 1,
        "latency": compare(latency["bare"], latency["ours"], "ms"),
        "worker_cpu": compare(cpu["bare"], cpu["ours"], "ms a workflow"),
        "events": events,
    }


@contextmanager
def _worker(kind: str, servers: Servers) -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.engine", kind], stdin=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        settings = WorkerInput(
            temporal=servers.temporal,
            database=servers.database,
            openbao=servers.openbao("worker"),
        )
        process.stdin.write(settings.model_dump_json() + "\n")
        process.stdin.flush()
        yield process.pid
        process.stdin.close()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def _serve(kind: str, settings: WorkerInput, stop: IO[str]) -> None:
    connection = TemporalConnection(settings.temporal, settings.openbao, WORKER)
    client = (
        await connection.client()
        if kind == "ours"
        else await Client.connect(settings.temporal.address)
    )
    steps = StepRecords(settings.database)
    interceptors = [ActivityInterceptor(steps)] if kind == "ours" else []
    shared: dict[str, Any] = {"activities": NO_OPS, "interceptors": interceptors}
    with ThreadPoolExecutor() as threads:
        async with (
            Worker(
                client,
                task_queue=kind,
                workflows=[CreateCluster],
                workflow_runner=sandbox(),
                **shared,
            ),
            Worker(client, task_queue=task_queue_of_host(kind), **shared),
        ):
            await asyncio.get_running_loop().run_in_executor(threads, stop.read)
    await steps.close()


if __name__ == "__main__":
    asyncio.run(
        _serve(sys.argv[1], WorkerInput.model_validate_json(sys.stdin.readline()), sys.stdin)
    )
    os._exit(0)
