"""Nodes without servers: Node objects, tunnel agents, and what answers where a kubelet would."""

import contextlib
import http.server
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from domain.cluster import HostedControlPlane
from infra.control_planes.layout import LOOPBACK
from infra.kubernetes.client import KubernetesClient, administrator_of
from infra.kubernetes.node_tokens import ClusterAddress, NodeTokenIssuer, NodeTokens
from infra.openbao.authorities import Authority
from infra.openbao.leaf import LeafSpec, make_leaf
from infra.tools import ensure
from tests.infra.control_planes.host import Host

_CONNECTED = "konnectivity_network_proxy_server_ready_backend_connections"


class Nodes:
    """The nodes of one cluster."""

    def __init__(self, host: Host, cluster: HostedControlPlane, directory: Path) -> None:
        self.layout = host.layout(cluster)
        self.cluster = cluster
        self.api: KubernetesClient = administrator_of(
            host.openbao, cluster, self.layout.local_api_url
        )
        self._host = host
        self._directory = directory
        self._issuer = NodeTokenIssuer(host.api)

    def close(self) -> None:
        """Close every connection."""
        self.api.close()
        self._issuer.close()

    def add(self, name: str, *, kubelet_port: int = 10250) -> None:
        """Make a Node object whose kubelet is on loopback."""
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        self.api.create("/api/v1/nodes", node)
        status = {
            "addresses": [{"type": "InternalIP", "address": LOOPBACK}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet_port}},
        }
        self.api.patch(f"/api/v1/nodes/{name}/status", {"status": status})

    def add_pod(self, name: str) -> None:
        """Make a Pod object of the same name on a node."""
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"nodeName": name, "containers": [{"name": "only", "image": "none"}]},
        }
        self.api.create("/api/v1/namespaces/default/pods", pod)

    def log_of(self, pod: str) -> str:
        """Ask the kubelet of a pod's node for its log, as `kubectl logs` does."""
        return self.api.text(f"/api/v1/namespaces/default/pods/{pod}/log")

    def remove(self, name: str) -> None:
        """Remove a Node object."""
        self.api.delete(f"/api/v1/nodes/{name}")

    def tokens(self, name: str) -> NodeTokens:
        """Mint what a server gets, as the API process does."""
        layout = self.layout
        place = ClusterAddress(
            self.cluster.workspace_id, self.cluster.cluster_id, layout.local_api_url
        )
        return self._issuer.mint(place, name)

    def connected_agents(self) -> int:
        """Return how many agents the tunnel server has, -1 while it does not answer."""
        url = f"http://{LOOPBACK}:{self.layout.tunnel_status_port}/metrics"
        try:
            lines = httpx.get(url, trust_env=False).text.splitlines()
        except httpx.TransportError:
            return -1
        found = [line.split()[1] for line in lines if line.startswith(_CONNECTED)]
        return int(float(found[0])) if found else 0

    @contextlib.contextmanager
    def agent(self, token: str) -> Iterator[Path]:
        """Run a tunnel agent with a token; yields its log."""
        number = len(list(self._directory.iterdir()))
        token_file, log = self._directory / f"token-{number}", self._directory / f"log-{number}"
        token_file.touch(mode=0o600)
        token_file.write_text(token)
        command = [
            str(ensure(["konnectivity-agent"])["konnectivity-agent"]),
            f"--proxy-server-host={LOOPBACK}",
            f"--proxy-server-port={self.layout.tunnel_port}",
            f"--ca-cert={self.layout.authority(Authority.KUBERNETES)}",
            f"--service-account-token-path={token_file}",
            f"--agent-identifiers=ipv4={LOOPBACK}",
            f"--admin-bind-address={LOOPBACK}",
            f"--admin-server-port={free_port()}",
            f"--health-server-host={LOOPBACK}",
            f"--health-server-port={free_port()}",
            "--sync-interval=200ms",
            "--sync-interval-cap=1s",
            "--probe-interval=200ms",
        ]
        with (
            log.open("w") as output,
            subprocess.Popen(command, stdout=output, stderr=output) as process,
        ):
            try:
                yield log
            finally:
                process.kill()

    @contextlib.contextmanager
    def held_answers(self) -> Iterator[threading.Event]:
        """Have kubelets answer afterwards only; yields what tells that one was asked."""
        _Kubelet.asked.clear()
        _Kubelet.may_answer.clear()
        try:
            yield _Kubelet.asked
        finally:
            _Kubelet.may_answer.set()

    @contextlib.contextmanager
    def kubelet(self, name: str, *, address: str = LOOPBACK) -> Iterator[int]:
        """Answer where a kubelet would, with a certificate for an address; yields the port."""
        spec = LeafSpec(
            authority=Authority.KUBERNETES,
            common_name=f"system:node:{name}",
            usages=("ServerAuth",),
            names=(address,),
        )
        key, certificate = make_leaf(
            lambda request, usages: self._host.openbao.sign(
                self.cluster, spec.authority, request, usages=usages, lifetime_seconds=600
            ),
            spec,
        )
        pem = self._directory / f"{name}.pem"
        pem.touch(mode=0o600)
        pem.write_bytes(certificate + key)
        context = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=str(self.layout.authority(Authority.KUBERNETES))
        )
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(pem)
        with http.server.ThreadingHTTPServer((LOOPBACK, 0), _Kubelet) as server:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield server.server_address[1]
            finally:
                server.shutdown()
                thread.join()


class _Kubelet(http.server.BaseHTTPRequestHandler):
    may_answer = threading.Event()
    may_answer.set()
    asked = threading.Event()

    def do_GET(self) -> None:
        self.asked.set()
        self.may_answer.wait()
        assert isinstance(self.connection, ssl.SSLSocket)
        certificate = self.connection.getpeercert() or {}
        subject = certificate.get("subject", ())
        body = f"asked by {subject[-1][0][1]}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server((LOOPBACK, 0)) as probe:
        return int(probe.getsockname()[1])


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for a condition; a failure fails the test."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
