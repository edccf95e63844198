"""A real HTTPS server that speaks the servers' part of the API, with programs that only sleep.

What the platform's own code decides (who may register, which certificate) is tested where that
code is, and joined in the whole stack. Here it is about what the script makes of the answers.
"""

import base64
import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.datastructures import Headers

from api.node_identity import identity_of, proof_of
from domain.tokens import TokenKind, new_token
from infra.node_setup import script
from tests.infra.https_server import HttpsServer, Request, Response, https_server

NODE_NAME = "mch-0123456789abcdef"
_SLEEP = b"#!/bin/sh\nexec sleep infinity\n"
_CONTAINERD = b"#!/bin/sh\nsystemd-notify --ready\nexec sleep infinity\n"
_FLANNELD = (
    b"#!/bin/sh\nmkdir -p /run/flannel\n"
    b"printf 'FLANNEL_SUBNET=10.244.3.1/24\\nFLANNEL_MTU=1450\\n' >/run/flannel/subnet.env\n"
    + _SLEEP
)
_PROGRAMS = {
    "/opt/bulkhead/bin/containerd": _CONTAINERD,
    "/opt/bulkhead/bin/flanneld": _FLANNELD,
    "/opt/bulkhead/bin/kube-proxy": b'#!/bin/sh\n[ "$1" = --cleanup ] && exit 0\n' + _SLEEP,
    "/opt/bulkhead/bin/kubelet": _SLEEP,
    "/opt/bulkhead/bin/konnectivity-agent": _SLEEP,
    "/opt/bulkhead/bin/runc": b"#!/bin/sh\nexit 0\n",
    "/opt/cni/bin/bridge": b"#!/bin/sh\nexit 0\n",
}


@dataclass
class SmallPlatform:
    """One cluster with one token.

    Attributes:
        server: what servers connect to.
        host: the address under which they do.
        token: of the one bootstrap; None once it was used.
        key: of the one machine, as PEM; None before it registered and after it was removed.
        lose_answers: how many answers to registrations are lost after the token was used.
        outages: what the next signed requests of a name are answered instead.
        corrupt: how many downloads are damaged.
        instruction: what reports are answered with; a restart is told once.
        reports: what was reported.
        requests: the path of each request and its status.
    """

    server: HttpsServer
    host: str
    token: str | None = field(default_factory=lambda: new_token(TokenKind.WORKER_BOOTSTRAP))
    key: str | None = None
    lose_answers: int = 0
    outages: dict[str, list[Response]] = field(default_factory=dict)
    corrupt: int = 0
    certificate_life: timedelta = timedelta(hours=1)
    instruction: str = "none"
    pods_port: int | str = ""
    platforms: str | None = None
    reports: list[dict[str, object]] = field(default_factory=list)
    requests: list[tuple[str, int]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.server.port}"

    @property
    def authority(self) -> str:
        return self.server.authority.ca

    @property
    def authority_sha256(self) -> str:
        return hashlib.sha256(self.authority.encode()).hexdigest()

    def phases(self) -> list[object]:
        return [report["phase"] for report in self.reports]

    def count(self, path: str, status: int) -> int:
        return self.requests.count((path, status))

    def answer(self, request: Request) -> Response:
        response = self._answer(request)
        self.requests.append((request.path, response.status))
        return response

    def _answer(self, request: Request) -> Response:
        path = request.path
        if path == "/v1/nodes/authority":
            return Response(body=self.authority.encode())
        if path == "/v1/nodes/script":
            return Response(body=script())
        if path.startswith("/v1/artifacts/"):
            return self._artifact(path.rpartition("/")[2])
        if path == "/v1/nodes":
            return self._register(request)
        if path.startswith("/v1/nodes/self:"):
            return self._signed(request)
        return Response(404)

    def _artifact(self, sha256: str) -> Response:
        content = {hashlib.sha256(body).hexdigest(): body for body in _PROGRAMS.values()}[sha256]
        if self.corrupt > 0:
            self.corrupt -= 1
            return Response(body=content + b"#")
        return Response(body=content)

    def _register(self, request: Request) -> Response:
        identity = identity_of(json.loads(request.body)["csr"])
        if self.platforms is not None:
            there = f"There are no programs for linux/amd64 here; servers may be: {self.platforms}."
            return refusal(409, there, platform="linux/amd64")
        if self.token is None or request.headers["authorization"] != f"Bearer {self.token}":
            return refusal(401, "This token was used; it works once.")
        self.token, self.key = None, identity.key
        if self.lose_answers > 0:
            self.lose_answers -= 1
            return Response(502, b"")
        return self._registration(201)

    def _signed(self, request: Request) -> Response:
        headers = Headers(dict(request.headers.items()))
        proof = proof_of(headers, request.method, request.path, request.body)
        if self.key is None or not proof.is_of(self.key):
            return refusal(401, "No machine has this key.")
        offset = proof.time - round(time.time())
        if abs(offset) > 300:
            return refusal(401, "The clock is off.", clock_offset_seconds=str(offset))
        body = json.loads(request.body)
        match request.path.rpartition(":")[2]:
            case name if self.outages.get(name):
                return self.outages[name].pop(0)
            case "resume":
                return self._registration(200)
            case "tokens":
                names = ("tunnel_token", "kube_proxy_token", "flannel_token")
                return lines({**{name: f"{name}-canary" for name in names}, **self._expiry()})
            case _:
                self.reports.append(body)
                instruction = self.instruction
                if instruction == "restart":
                    # Told once; to leave is told until the server has, as the platform does.
                    self.instruction = "none"
                return lines({"instruction": instruction, "server_time": round(time.time())})

    @staticmethod
    def _expiry() -> dict[str, object]:
        return {"expires_at": round(time.time()) + 3600}

    def _registration(self, status: int) -> Response:
        port = self.server.port
        facts: dict[str, object] = {
            "machine_id": "mch_0123456789abcdef",
            "node_name": NODE_NAME,
            "cluster_id": "clu_0123456789abcdef",
            "server_time": round(time.time()),
            "certificate": encoded(self._certificate()),
            "cluster_authority": encoded(self.authority),
            "platform_url": self.url,
            "cluster_api_host": self.host,
            "cluster_api_port": port,
            "cluster_api_server_name": "tunnel.invalid",
            "pods_api_port": self.pods_port,
            "tunnel_host": self.host,
            "tunnel_port": port,
            "tunnel_server_name": "tunnel.invalid",
            "registry": f"{self.host}:{port}",
            "network_profile": "linux_bridge",
            "cluster_dns": "10.96.0.10",
            "cluster_domain": "cluster.local",
            "service_network": "10.96.0.0/16",
            "pod_network": "10.244.0.0/16",
            "pause_image": f"{self.host}:{port}/pause:1",
            "report_seconds": 30,
            "artifact_set": "0" * 64,
        }
        programs = [
            f"artifact {path.rpartition('/')[2]} {hashlib.sha256(content).hexdigest()}"
            f" {len(content)} 0755 {path}"
            for path, content in _PROGRAMS.items()
        ]
        answer = lines(facts, status)
        return Response(status, answer.body + "\n".join([*programs, ""]).encode())

    def _certificate(self) -> str:
        assert self.key is not None
        public = serialization.load_pem_public_key(self.key.encode())
        assert isinstance(public, ec.EllipticCurvePublicKey)
        now = datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{NODE_NAME}")])
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + self.certificate_life)
            .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
            .decode()
        )


@contextlib.contextmanager
def small_platform(host: str = "127.0.0.1") -> Iterator[SmallPlatform]:
    """Serve on loopback; `host` is what servers call it, and on its certificate."""
    with https_server("tunnel.invalid", "localhost", "127.0.0.1", host) as server:
        platform = SmallPlatform(server, host)
        server.answer = platform.answer
        yield platform


def lines(values: dict[str, object], status: int = 200) -> Response:
    return Response(status, "".join(f"{k} {v}\n" for k, v in values.items()).encode())


def encoded(pem: str) -> str:
    return base64.b64encode(pem.encode()).decode()


def refusal(status: int, message: str, **metadata: str) -> Response:
    error = {"code": 7003, "message": message, "metadata": metadata}
    body = {"success": False, "errors": [error], "result": {}}
    return Response(status, json.dumps(body, separators=(",", ":")).encode())
