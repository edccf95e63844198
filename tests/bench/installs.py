"""Installs beside bare Helm: one after the other, and a hundred in one rollout.

The whole stack as a user has it; nodes and pods are simulated, charts come from its own registry.
Bare Helm gets the same chart from a file, and a kubeconfig of the same cluster. They take turns.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from domain.operation import Step
from infra.tools import ensure
from tests.bench.hosted import hosted
from tests.bench.measure import Figures, compare, say
from tests.end_to_end.stack import Body, Bulkhead, running_bulkhead
from tests.end_to_end.vendor import Vendor, web
from tests.workflows.install.site import simulated_node, simulating

ROUNDS: Final = 7
CLUSTERS: Final = 5
INSTALLS: Final = 100
AT_ONCE: Final = 8
# Of a rollout over all of them, on a busy machine.
_ENDS_WITHIN_SECONDS: Final = 1800.0
# As `bulkhead rollouts watch` does: a look is work that is not the rollout's.
_POLL_SECONDS: Final = 1.0

# What is done for an install itself; the others keep the books.
_WORK: Final = (
    Step.PREPARE_NAMESPACE,
    Step.RENDER_CHART,
    Step.PLAN_CHANGES,
    Step.APPLY_RELEASE,
    Step.WAIT_UNTIL_HEALTHY,
)
_SECONDS_OF_STEPS: Final = """
SELECT name, extract(epoch FROM completed_at - started_at)::float
FROM operation_steps WHERE operation_id = %s AND completed_at IS NOT NULL
"""
_SECONDS_OF_OPERATION: Final = """
SELECT extract(epoch FROM completed_at - started_at)::float FROM operations WHERE id = %s
"""


def measure() -> Figures:
    """Run on a stack of its own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_bulkhead() as bulkhead,
        ExitStack() as held,
    ):
        region = bulkhead.new_region()
        clusters = [
            held.enter_context(_cluster(bulkhead, region, Path(folder, str(number))))
            for number in range(CLUSTERS)
        ]
        say(f"{CLUSTERS} clusters with simulated nodes are there")
        bench = _Installs(bulkhead, region, clusters, Path(folder))
        return {"one_install": bench.one(), "rollout": bench.rollout()}


@dataclass(frozen=True)
class _Cluster:
    id: str
    kubeconfig: Path


@contextmanager
def _cluster(bulkhead: Bulkhead, region: str, folder: Path) -> Iterator[_Cluster]:
    folder.mkdir()
    created = bulkhead.end_of(bulkhead.create_cluster(region, folder.name))
    assert created["state"] == "SUCCEEDED", created["error"]
    cluster_id = created["response"]["cluster_id"]
    kubeconfig = bulkhead.kubeconfig(cluster_id, folder / "kubeconfig")
    with hosted(bulkhead, cluster_id) as found:
        found.client.create("/api/v1/nodes", simulated_node())
    with simulating(kubeconfig, folder):
        yield _Cluster(cluster_id, kubeconfig)


class _Installs:
    def __init__(
        self, bulkhead: Bulkhead, region: str, clusters: Sequence[_Cluster], folder: Path
    ) -> None:
        self._bulkhead = bulkhead
        self._region = region
        self._clusters = clusters
        self._folder = folder
        self._helm = ensure(["helm"])["helm"]
        charts = {version: web(version, f"hello from {version}") for version in ("1.0.0", "1.1.0")}
        self._files = {version: folder / f"web-{version}.tgz" for version in charts}
        for version, file in self._files.items():
            file.write_bytes(charts[version])
        self._vendor = Vendor(bulkhead, charts)

    def one(self) -> Figures:
        """Install a chart anew, by each; a first round of both does not count."""
        say(f"{ROUNDS} installs by each")
        cluster = self._clusters[0]
        bare: list[float] = []
        work: list[float] = []
        whole: list[float] = []
        steps: dict[str, list[float]] = {}
        for number in range(ROUNDS + 1):
            name = f"bare-{uuid4().hex[:12]}"
            started = time.perf_counter()
            self._upgrade(cluster, name, "1.0.0")
            seconds = time.perf_counter() - started
            operation = self._succeeded(self._create(cluster))
            if number:
                bare.append(seconds)
                took = self._seconds_of_steps(operation["id"])
                work.append(sum(took.get(step, 0.0) for step in _WORK))
                whole.append(self._seconds_of(operation["id"]))
                for step, spent in took.items():
                    steps.setdefault(step, []).append(spent)
        return {
            "work": compare(bare, work, "s"),
            "whole_operation": compare(bare, whole, "s"),
            "steps_ms": {name: round(1000 * sum(of) / len(of)) for name, of in steps.items()},
        }

    def rollout(self) -> Figures:
        """Move all installs to the next version: by a plain script, then by a rollout."""
        places = [self._clusters[number % CLUSTERS] for number in range(INSTALLS)]
        names = [f"script-{number}" for number in range(INSTALLS)]
        say(f"{INSTALLS} installs are made, by each")
        self._upgrade_all(places, names, "1.0.0")
        created = [self._create(place) for place in places]
        for operation in created:
            self._succeeded(operation)
        say(f"{INSTALLS} installs are moved by a plain script, {AT_ONCE} at once")
        started = time.perf_counter()
        self._upgrade_all(places, names, "1.1.0")
        bare = time.perf_counter() - started
        say(f"it took {bare:.0f} s; now by one rollout")
        started = time.perf_counter()
        self._roll_out("1.1.0", [self._install_of(operation) for operation in created])
        ours = time.perf_counter() - started
        return {
            "installs": INSTALLS,
            "clusters": CLUSTERS,
            "at_once": AT_ONCE,
            "bare_a_minute": round(60 * INSTALLS / bare, 1),
            "ours_a_minute": round(60 * INSTALLS / ours, 1),
            "ratio": round(bare / ours, 2),
        }

    def _roll_out(self, version: str, install_ids: Sequence[str]) -> None:
        rollout = self._bulkhead.persist(
            "POST",
            "/rollouts",
            json={
                "product_id": self._vendor.product_id,
                "package_version_id": self._vendor.versions[version],
                "selector": {"install_ids": install_ids},
                "strategy": {
                    "canary": 0,
                    "waves": [{"percent": 100}],
                    "concurrency": AT_ONCE,
                    "bake_seconds": 0,
                },
            },
        )
        deadline = time.monotonic() + _ENDS_WITHIN_SECONDS
        while True:
            found = self._bulkhead.get(f"/rollouts/{rollout['id']}")
            if found["state"] in {"succeeded", "failed", "cancelled", "rolled_back"}:
                break
            assert time.monotonic() < deadline, found["counts"]
            time.sleep(_POLL_SECONDS)
        assert found["state"] == "succeeded", (found["state"], found["reason"], found["counts"])

    def _create(self, cluster: _Cluster) -> Body:
        return self._vendor.install(self._region, cluster.id)

    def _succeeded(self, operation: Body) -> Body:
        return self._vendor.succeeded(operation, _ENDS_WITHIN_SECONDS)

    @staticmethod
    def _install_of(operation: Body) -> str:
        return str(operation["owner_id"])

    def _seconds_of_steps(self, operation_id: str) -> dict[str, float]:
        with self._bulkhead.stack.administrator("bulkhead") as administrator:
            return dict(administrator.execute(_SECONDS_OF_STEPS, (operation_id,)).fetchall())

    def _seconds_of(self, operation_id: str) -> float:
        with self._bulkhead.stack.administrator("bulkhead") as administrator:
            found = administrator.execute(_SECONDS_OF_OPERATION, (operation_id,)).fetchone()
        assert found is not None
        return float(found[0])

    def _upgrade_all(self, places: Iterable[_Cluster], names: Iterable[str], version: str) -> None:
        def move(place: _Cluster, name: str) -> None:
            self._run(place, "template", name, self._files[version], "--namespace", name)
            self._upgrade(place, name, version)

        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(move, places, names))

    def _upgrade(self, cluster: _Cluster, name: str, version: str) -> None:
        self._run(
            cluster,
            *("upgrade", name, self._files[version], "--install", "--namespace", name),
            *("--create-namespace", "--wait", "--timeout", "120s"),
        )

    def _run(self, cluster: _Cluster, *arguments: str | Path) -> None:
        subprocess.run(
            [self._helm, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            env={"KUBECONFIG": os.fspath(cluster.kubeconfig), "HOME": os.fspath(self._folder)},
        )
