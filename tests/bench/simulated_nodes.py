"""Two hundred servers join one cluster: the real API, worker and control plane, simulated nodes.

Each server is its protocol: token, reports, a kubelet's certificate request as the kubelet's own
user, tokens bound to its node. kwok, in the place of kubelets, keeps the Node objects ready.
"""

import asyncio
import base64
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from domain.machine import NODE_USER_PREFIX, NODES_GROUP
from infra.database.engine import Database, DatabaseRole
from infra.embedded.server import Part
from infra.kubernetes.client import KubernetesClient, Object
from infra.kubernetes.logins import Login
from infra.kubernetes.signing_requests import SERVING_SIGNER
from infra.machines.clusters import HostClusters
from infra.machines.keeper import MachineKeeper
from infra.openbao.client import OpenBao
from infra.openbao.policies import WORKER
from infra.temporal.client import TemporalConnection
from infra.temporal.outbox import Outbox
from infra.tools import ensure
from tests.api.own_server import OwnServer
from tests.bench.hosted import Hosted, hosted
from tests.bench.measure import Figures, percentiles, say, spread
from tests.end_to_end.stack import Body, Bulkhead, running_bulkhead

SERVERS = 200
AT_ONCE = 10
ALL_READY_WITHIN_SECONDS = 300.0
PROBE_SECONDS = 0.1
# As the platform asks them to.
REPORT_SECONDS = 30.0
LOOKS = 10
_FIRST_ADDRESS = IPv4Address("10.30.0.10")
_REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
# Heartbeats are kwok's own leases; this is what a kubelet says once.
_STAGE = """\
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: node-ready}
spec:
  resourceRef: {apiGroup: v1, kind: Node}
  selector:
    matchExpressions:
    - key: '.status.conditions.[] | select(.type == "Ready") | .status'
      operator: NotIn
      values: ["True"]
  next:
    statusTemplate: |
      conditions:
      {{ range NodeConditions }}
      - type: {{ .type | Quote }}
        status: {{ .status | Quote }}
        reason: Simulated
        message: "This node is simulated."
        lastHeartbeatTime: {{ Now | Quote }}
        lastTransitionTime: {{ Now | Quote }}
      {{ end }}
"""
_READY = "SELECT count(*) FROM machines WHERE state = 'ACTIVE' AND stage = 'ready'"


def measure() -> Figures:
    """Let all of them join, and ask the API meanwhile as a person would."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_bulkhead(node_address="local") as bulkhead,
    ):
        created = bulkhead.end_of(bulkhead.create_cluster())
        assert created["state"] == "SUCCEEDED", created["error"]
        cluster_id = created["response"]["cluster_id"]
        kubeconfig = bulkhead.kubeconfig(cluster_id, Path(folder) / "kubeconfig")
        with hosted(bulkhead, cluster_id) as cluster, _kwok(kubeconfig, Path(folder)):
            return asyncio.run(_Fleet(bulkhead, cluster).measure())


@dataclass
class _Reached:
    """The API as servers reach it."""

    client: httpx.AsyncClient


class _Fleet:
    def __init__(self, bulkhead: Bulkhead, cluster: Hosted) -> None:
        self._bulkhead = bulkhead
        self._cluster = cluster
        self._cluster_id = cluster.cluster.cluster_id
        self._exchanges: list[float] = []
        self._seconds: dict[str, list[float]] = {"machines": [], "cluster": []}
        self._reports: list[asyncio.Task[None]] = []

    async def measure(self) -> Figures:
        tokens = [await self._token() for _ in range(SERVERS)]
        say(f"{SERVERS} tokens are there")
        async with httpx.AsyncClient(base_url=self._bulkhead.stack.api.address, timeout=60) as api:
            quiet = await self._ask_a_while(5.0)
            self._seconds = {name: [] for name in self._seconds}
            probe = asyncio.create_task(self._probe())
            started = time.monotonic()
            gate = asyncio.Semaphore(AT_ONCE)
            await asyncio.gather(
                *(self._join(api, gate, number, token) for number, token in enumerate(tokens))
            )
            joined = time.monotonic() - started
            say(f"all had said that they run after {joined:.0f} s")
            await self._all_ready(started)
            ready = time.monotonic() - started
            probe.cancel()
            busy = self._percentiles()
            looks = await self._looks()
            figures: Figures = {
                "all_running_after_s": round(joined, 1),
                "all_ready_after_s": round(ready, 1),
                "token_exchange_ms": percentiles(self._exchanges),
                "api_quiet_ms": quiet,
                "api_meanwhile_ms": busy,
                "keeper_look_s": spread(looks),
                "memory_mib": {
                    part: _memory_mib(self._bulkhead.pid_of(part))
                    for part in (Part.API, Part.WORKER)
                },
                **self._counts(),
            }
            for report in self._reports:
                report.cancel()
            await asyncio.gather(*self._reports, return_exceptions=True)
            return figures

    async def _token(self) -> str:
        path = f"/clusters/{self._cluster_id}/worker_bootstraps"
        made: Body = await asyncio.to_thread(
            self._bulkhead.persist, "POST", path, json={"ttl_seconds": 3600}
        )
        return str(made["token"])

    async def _join(
        self, api: httpx.AsyncClient, gate: asyncio.Semaphore, number: int, token: str
    ) -> None:
        address = str(_FIRST_ADDRESS + number)
        server = OwnServer(_Reached(api), f"simulated-{number}", addresses=[address])
        async with gate:
            started = time.perf_counter()
            answer = await server.register(token)
            self._exchanges.append((time.perf_counter() - started) * 1000)
            assert answer.status_code == httpx.codes.CREATED, answer.text
            registration: Body = answer.json()
            await _told(server, "kubelet_started", address)
            await asyncio.to_thread(self._be_a_kubelet, server, registration, address)
            tokens = await server.signed("tokens", {})
            assert tokens.is_success, tokens.text
            await _told(server, "running", address)
        self._reports.append(asyncio.create_task(_report_on(server, address)))

    def _be_a_kubelet(self, server: OwnServer, registration: Body, address: str) -> None:
        """Make the Node object, and ask for a serving certificate, with the node's own login."""
        name = registration["node_name"]
        login = Login(
            base64.b64decode(registration["cluster_authority"]).decode(),
            base64.b64decode(registration["certificate"]),
            server.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
        with KubernetesClient(self._cluster.layout.local_api_url, lambda: login) as client:
            client.create("/api/v1/nodes", _node(name, address))
            client.create(_REQUESTS, _signing_request(name, address))

    async def _all_ready(self, started: float) -> None:
        with self._bulkhead.stack.administrator("bulkhead") as administrator:
            while True:
                row = administrator.execute(_READY).fetchone()
                assert row is not None
                if row[0] == SERVERS:
                    return
                seconds = time.monotonic() - started
                assert seconds < ALL_READY_WITHIN_SECONDS, f"{row[0]} are ready"
                await asyncio.sleep(0.5)

    async def _ask_a_while(self, seconds: float) -> Figures:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._probe()
        return self._percentiles()

    async def _probe(self) -> None:
        url, headers = self._bulkhead.http.base_url, self._bulkhead.http.headers
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
            asked: dict[str, Callable[[], Awaitable[httpx.Response]]] = {
                "machines": lambda: client.get(f"/machines?cluster_id={self._cluster_id}"),
                "cluster": lambda: client.get(f"/clusters/{self._cluster_id}"),
            }
            while True:
                for name, ask in asked.items():
                    started = time.perf_counter()
                    answer = await ask()
                    self._seconds[name].append((time.perf_counter() - started) * 1000)
                    assert answer.is_success, answer.text
                await asyncio.sleep(PROBE_SECONDS)

    def _percentiles(self) -> Figures:
        return {name: percentiles(values) for name, values in self._seconds.items()}

    async def _looks(self) -> list[float]:
        """Time the keeper's look at the full cluster, which the worker takes every 2 s as well."""
        stack = self._bulkhead.stack
        settings = stack.openbao(WORKER)
        openbao = OpenBao(settings)
        clusters = HostClusters(stack.control_planes, openbao)
        worker = Database(stack.database, DatabaseRole.WORKER)
        sweeper = Database(stack.database, DatabaseRole.SWEEPER)
        outbox = Outbox(worker, sweeper, TemporalConnection(stack.temporal, settings, WORKER))
        keeper = MachineKeeper(worker, sweeper, clusters, outbox, stack.control_planes.host)
        seconds = []
        for _ in range(LOOKS + 1):
            started = time.perf_counter()
            await keeper.look(self._cluster.cluster)
            seconds.append(time.perf_counter() - started)
        clusters.close()
        openbao.close()
        await worker.close()
        await sweeper.close()
        # The first one logs in.
        return seconds[1:]

    def _counts(self) -> Figures:
        """Count what must be there once a server, in three places that do not know each other."""
        counted = {
            "machines": "SELECT count(*), count(DISTINCT hostname) FROM machines",
            "operations": "SELECT count(*), count(DISTINCT owner_id) FROM operations"
            " WHERE type = 'machine.create' AND state = 'SUCCEEDED'",
            "tokens": "SELECT count(used_at), count(DISTINCT machine_id) FROM worker_bootstraps",
        }
        with self._bulkhead.stack.administrator("bulkhead") as administrator:
            found = {
                name: administrator.execute(query.encode()).fetchone()
                for name, query in counted.items()
            }
        nodes = self._cluster.client.list_all("/api/v1/nodes")
        requests = self._cluster.client.list_all(_REQUESTS)
        signed = [each for each in requests if each.get("status", {}).get("certificate")]
        right = all(counts == (SERVERS, SERVERS) for counts in found.values())
        return {
            "none_twice": right and len(nodes) == SERVERS,
            **{name: list(counts or ()) for name, counts in found.items()},
            "nodes": len(nodes),
            "serving_certificates": len(signed),
        }


@contextmanager
def _kwok(kubeconfig: Path, folder: Path) -> Iterator[None]:
    program = str(ensure(["kwok"])["kwok"])
    stages = folder / "stages.yaml"
    stages.write_text(_STAGE)
    command = [program, f"--kubeconfig={kubeconfig}", f"--config={stages}"]
    command += ["--manage-all-nodes=true", "--node-lease-duration-seconds=40"]
    with (folder / "kwok.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            yield
        finally:
            process.terminate()
            process.wait(10)


async def _told(server: OwnServer, phase: str, address: str) -> None:
    answer = await server.report(phase, addresses=[address])
    assert answer.is_success, answer.text


async def _report_on(server: OwnServer, address: str) -> None:
    """Report as the server's timer does, which takes no answer for one, and tries again."""
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        with suppress(httpx.TransportError, AssertionError):
            await _told(server, "running", address)


def _node(name: str, address: str) -> Object:
    addresses = [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"addresses": addresses},
    }


def _signing_request(name: str, address: str) -> Object:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, NODES_GROUP),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{NODE_USER_PREFIX}{name}"),
        ]
    )
    names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(IPv4Address(address))])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(names, critical=False)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    pem = request.public_bytes(serialization.Encoding.PEM)
    spec: dict[str, Any] = {
        "request": base64.b64encode(pem).decode(),
        "signerName": SERVING_SIGNER,
        "usages": ["digital signature", "server auth"],
    }
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "csr-"},
        "spec": spec,
    }


def _memory_mib(pid: int) -> Figures:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {key: value for key, _, value in (line.partition(":") for line in lines)}
    return {
        "now": int(found["VmRSS"].split()[0]) // 1024,
        "most": int(found["VmHWM"].split()[0]) // 1024,
    }
