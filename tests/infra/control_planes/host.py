"""A control-plane host inside a test session, and clusters on it."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from domain.cluster import HostedControlPlane, NetworkProfile
from domain.identifiers import Prefix, new_id
from infra.control_planes.layout import Layout
from infra.control_planes.placement import HostPlacement
from infra.control_planes.processes import ProcessBackend, host_supervisor
from infra.openbao.client import OpenBao
from infra.openbao.signing import ApiOpenBao
from infra.settings import ControlPlaneSettings
from infra.tools import CONTROL_PLANE, ensure, install_into
from tests.servers import Servers, kill

# No node of these tests asks for it.
COREDNS_IMAGE = f"registry.test:5000/coredns@sha256:{'0' * 64}"

# Away from the slots that a database of the same session gives out, and before the last ones, whose
# ports other servers of tests have.
_slots = itertools.count(50)


def nothing_meanwhile() -> None:
    """Wait without listening to anybody."""


class Host:
    """One host: its backend, and both sides' clients of OpenBao."""

    def __init__(self, servers: Servers, settings: ControlPlaneSettings) -> None:
        self.settings = settings
        self.openbao = OpenBao(servers.openbao("worker"))
        self.api = ApiOpenBao(servers.openbao("api"))
        self.backend = ProcessBackend(settings, self.openbao)
        self.supervisor = host_supervisor(settings)
        self.workspace_id = new_id(Prefix.WORKSPACE)

    def close(self) -> None:
        """End every control plane."""
        kill(self.supervisor)
        self.openbao.close()
        self.api.close()

    def new_cluster(self) -> HostedControlPlane:
        """Name a cluster of which nothing exists yet, in a slot of its own."""
        return HostedControlPlane(
            workspace_id=self.workspace_id,
            cluster_id=new_id(Prefix.CLUSTER),
            host=self.settings.host,
            slot=next(_slots) % self.settings.slots,
            network_profile=NetworkProfile.LINUX_BRIDGE,
        )

    def layout(self, cluster: HostedControlPlane) -> Layout:
        """Return where the cluster's things are."""
        return HostPlacement(self.settings).layout_of(cluster)

    def prepare(self, cluster: HostedControlPlane) -> None:
        """Make all that comes before the processes."""
        self.openbao.ensure_secret_space(cluster.workspace_id)
        self.openbao.ensure_authorities(cluster)
        self.backend.ensure_credentials(cluster)

    def start(self, cluster: HostedControlPlane) -> None:
        """Start the processes and wait."""
        self.backend.start(cluster)
        self.backend.wait_until_ready(cluster, nothing_meanwhile)

    def stop(self, cluster: HostedControlPlane) -> None:
        """Stop the processes."""
        self.backend.stop(cluster, nothing_meanwhile)

    def remove(self, cluster: HostedControlPlane) -> None:
        """Leave nothing, whatever is there."""
        self.backend.remove(cluster)
        self.openbao.remove_authorities(cluster)

    @contextlib.contextmanager
    def cluster(self) -> Iterator[HostedControlPlane]:
        """Have a cluster that runs."""
        cluster = self.new_cluster()
        try:
            self.prepare(cluster)
            self.start(cluster)
            yield cluster
        finally:
            self.remove(cluster)

    def kubectl(self, cluster: HostedControlPlane, directory: Path) -> Kubectl:
        """Return kubectl with a kubeconfig as the API gives it out."""
        kubeconfig = directory / f"{cluster.cluster_id}.kubeconfig"
        kubeconfig.touch(mode=0o600)
        layout = self.layout(cluster)
        kubeconfig.write_text(
            make_kubeconfig(self.api, cluster, f"https://127.0.0.1:{layout.api_port}")
        )
        return Kubectl(kubeconfig)

    def pids(self, cluster: HostedControlPlane) -> list[int | None]:
        """Return the process ids of the cluster's components."""
        return [status.pid for status in self.backend.describe(cluster).components]


class Kubectl:
    """The real client with one kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._program = ensure(["kubectl"])["kubectl"]

    def run(self, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run it and return what came of it."""
        return subprocess.run(
            [self._program, f"--kubeconfig={self.kubeconfig}", *arguments],
            check=False,
            capture_output=True,
            text=True,
            input=given,
            timeout=60,
            env={"HOME": str(self.kubeconfig.parent)},
        )

    def __call__(self, *arguments: str, given: str | None = None) -> str:
        """Run it and return its output; a failure fails the test."""
        result = self.run(*arguments, given=given)
        assert result.returncode == 0, result.stderr
        return result.stdout


def signing_request(subject: x509.Name | None = None) -> tuple[ec.EllipticCurvePrivateKey, str]:
    """Make a key and a request for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(subject or x509.Name([]))
    signed = request.sign(key, hashes.SHA256())
    return key, signed.public_bytes(serialization.Encoding.PEM).decode()


def make_kubeconfig(api: ApiOpenBao, cluster: HostedControlPlane, server: str) -> str:
    """Make a kubeconfig out of what the API process may ask OpenBao for."""
    key, request = signing_request()
    user = new_id(Prefix.USER)
    certificate = api.sign_kubeconfig_certificate(
        cluster.workspace_id, cluster.cluster_id, request, user
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    authority = api.authority_of(cluster.workspace_id, cluster.cluster_id)
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "c",
                "cluster": {"server": server, "certificate-authority-data": _base64(authority)},
            }
        ],
        "users": [
            {
                "name": "u",
                "user": {
                    "client-certificate-data": _base64(certificate),
                    "client-key-data": _base64(key_pem),
                },
            }
        ],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    return json.dumps(document)


@contextlib.contextmanager
def running_host(servers: Servers, name: str) -> Iterator[Host]:
    """Have a host of its own directory for one session."""
    settings = servers.control_planes.model_copy(
        update={"directory": servers.home / name, "coredns_image": COREDNS_IMAGE}
    )
    install_into(settings.programs_dir, CONTROL_PLANE)
    host = Host(servers, settings)
    host.supervisor.ensure_running()
    try:
        yield host
    finally:
        host.close()


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
