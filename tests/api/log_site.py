"""A cluster whose pods have logs: a real API server, and kwok in the place of a kubelet.

kwok serves each container's log from a file, to which a test writes as a container would.
"""

import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import yaml

from domain.cluster import HostedControlPlane
from domain.names import install_namespace_of
from infra.installs.identities import prepare_namespace
from infra.kubernetes.client import KubernetesClient, administrator_of
from infra.openbao.authorities import Authority
from infra.openbao.leaf import LeafSpec, make_leaf
from infra.tools import ensure
from tests.api.gate import JSON, Gate
from tests.api.installs import Customer, new_customer
from tests.api.keeper import ok
from tests.api.process import free_port
from tests.bench.tunnel import api_server_without_tunnel
from tests.infra.control_planes.host import Host, make_kubeconfig, running_host
from tests.servers import Servers

NODE = "simulated"

# Each container of these tests has the log of its name.
CONTAINERS = ("web", "db", "job")

_READY_WITHIN_SECONDS = 120.0
_HOUR = 3600


@dataclass(frozen=True)
class LogSite:
    """An install, its pods, and what they write."""

    customer: Customer
    install: JSON
    client: KubernetesClient
    folder: Path
    # Where the API server is.
    url: str

    @property
    def path(self) -> str:
        return f"/v1/installs/{self.install['id']}"

    @property
    def space(self) -> str:
        return install_namespace_of(self.install["id"])

    def write(self, container: str, *lines: str) -> None:
        """Write lines as a container runtime would, each with its time."""
        with (self.folder / f"{container}.log").open("a") as log:
            for line in lines:
                moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
                log.write(f"{moment}000Z stdout F {line}\n")

    def clear(self) -> None:
        for container in CONTAINERS:
            (self.folder / f"{container}.log").write_text("")

    def run_pod(self, name: str, *containers: str) -> None:
        """Have a pod, and wait until its containers run."""
        spec = {
            "nodeName": NODE,
            "containers": [{"name": each, "image": "registry.test/any"} for each in containers],
            "tolerations": [{"operator": "Exists"}],
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": spec,
        }
        self.client.create(f"/api/v1/namespaces/{self.space}/pods", pod)
        path = f"/api/v1/namespaces/{self.space}/pods/{name}"
        _await(lambda: self.client.get(path).get("status", {}).get("phase") == "Running", path)

    def stop_pods(self) -> None:
        path = f"/api/v1/namespaces/{self.space}/pods"
        for pod in self.client.list_all(path):
            self.client.delete(f"{path}/{pod['metadata']['name']}", grace_seconds=0)

    async def set_logs(self, *, enabled: bool) -> httpx.Response:
        person = self.customer.person
        path = f"/v1/workspaces/{person.workspace}"
        etag = ok(await person.get(path))["etag"]
        body = {"install_logs_enabled": enabled}
        return await person.call("PATCH", path, json=body, headers={"if-match": etag})


def _await(is_there: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _READY_WITHIN_SECONDS
    while not is_there():
        assert time.monotonic() < deadline, f"{what} is not there or does not run"
        time.sleep(0.1)


@contextlib.asynccontextmanager
async def running_log_site(gate: Gate, servers: Servers, folder: Path) -> AsyncIterator[LogSite]:
    """Run a control plane for a customer's cluster, with a simulated node."""
    customer = await new_customer(gate)
    with contextlib.ExitStack() as closing:
        host = closing.enter_context(running_host(servers, "logs"))
        plane = HostedControlPlane(
            workspace_id=customer.person.workspace,
            cluster_id=customer.cluster["id"],
            host=host.settings.host,
            slot=3,
        )
        closing.callback(host.remove, plane)
        host.prepare(plane)
        host.start(plane)
        url = closing.enter_context(api_server_without_tunnel(host.layout(plane)))
        _be_reached_at(gate, plane, url)
        client = closing.enter_context(administrator_of(host.openbao, plane, url))
        _await_answer(client)
        closing.enter_context(_running_kwok(host, plane, url, folder))
        install = await customer.new_deployed()
        prepare_namespace(client, install["id"])
        yield LogSite(customer, install, client, folder, url)


def _be_reached_at(gate: Gate, plane: HostedControlPlane, url: str) -> None:
    """Have the database say that the cluster's API server is here."""
    with gate.administrator() as connection:
        connection.execute(
            "SELECT register_host('logs', 0, 1, '127.0.0.1', %s)", (int(url.rpartition(":")[2]),)
        )
        connection.execute(
            "UPDATE control_plane_slots SET host = 'logs', slot = 0 WHERE cluster_id = %s",
            (plane.cluster_id,),
        )


def _await_answer(client: KubernetesClient) -> None:
    deadline = time.monotonic() + _READY_WITHIN_SECONDS
    while True:
        try:
            client.text("/readyz")
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


@contextlib.contextmanager
def _running_kwok(host: Host, plane: HostedControlPlane, url: str, folder: Path) -> Iterator[None]:
    port = free_port()
    (folder / "kubeconfig").write_text(make_kubeconfig(host.api, plane, url))
    key, certificate = make_leaf(
        lambda request, usages: host.openbao.sign(
            plane, Authority.KUBERNETES, request, usages=usages, lifetime_seconds=_HOUR
        ),
        LeafSpec(
            authority=Authority.KUBERNETES,
            common_name=f"system:node:{NODE}",
            organization="system:nodes",
            usages=("ServerAuth",),
            names=("127.0.0.1",),
        ),
    )
    (folder / "kubelet.crt").write_bytes(certificate)
    (folder / "kubelet.key").write_bytes(key)
    for container in CONTAINERS:
        (folder / f"{container}.log").touch()
    stages = Path(__file__).with_name("simulated-kubelet.yaml").read_text()
    (folder / "kwok.yaml").write_text(f"{stages}---\n{yaml.safe_dump(_logs(folder))}")
    arguments: dict[str, Any] = {
        "kubeconfig": folder / "kubeconfig",
        "config": folder / "kwok.yaml",
        "manage-all-nodes": "true",
        "node-ip": "127.0.0.1",
        "node-port": port,
        "server-address": f"127.0.0.1:{port}",
        "tls-cert-file": folder / "kubelet.crt",
        "tls-private-key-file": folder / "kubelet.key",
        "node-lease-duration-seconds": 40,
    }
    command = [str(ensure(["kwok"])["kwok"])]
    command += [f"--{name}={value}" for name, value in arguments.items()]
    with (folder / "kwok.out").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
        try:
            with administrator_of(host.openbao, plane, url) as client:
                client.create("/api/v1/nodes", _node())
            yield
        finally:
            process.terminate()
            process.wait(20)


def _logs(folder: Path) -> JSON:
    logs = [
        {"containers": [each], "logsFile": str(folder / f"{each}.log"), "follow": True}
        for each in CONTAINERS
    ]
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "ClusterLogs",
        "metadata": {"name": "all"},
        "spec": {"logs": logs},
    }


def _node() -> JSON:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}},
    }
