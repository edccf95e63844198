"""`kubectl logs` through the tunnel, and the same without one.

Direct means: a second API server on the same etcd with the same flags, but for its egress, so that
both sides pay for kubectl, authentication and authorization alike and only the way to the kubelet
differs. The kubelet alone, asked with the API server's certificate, is reported beside it. No
server lets anybody in from outside: this one's own firewall is opened for the kubelet's port first.
"""

import ssl
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx

from domain.cluster import Component, Leaf
from domain.errors import BulkheadError
from domain.names import node_name_of
from infra.control_planes.commands import programs_of
from infra.control_planes.layout import LOOPBACK, Layout
from infra.kubernetes.client import KubernetesClient, administrator_of
from infra.local_cloud import LocalServer
from infra.openbao.client import OpenBao
from tests.bench.hosted import Hosted, hosted
from tests.bench.measure import Figures, compare, free_port, say, spread
from tests.end_to_end.servers import Place, running_place

RUNS = 30
WARM_UP = 3
LIMIT = 2.0
READY_WITHIN_SECONDS = 60.0
_POD = "talker"
_LOGS = f"namespaces/default/pods/{_POD}/log"
_KUBELET_PORT = 10250

Way = Callable[[], object]


def measure() -> Figures:
    """Ask in turn, so that whatever else the machine does falls on all alike."""
    with ExitStack() as closing:
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory()))
        place = closing.enter_context(running_place(folder))
        cluster = closing.enter_context(hosted(place.bulkhead, place.cluster_id))
        server = place.switch_on("talks")
        machine = place.joined(server)
        _run_pod(place)
        _open_firewall(server)
        url = closing.enter_context(api_server_without_tunnel(cluster.layout))
        openbao = OpenBao(place.bulkhead.stack.openbao("worker"))
        closing.callback(openbao.close)
        plain = closing.enter_context(administrator_of(openbao, cluster.cluster, url))
        _await(plain)
        kubelet = closing.enter_context(_kubelet(cluster, server, node_name_of(machine["id"])))
        taken = _in_turn(
            {
                "kubectl": lambda: place.kubectl("logs", _POD),
                "kubectl_direct": lambda: place.kubectl(f"--server={url}", "logs", _POD),
                "request": lambda: cluster.client.text(f"/api/v1/{_LOGS}"),
                "request_direct": lambda: plain.text(f"/api/v1/{_LOGS}"),
                "kubelet": lambda: _ask(kubelet),
            }
        )
    ratio = statistics.median(taken["kubectl"]) / statistics.median(taken["kubectl_direct"])
    return {
        "kubectl_logs": compare(taken["kubectl_direct"], taken["kubectl"], "ms"),
        "within_limit": ratio <= LIMIT,
        "request_for_logs": compare(taken["request_direct"], taken["request"], "ms"),
        "kubelet_alone_ms": spread(taken["kubelet"]),
    }


def _in_turn(ways: dict[str, Way]) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for run in range(RUNS + WARM_UP):
        for name, ask in ways.items():
            started = time.perf_counter()
            ask()
            if run >= WARM_UP:
                taken[name].append((time.perf_counter() - started) * 1000)
    for name, values in taken.items():
        say(f"{name}: {statistics.median(values):.1f} ms")
    return taken


def _run_pod(place: Place) -> None:
    images = place.bulkhead.stack.images
    assert images is not None
    place.kubectl("run", _POD, f"--image={images.demo}", "--restart=Never", "--", "netexec")
    place.kubectl("wait", "--for=condition=Ready", f"pod/{_POD}", "--timeout=50s")


def _open_firewall(server: LocalServer) -> None:
    rule = ("--protocol", "tcp", "--dport", str(_KUBELET_PORT), "--jump", "ACCEPT")
    say(f"opening port {_KUBELET_PORT} in the firewall of this run's own server {server.name}")
    enter = ("nsenter", f"--net={server.namespace}")
    subprocess.run([*enter, "iptables", "--insert", "INPUT", *rule], check=True)


@contextmanager
def api_server_without_tunnel(layout: Layout) -> Iterator[str]:
    """Run one more API server of a control plane, which asks kubelets itself; give its address."""
    program = next(each for each in programs_of(layout) if each.name == Component.API_SERVER)
    port = free_port()
    command = [each for each in program.command if not each.startswith("--egress-selector")]
    # Of a flag that is there twice the last counts.
    command += [f"--bind-address={LOOPBACK}", f"--secure-port={port}"]
    command += ["--endpoint-reconciler-type=none", f"--audit-log-path={layout.audit}/direct.log"]
    with subprocess.Popen(
        command,
        cwd=program.directory,
        user=program.uid,
        group=program.uid,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield f"https://{LOOPBACK}:{port}"
        finally:
            process.kill()


def _await(client: KubernetesClient) -> None:
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while time.monotonic() < deadline:
        with suppress(BulkheadError):
            client.text(f"/api/v1/{_LOGS}")
            return
        time.sleep(0.2)
    client.text(f"/api/v1/{_LOGS}")


@contextmanager
def _kubelet(cluster: Hosted, server: LocalServer, node: str) -> Iterator[httpx.Client]:
    """Connect as the API server would: it makes a connection once and keeps it, as this does."""
    layout = cluster.layout
    context = ssl.create_default_context(cafile=str(layout.client_authorities))
    context.load_cert_chain(
        layout.certificate(Leaf.KUBELET_CLIENT), layout.key(Leaf.KUBELET_CLIENT)
    )
    say(f"asking the kubelet of {node} at {server.address}")
    url = f"https://{server.address}:{_KUBELET_PORT}"
    with httpx.Client(base_url=url, verify=context, trust_env=False) as client:
        yield client


def _ask(kubelet: httpx.Client) -> None:
    answer = kubelet.get(f"/containerLogs/default/{_POD}/{_POD}")
    assert answer.is_success, answer.text
