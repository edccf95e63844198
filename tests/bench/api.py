"""Requests to the API, and the same work behind bare FastAPI routes, one after the other."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from infra.database.engine import Database, DatabaseRole
from infra.database.records.placement import register_host
from infra.embedded.server import Part
from infra.embedded.stack import ALL_PARTS, Stack
from infra.settings import EmbeddedSettings
from tests.bench.measure import Figures, compare, free_port
from tests.end_to_end.stack import Bulkhead
from tests.servers import temporary_home

READS = 400
WRITES = 100
WARM_UP = 20
# No control plane is started, so the host may be as large as the requests need.
ROOM_BYTES = 1024**4
SLOTS = 200


def measure() -> Figures:
    """Alternate single requests, without a worker that would compete for the cores."""
    with temporary_home() as home:
        stack = Stack(home, EmbeddedSettings.model_construct(home=None))
        owner = stack.up(ALL_PARTS - {Part.WORKER})
        assert owner is not None
        asyncio.run(_make_room(stack))
        bulkhead = Bulkhead(stack, stack.api.address, owner.token)
        with bulkhead.http as ours, _bare_api(stack) as bare:
            region = bulkhead.new_region()
            operation = bulkhead.create_cluster(region)
            return {
                "get_cluster": _alternate(
                    lambda client: client.get(f"/clusters/{operation['owner_id']}"),
                    bare,
                    ours,
                    READS,
                ),
                "get_operation": _alternate(
                    lambda client: client.get(f"/operations/{operation['id']}"), bare, ours, READS
                ),
                "post_cluster": _alternate(
                    lambda client: client.post(
                        "/clusters", json={"name": "bench", "region_id": region}
                    ),
                    bare,
                    ours,
                    WRITES,
                ),
            }


async def _make_room(stack: Stack) -> None:
    with stack.administrator("bulkhead") as administrator:
        administrator.execute(
            'INSERT INTO quotas (workspace_id, metric, "limit") '
            "SELECT id, 'compute/clusters', 100000 FROM workspaces"
        )
        administrator.execute("CREATE TABLE bench_rows (id text PRIMARY KEY, name text)")
    database = Database(stack.database, DatabaseRole.WORKER)
    room = stack.control_planes.model_copy(update={"memory_bytes": ROOM_BYTES, "slots": SLOTS})
    await register_host(database, room)
    await database.close()


@contextmanager
def _bare_api(stack: Stack) -> Iterator[httpx.Client]:
    port = free_port()
    with stack.administrator("bulkhead") as administrator:
        info = administrator.info
        address = {
            "PGHOST": info.host,
            "PGPORT": str(info.port),
            "PGUSER": info.user,
            "PGPASSWORD": info.password,
            "PGDATABASE": "bulkhead",
        }
    with (
        subprocess.Popen(
            [sys.executable, "-m", "tests.bench.bare_api", str(port), stack.temporal.address],
            env={**os.environ, **address},
        ) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        try:
            while True:
                try:
                    client.get("/openapi.json")
                except httpx.TransportError:
                    time.sleep(0.1)
                    continue
                break
            yield client
        finally:
            process.terminate()


def _alternate(
    request: Callable[[httpx.Client], httpx.Response],
    bare: httpx.Client,
    ours: httpx.Client,
    runs: int,
) -> Figures:
    seconds: dict[httpx.Client, list[float]] = {bare: [], ours: []}
    for _ in range(runs + WARM_UP):
        for client, taken in seconds.items():
            started = time.perf_counter()
            answer = request(client)
            taken.append((time.perf_counter() - started) * 1000)
            assert answer.is_success, answer.text
    return compare(seconds[bare][WARM_UP:], seconds[ours][WARM_UP:], "ms")
