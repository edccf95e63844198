"""A server of a customer as the API sees it: a key, and requests that are signed with it."""

import base64
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.api.gate import JSON, Gate, Person


def csr_of(
    key: Any,  # noqa: ANN401 - any private key
    *extensions: x509.ExtensionType,
    common_name: str = "bulkhead-node",
    organization: str = "",
) -> str:
    """Make a signing request: PEM in base64, as the API takes it."""
    named = ((NameOID.COMMON_NAME, common_name), (NameOID.ORGANIZATION_NAME, organization))
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in named if value])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    request = builder.sign(key, hashes.SHA256())
    return base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode()


class Reachable(Protocol):
    """Whatever has a client of the API."""

    client: httpx.AsyncClient


@dataclass
class OwnServer:
    """One server."""

    gate: Reachable
    hostname: str = "web-1"
    addresses: Sequence[str] = ("10.20.0.7", "127.0.0.1", "10.244.3.1")
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    async def register(self, token: str, csr: str | None = None, **headers: str) -> httpx.Response:
        body = {
            "csr": csr_of(self.key) if csr is None else csr,
            "hostname": self.hostname,
            "operating_system": "linux",
            "architecture": "amd64",
            "addresses": self.addresses,
        }
        authorization = {"authorization": f"Bearer {token}", **headers}
        return await self.gate.client.post("/v1/nodes", json=body, headers=authorization)

    async def signed(
        self, verb: str, body: JSON, *, clock: int = 0, **headers: str
    ) -> httpx.Response:
        """Send a signed request by a clock that is so many seconds off."""
        path, content = f"/v1/nodes/self:{verb}", json.dumps(body).encode()
        moment = round(time.time()) + clock
        message = f"POST\n{path}\n{moment}\n{hashlib.sha256(content).hexdigest()}"
        der = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        signature = self.key.sign(message.encode(), ec.ECDSA(hashes.SHA256()))
        proof = {
            "content-type": "application/json",
            "bulkhead-key": hashlib.sha256(der).hexdigest(),
            "bulkhead-time": str(moment),
            "bulkhead-signature": base64.b64encode(signature).decode(),
        }
        return await self.gate.client.post(path, content=content, headers=proof | headers)

    async def report(self, phase: str = "running", **more: Any) -> httpx.Response:  # noqa: ANN401 - a body
        clock = more.pop("clock", 0)
        body = {"phase": phase, "hostname": self.hostname, "addresses": ["10.20.0.7"], **more}
        return await self.signed("report", body, clock=clock)


async def new_bootstrap(person: Person, cluster: JSON, **body: Any) -> JSON:  # noqa: ANN401 - a body
    """Make a right to join."""
    made = await person.post(f"/v1/clusters/{cluster['id']}/worker_bootstraps", body)
    assert made.status_code == 201, made.text
    found: JSON = made.json()
    return found


async def new_machine(gate: Gate, person: Person, cluster: JSON) -> tuple[OwnServer, JSON]:
    """Have a server register; return it and its machine."""
    server = OwnServer(gate)
    registered = await server.register((await new_bootstrap(person, cluster))["token"])
    assert registered.status_code == 201, registered.text
    machine = await person.get(f"/v1/machines/{registered.json()['machine_id']}")
    assert machine.status_code == 200, machine.text
    return server, machine.json()
