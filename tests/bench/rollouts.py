"""A rollout over 5,000 targets with an engine that moves rows: what the platform itself takes.

Everything but the installs' own operations is real: API, Temporal, PostgreSQL, the workflows and
activities. The worker is a process of its own, so that its memory can be read.
"""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any, Final

import httpx
from temporalio.client import Client
from temporalio.service import RPCError

from domain.names import CONTROL_TASK_QUEUE, rollout_workflow_id_of
from infra.embedded.server import Part
from infra.embedded.stack import ALL_PARTS, Stack
from infra.openbao.policies import WORKER
from infra.settings import EmbeddedSettings
from infra.temporal.client import TemporalConnection
from tests.bench.measure import Figures, percentiles, say
from tests.end_to_end.stack import Bulkhead
from tests.rollout_lab import Lab, Offer
from tests.rollout_worker import lab_queues
from tests.servers import Servers, temporary_home
from tests.workflows.rollout.dying_lab import running_worker

TARGETS: Final = 5000
CUSTOMERS: Final = 50
# What an operation of a target takes; a real one takes many seconds.
OPERATION_SECONDS: Final = 0.5
STRATEGY: Final[dict[str, Any]] = {
    "canary": 5,
    "waves": [{"percent": 10}, {"percent": 40}],
    "concurrency": 100,
    "bake_seconds": 2,
    "checks": [{"kind": "workload"}],
}
PAUSED_AT: Final = 0.3
MEASURED_AT: Final = (0.1, 0.5, 1.0)
READS: Final = 300


def measure() -> Figures:
    """Roll a version out, pause in the middle, and read the rollout all the while."""
    with temporary_home() as home:
        stack = Stack(home, EmbeddedSettings.model_construct(home=None))
        owner = stack.up(ALL_PARTS - {Part.WORKER})
        assert owner is not None
        bulkhead = Bulkhead(stack, stack.api.address, owner.token)
        with bulkhead.http as http:
            (workspace,) = bulkhead.get("/workspaces")["data"]
            return asyncio.run(_measure(Servers(stack), http, workspace["id"]))


async def _measure(servers: Servers, http: httpx.Client, workspace_id: str) -> Figures:
    connection = TemporalConnection(servers.temporal, servers.openbao("worker"), WORKER)
    client = await connection.client()
    # The API starts and wakes workflows on the queue that every worker shares.
    with lab_queues(CONTROL_TASK_QUEUE):
        lab = Lab(servers, connection, client, CONTROL_TASK_QUEUE)
        lab.set(seconds=OPERATION_SECONDS)
        say(f"making {TARGETS} installs of {CUSTOMERS} customers")
        offer = lab.offer(TARGETS, CUSTOMERS, workspace_id)
        with running_worker(servers, CONTROL_TASK_QUEUE) as worker:
            try:
                return await _Run(lab, http, offer, worker.pid).figures()
            finally:
                await lab.close()
                connection.close()


class _Run:
    """One rollout, and what was seen of it."""

    def __init__(self, lab: Lab, http: httpx.Client, offer: Offer, worker: int) -> None:
        self._lab = lab
        self._http = http
        self._offer = offer
        self._worker = worker
        self._memory: dict[str, float] = {}
        self._greatest_history = 0
        self._runs: set[str] = set()

    async def figures(self) -> Figures:
        """Create the rollout, and return its figures at its end."""
        started = time.monotonic()
        answer = self._http.post(
            "/rollouts",
            json={
                "product_id": self._offer.product_id,
                "package_version_id": self._offer.new,
                "strategy": STRATEGY,
            },
        ).raise_for_status()
        created = time.monotonic() - started
        rollout = answer.json()["id"]
        say(f"moving {TARGETS} targets, {STRATEGY['concurrency']} at a time")
        await self._until(rollout, PAUSED_AT)
        under_load = self._reads(rollout)
        pause = await self._pause(rollout)
        at_rest = self._reads(rollout)
        resumed = time.monotonic()
        self._http.post(f"/rollouts/{rollout}:resume").raise_for_status()
        await self._until(rollout, 1.0)
        seconds = time.monotonic() - resumed
        self._lab.check_effects()
        return {
            "targets": TARGETS,
            "create_seconds": round(created, 2),
            "targets_per_second": round(TARGETS * (1 - PAUSED_AT) / seconds, 1),
            "parent_greatest_history_events": self._greatest_history,
            "parent_runs": len(self._runs),
            "worker_rss_mib_at": self._memory,
            "pause": pause,
            "get_rollout_ms_while_moving": under_load,
            "get_rollout_ms": at_rest,
        }

    async def _until(self, rollout: str, share: float) -> None:
        """Wait until a share of the targets has the version; look at memory and history."""
        while True:
            body = self._http.get(f"/rollouts/{rollout}").raise_for_status().json()
            counts = body["counts"]
            moved = (counts.get("succeeded", 0) + counts.get("baking", 0)) / TARGETS
            for mark in MEASURED_AT:
                if moved >= mark and str(mark) not in self._memory:
                    self._memory[str(mark)] = _resident_mib(self._worker)
                    say(f"{moved:.0%} moved")
            await self._look_at_history(self._lab.client, rollout)
            assert body["state"] != "failed", body["reason"]
            if body["state"] == "succeeded" or (share < 1 and moved >= share):
                return
            await asyncio.sleep(0.2)

    async def _look_at_history(self, client: Client, rollout: str) -> None:
        try:
            found = await client.get_workflow_handle(rollout_workflow_id_of(rollout)).describe()
        except RPCError:
            return
        self._runs.add(found.run_id)
        self._greatest_history = max(self._greatest_history, found.history_length)

    async def _pause(self, rollout: str) -> Figures:
        """Pause, and return after how long nothing began any more, and all was still."""
        (row,) = await self._lab.sql("SELECT clock_timestamp()")
        asked = time.monotonic()
        self._http.post(f"/rollouts/{rollout}:pause").raise_for_status()
        answered = time.monotonic() - asked
        state = still = None
        while still is None:
            body = self._http.get(f"/rollouts/{rollout}").raise_for_status().json()
            if state is None and body["state"] == "paused":
                state = time.monotonic() - asked
            if state is not None and not body["counts"].get("moving"):
                still = time.monotonic() - asked
            await asyncio.sleep(0.02)
        # Whatever might still begin shows within this time.
        await asyncio.sleep(2)
        (begun,) = await self._lab.sql(
            "SELECT extract(epoch FROM max(planned_at) - %s)::float8 FROM lab.operations", (row[0],)
        )
        return {
            "answered_seconds": round(answered, 3),
            "last_begun_after_seconds": round(max(float(str(begun[0])), 0.0), 3),
            "paused_after_seconds": round(state or 0.0, 3),
            "still_after_seconds": round(still, 3),
            "of_which_operations_take_seconds": OPERATION_SECONDS,
        }

    def _reads(self, rollout: str) -> Figures:
        taken = []
        for _ in range(READS):
            started = time.perf_counter()
            self._http.get(f"/rollouts/{rollout}").raise_for_status()
            taken.append((time.perf_counter() - started) * 1000)
        return {**percentiles(taken), "mean": round(statistics.mean(taken), 1)}


def _resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kib,) = (int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return round(kib / 1024, 1)
