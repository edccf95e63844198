"""How long a server waits for its certificate, and for the answer to a report."""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import httpx

from infra.telemetry import configure_logging
from tests.api.gate import NODE_URL, Gate, running_gate, store_program
from tests.api.own_server import OwnServer, new_bootstrap
from tests.api.process import answers, running_process
from tests.bench.measure import Figures, percentiles
from tests.servers import Servers, running_servers

RUNS = 100
WARM_UP = 10
RATE = 10
AT_RATE = 100
LIMIT_MS = 50.0


def measure() -> Figures:
    """Exchange tokens at an API process of its own, without a worker: in a row, then at a rate."""
    # The token's requests are made in this process, whose standard output is the report.
    configure_logging("WARNING")
    with running_servers() as servers:
        return asyncio.run(_measure_at(servers))


async def _measure_at(servers: Servers) -> Figures:
    async with running_gate(servers) as gate:
        with (
            tempfile.TemporaryDirectory() as folder,
            running_process(
                gate, https_address=None, node_url=NODE_URL, artifacts_dir=folder
            ) as process,
        ):
            store_program(Path(folder))
            await answers(process.http)
            person = gate.new_person()
            cluster = await gate.new_cluster_with_authorities(person)
            tokens = [
                (await new_bootstrap(person, cluster, ttl_seconds=3600))["token"]
                for _ in range(RUNS + WARM_UP + AT_RATE)
            ]
            async with httpx.AsyncClient(base_url=process.http, timeout=60) as client:
                gate.client = client
                return await _exchange(gate, tokens)


async def _exchange(gate: Gate, tokens: list[str]) -> Figures:
    exchanges: list[float] = []
    reports: list[float] = []
    for token in tokens[: RUNS + WARM_UP]:
        server = OwnServer(gate)
        assert await _join(server, token, exchanges)
        started = time.perf_counter()
        answer = await server.report("running")
        reports.append((time.perf_counter() - started) * 1000)
        assert answer.status_code == 200, answer.text
    at_rate: list[float] = []
    joining = []
    for token in tokens[RUNS + WARM_UP :]:
        joining.append(asyncio.create_task(_join(OwnServer(gate), token, at_rate)))
        await asyncio.sleep(1 / RATE)
    joined = await asyncio.gather(*joining)
    return {
        "unit": "ms",
        "token_exchange": percentiles(exchanges[WARM_UP:]),
        f"token_exchange_at_{RATE}_a_second": percentiles(at_rate),
        "refused_at_that_rate": joined.count(False),
        "within_limit": statistics.median(exchanges[WARM_UP:]) <= LIMIT_MS,
        "report": percentiles(reports[WARM_UP:]),
    }


async def _join(server: OwnServer, token: str, taken: list[float]) -> bool:
    """Exchange a token; False when the machine is too busy, which is a figure of its own."""
    started = time.perf_counter()
    answer = await server.register(token)
    taken.append((time.perf_counter() - started) * 1000)
    return answer.status_code == 201
