"""A rollout's checks from the host of a cluster: through its API, its tunnel, and by a Job."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError
from domain.identifiers import Prefix, new_id
from domain.names import install_namespace_of
from domain.rollout import CheckKind
from domain.rollout_strategy import Check, Target
from infra.installs.identities import prepare_namespace
from infra.machines.clusters import HostClusters
from infra.rollouts.cluster_checks import ClusterChecks
from tests.infra.control_planes.host import Host
from tests.infra.control_planes.nodes import Nodes, free_port, until

# Addresses for benchmarks, which nobody routes. No endpoint of a Service may be on loopback.
_HERE, _THERE, _PORT = "198.18.77.1", "198.18.77.2", 8080

_ANSWERS = """
import http.server, json, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/hangs":
            time.sleep(60)
        metric = {"status": "success", "data": {"resultType": "vector",
            "result": [{"metric": {}, "value": [0, "0.25"]}]}}
        status = 500 if self.path == "/broken" else 200
        body = json.dumps(metric if self.path.startswith("/api/v1/query?query=errors") else {})
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *arguments): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)  # noqa: S607 - root's tool


@contextlib.contextmanager
def _application() -> Iterator[None]:
    """Answer HTTP in a network namespace of its own, as a pod does."""
    name = f"checks-{uuid4().hex[:6]}"
    here, there = f"{name}-h"[:15], f"{name}-p"[:15]
    _ip("netns", "add", name)
    try:
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        _ip("address", "add", f"{_HERE}/30", "dev", here)
        _ip("link", "set", here, "up")
        _ip("-n", name, "address", "add", f"{_THERE}/30", "dev", there)
        _ip("-n", name, "link", "set", there, "up")
        command = ["ip", "netns", "exec", name, sys.executable, "-c", _ANSWERS]
        with subprocess.Popen(command) as process:
            try:
                until(_answers)
                yield
            finally:
                process.kill()
    finally:
        _ip("netns", "delete", name)


def _answers() -> bool:
    try:
        return httpx.get(f"http://{_THERE}:{_PORT}/", trust_env=False, timeout=1).is_success
    except httpx.TransportError:
        return False


class _Install:
    """An install's namespace with a Service, and what looks at it."""

    def __init__(self, host: Host, cluster: HostedControlPlane, nodes: Nodes) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._target = Target(
            install_id=new_id(Prefix.INSTALL),
            cluster_id=cluster.cluster_id,
            region_id=new_id(Prefix.REGION),
        )
        self.clusters = HostClusters(host.settings, host.openbao)
        self._checks = ClusterChecks(self.clusters)
        self.path = f"/api/v1/namespaces/{install_namespace_of(self._target.install_id)}"
        prepare_namespace(nodes.api, self._target.install_id)
        labels = {"app": "web"}
        ports = [{"name": "http", "port": 80, "targetPort": _PORT}]
        nodes.api.create(
            f"{self.path}/services",
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "web"},
                "spec": {"selector": labels, "ports": ports},
            },
        )
        # An address that is no pod's is not asked.
        nodes.api.create(
            f"{self.path}/pods",
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "web", "labels": labels},
                "spec": {"nodeName": "node", "containers": [{"name": "web", "image": "none"}]},
            },
        )
        status = {
            "phase": "Running",
            "podIP": _THERE,
            "podIPs": [{"ip": _THERE}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        nodes.api.patch(f"{self.path}/pods/web/status", {"status": status})
        until(lambda: self._is_found(nodes))

    def _is_found(self, nodes: Nodes) -> object:
        found = nodes.api.find(f"{self.path}/endpoints/web") or {}
        return [one for one in found.get("subsets", []) if one.get("addresses")]

    async def look(self, check: Check, *, is_last: bool = True) -> str | None:
        async def is_wanted() -> bool:
            return True

        return await self._checks.look(
            self._cluster, self._target, "roll_1", check, is_last=is_last, is_wanted=is_wanted
        )

    async def look_while_its_pod_ends(self, check: Check, phase: str) -> str | None:
        """Look with a Job, and say of its pod what a kubelet would."""
        looking = asyncio.create_task(self.look(check))
        ends = time.monotonic() + 60
        while not looking.done() and time.monotonic() < ends:
            await asyncio.to_thread(self._end_pods, phase)
            await asyncio.sleep(0.3)
        return await looking

    def jobs(self) -> list[str]:
        collection = self.path.replace("/api/v1", "/apis/batch/v1") + "/jobs"
        return [each["metadata"]["name"] for each in self._nodes.api.list_all(collection)]

    def _end_pods(self, phase: str) -> None:
        for pod in self._nodes.api.list_all(f"{self.path}/pods"):
            if pod.get("status", {}).get("phase") == "Pending":
                path = f"{self.path}/pods/{pod['metadata']['name']}/status"
                self._nodes.api.patch(path, {"status": {"phase": phase}})


@pytest.fixture
def install(host: Host, cluster: HostedControlPlane, tmp_path: Path) -> Iterator[_Install]:
    nodes = Nodes(host, cluster, tmp_path)
    nodes.add("node")
    found = _Install(host, cluster, nodes)
    with _application(), nodes.agent(nodes.tokens("node").tunnel):
        until(lambda: nodes.connected_agents() == 1, 15)
        yield found
    nodes.api.delete(found.path)
    nodes.remove("node")
    found.clusters.close()
    nodes.close()


@pytest.mark.full
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace")
async def test_what_a_cluster_says_of_a_version_is_heard(
    install: _Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One that answers wrongly is asked again for a minute.
    monkeypatch.setattr("infra.rollouts.cluster_checks._ANSWERS_WITHIN_SECONDS", 1.0)
    web = Check(kind=CheckKind.HTTP, service="web", port="http", path="/")
    broken = Check(kind=CheckKind.HTTP, service="web", port=80, path="/broken")
    expected = Check(kind=CheckKind.HTTP, service="web", port=80, path="/broken", status=500)
    absent = Check(kind=CheckKind.HTTP, service="absent", port=80)
    assert await install.look(web) is None
    assert await install.look(broken) == "Its http check was not answered by 200."
    assert await install.look(expected) is None
    assert await install.look(absent) == "Its http check was not answered by 200."
    hangs = Check(kind=CheckKind.HTTP, service="web", port=80, path="/hangs")
    assert await install.look(hangs) == "Its http check was not answered by 200."
    metric = Check(kind=CheckKind.METRIC, service="web", port=80, query="errors", threshold=0.5)
    assert await install.look(metric) is None
    for other in (replace(metric, threshold=0.1), replace(metric, threshold=0.1, query="x")):
        assert await install.look(other) == "Its metric is not < 0.1, or has no sample."
    # Before the bake's end it may still have to be scraped.
    assert await install.look(replace(metric, query="x"), is_last=False) is None
    for up in ("/../../../configmaps/kube-root-ca.crt", "/%2e%2E/..%2fx", "/a/%252e%252e/b"):
        for check in (web, metric):
            wrong = await install.look(replace(check, path=up))
            assert wrong == f"Its {check.kind} check has a path that leads out of the Service."
    passes = Check(kind=CheckKind.JOB, image="check.example.com/passes")
    fails = Check(kind=CheckKind.JOB, image="check.example.com/fails")
    assert await install.look_while_its_pod_ends(passes, "Succeeded") is None
    assert await install.look_while_its_pod_ends(fails, "Failed") == "Its Job failed."
    late = Check(kind=CheckKind.JOB, image="check.example.com/late", timeout_seconds=3)
    assert await install.look(late) in {"Its Job did not end in time.", "Its Job failed."}
    until(lambda: not install.jobs())
    # Of an API server that is away nothing is known of the install.
    nobody = f"https://127.0.0.1:{free_port()}"
    monkeypatch.setattr(install.clusters, "url_of", lambda _: nobody)
    for check in (web, passes):
        with pytest.raises(BulkheadError) as away:
            await install.look(check)
        assert away.value.retryable
