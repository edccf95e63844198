"""Reads and writes of secrets through the API, beside a bare route that asks OpenBao the same.

Requests are sent at a fixed rate whatever the answers take, so that a slow answer is measured by
everybody who would have waited behind it.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx

from domain.names import secret_namespace_of, value_path_of
from domain.secret import VersionPlace
from infra.embedded.server import Part
from infra.embedded.stack import ALL_PARTS, Stack
from infra.openbao.client import OpenBao
from infra.openbao.policies import SECRETS_MOUNT
from infra.settings import EmbeddedSettings
from tests.bench.measure import Figures, free_port, say, spread
from tests.end_to_end.stack import Bulkhead
from tests.servers import temporary_home

RATE_PER_SECOND = 100
ACCESSES = 1000
ROUNDS = 3
ADDS = 200
WARM_UP = 20
VALUE = "v" * 128


def measure() -> Figures:
    """Run both APIs on one embedded stack, with audit and durable raft, and no worker."""
    with temporary_home() as home:
        stack = Stack(home, EmbeddedSettings.model_construct(home=None))
        owner = stack.up(ALL_PARTS - {Part.WORKER})
        assert owner is not None
        bulkhead = Bulkhead(stack, stack.api.address, owner.token)
        with bulkhead.http as http:
            (workspace,) = bulkhead.get("/workspaces")["data"]
            openbao = OpenBao(stack.openbao("worker"))
            openbao.ensure_secret_space(workspace["id"])
            openbao.close()
            path = f"/workspaces/{workspace['id']}/secret_policy"
            policy = http.get(path).raise_for_status().json()
            http.patch(
                path,
                json={"accesses_per_minute": 100_000},
                headers={"if-match": policy["etag"]},
            ).raise_for_status()
            secret = http.post(
                "/secrets", json={"name": "bench", "kind": "generic", "value": VALUE}
            ).raise_for_status()
            secret_id = secret.json()["id"]
            (version,) = http.get(f"/secrets/{secret_id}/versions").json()["data"]
            place = VersionPlace(
                workspace_id=workspace["id"], secret_id=secret_id, version_id=version["id"]
            )
            # What a program has that uses secrets: a token of the workspace.
            token = http.post(
                "/api_tokens", json={"name": "bench", "scopes": ["secrets:access"]}
            ).raise_for_status()
            say(f"{ROUNDS} rounds of {ACCESSES} accesses at {RATE_PER_SECOND} a second, twice")
            figures = asyncio.run(_accesses(stack, token.json()["token"], place))
            say(f"{ADDS} versions with an Idempotency-Key and {ADDS} without, one after the other")
            figures["add_version"] = _adds(http, secret_id)
            say("killing OpenBao")
            figures["openbao_killed_to_readable"] = _restart(bulkhead, http, secret_id)
            return figures


async def _accesses(stack: Stack, token: str, place: VersionPlace) -> Figures:
    path = f"/v1/secrets/{place.secret_id}/versions/current:access"
    headers = {"authorization": f"Bearer {token}"}
    bare_taken: list[float] = []
    taken: list[float] = []
    async with (
        _bare_api(stack, place) as bare,
        httpx.AsyncClient(base_url=stack.api.address, headers=headers) as ours,
    ):
        # Connections, threads and caches of both are made before anything is measured.
        await _at_rate(lambda: bare.post("/value"))
        await _at_rate(lambda: ours.post(path))
        for _ in range(ROUNDS):
            bare_taken += await _at_rate(lambda: bare.post("/value"))
            taken += await _at_rate(lambda: ours.post(path))
    ratio = statistics.median(taken) / statistics.median(bare_taken)
    return {
        "access": {
            "unit": "ms",
            "bare": _percentiles(bare_taken),
            "ours": _percentiles(taken),
            "ratio": round(ratio, 2),
        }
    }


async def _at_rate(request: Callable[[], Awaitable[httpx.Response]]) -> list[float]:
    async def timed() -> float:
        started = time.perf_counter()
        answer = await request()
        milliseconds = (time.perf_counter() - started) * 1000
        assert answer.is_success, answer.text
        return milliseconds

    first = time.perf_counter()
    tasks = []
    for number in range(ACCESSES):
        await asyncio.sleep(max(0.0, first + number / RATE_PER_SECOND - time.perf_counter()))
        tasks.append(asyncio.create_task(timed()))
    return list(await asyncio.gather(*tasks))


@asynccontextmanager
async def _bare_api(stack: Stack, place: VersionPlace) -> AsyncIterator[httpx.AsyncClient]:
    port = free_port()
    settings = stack.openbao("api")
    environment = {
        **os.environ,
        "OPENBAO_ADDRESS": settings.address,
        "OPENBAO_LOGIN_KEY_FILE": str(settings.login_key_file),
        "OPENBAO_NAMESPACE": secret_namespace_of(place.workspace_id),
        "OPENBAO_PATH": f"{SECRETS_MOUNT}/data/{value_path_of(place)}",
    }
    with subprocess.Popen(  # noqa: ASYNC220 - made once, before anything is measured
        [sys.executable, "-m", "tests.bench.bare_secrets", str(port)], env=environment
    ) as process:
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                while True:
                    try:
                        (await client.post("/value")).raise_for_status()
                    except httpx.TransportError:
                        await asyncio.sleep(0.1)
                        continue
                    break
                yield client
        finally:
            process.terminate()


def _adds(http: httpx.Client, secret_id: str) -> Figures:
    path = f"/secrets/{secret_id}/versions"
    taken: dict[str, list[float]] = {"with_key": [], "without_key": []}
    for number in range(ADDS + WARM_UP):
        for how, milliseconds in taken.items():
            headers = {"idempotency-key": f"bench-{number}"} if how == "with_key" else {}
            started = time.perf_counter()
            answer = http.post(path, json={"value": f"{VALUE}{number}"}, headers=headers)
            milliseconds.append((time.perf_counter() - started) * 1000)
            assert answer.is_success, answer.text
    return {
        "unit": "ms",
        **{how: _percentiles(milliseconds[WARM_UP:]) for how, milliseconds in taken.items()},
    }


def _restart(bulkhead: Bulkhead, http: httpx.Client, secret_id: str) -> Figures:
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        bulkhead.kill("openbao")
        while not http.post(f"/secrets/{secret_id}/versions/current:access").is_success:
            time.sleep(0.02)
        taken.append(time.perf_counter() - started)
    return {"unit": "s", "ours": spread(taken)}


def _percentiles(taken: list[float]) -> Figures:
    hundredths = statistics.quantiles(taken, n=100)
    return {**spread(taken), "p99": round(hundredths[98], 3)}
