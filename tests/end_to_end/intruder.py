"""Somebody who is root on a server, and so has every credential that the server has."""

import base64
import hashlib
import json
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from infra.local_cloud import LocalServer
from tests.end_to_end.servers import Place
from tests.end_to_end.stack import Body

TOKENS = "/var/lib/bulkhead/tokens"
_IDENTITY = "/etc/bulkhead/identity.key"


class Intruder:
    """What was copied from a server: it stays with the intruder whatever happens there."""

    def __init__(self, place: Place, server: LocalServer) -> None:
        self.place = place
        self.server = server
        self.key = self.read(_IDENTITY)
        self.certificate = self.read("/etc/bulkhead/node.crt")
        self.tokens = {
            name: self.read(f"{TOKENS}/{name}") for name in ("tunnel", "kube-proxy", "flannel")
        }

    def read(self, path: str) -> str:
        """Copy a file of the server."""
        done = self.server.run(f"cat {path}")
        assert done.status == 0, done.errors
        return done.output

    @property
    def as_node(self) -> Body:
        """The user of a kubeconfig that is the node."""
        return {
            "client-certificate-data": base64.b64encode(self.certificate.encode()).decode(),
            "client-key-data": base64.b64encode(self.key.encode()).decode(),
        }

    def as_token(self, name: str) -> Body:
        """The user of a kubeconfig that has one of the server's tokens."""
        return {"token": self.tokens[name]}

    def kubectl(
        self, user: Body, *arguments: str, kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as a user, by default against the server's own cluster."""
        known = kubeconfig or self.place.kubeconfig
        bulkhead = self.place.bulkhead
        shown = bulkhead.kubectl(known, "config", "view", "--raw", "--output=json")
        config = json.loads(shown.stdout)
        config["users"][0]["user"] = user
        stolen = self.place.directory / f"{self.server.name}.kubeconfig"
        stolen.write_text(json.dumps(config))
        return bulkhead.kubectl(stolen, *arguments)

    def ask_platform(self, path: str, body: Body) -> httpx.Response:
        """Send a request that is signed with the server's key."""
        content = json.dumps(body).encode()
        now = str(round(time.time()))
        key = serialization.load_pem_private_key(self.key.encode(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        message = f"POST\n/v1{path}\n{now}\n{hashlib.sha256(content).hexdigest()}"
        signature = key.sign(message.encode(), ec.ECDSA(hashes.SHA256()))
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        headers = {
            "Content-Type": "application/json",
            "Bulkhead-Key": hashlib.sha256(public).hexdigest(),
            "Bulkhead-Time": now,
            "Bulkhead-Signature": base64.b64encode(signature).decode(),
        }
        bulkhead = self.place.bulkhead
        return httpx.post(
            f"{bulkhead.stack.api.address}/v1{path}", content=content, headers=headers, timeout=30
        )

    def reachable(self, hosts: list[str], ports: list[int]) -> set[tuple[str, int]]:
        """Return where the server gets a TCP connection."""
        given = shlex.quote(json.dumps([hosts, ports]))
        done = self.server.run(f"python3 -c {shlex.quote(_CONNECTS)} {given}", 120)
        assert done.status == 0, done.errors
        return {(host, port) for host, port in json.loads(done.output)}


_CONNECTS = """
import asyncio, json, sys
hosts, ports = json.loads(sys.argv[1])
limit = asyncio.Semaphore(200)
async def connects(host, port):
    async with limit:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 5)
        except (OSError, asyncio.TimeoutError):
            return None
        writer.close()
        return host, port
async def main():
    found = await asyncio.gather(*(connects(host, port) for host in hosts for port in ports))
    print(json.dumps([each for each in found if each]))
asyncio.run(main())
"""


def audited_denials(place: Place, action: str) -> list[dict[str, Any]]:
    """Return what was denied, newest first."""
    found = place.bulkhead.get(f"/audit_events?action={action}&outcome=denied&limit=100")["data"]
    assert isinstance(found, list)
    return found
