"""What a customer gets: a Kubernetes API that is theirs alone."""

import base64
import json
import os
import ssl
import urllib.request
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from domain.cluster import ADMINISTRATORS_GROUP, HostedControlPlane, Leaf
from infra.openbao.authorities import Authority
from tests.infra.control_planes.host import Host, Kubectl, signing_request
from tests.infra.control_planes.nodes import until

CANARY = "canary-4f1d9c07-in-a-secret"
VISIBLE = "canary-4f1d9c07-in-a-configmap"


@pytest.fixture
def kubectl(host: Host, cluster: HostedControlPlane, tmp_path: Path) -> Kubectl:
    return host.kubectl(cluster, tmp_path)


def test_an_administrator_works_in_the_cluster(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "greeting", "--from-literal=text=hello")
    text = kubectl("get", "configmap", "greeting", "-o", "jsonpath={.data.text}")
    who = kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.groups}")
    everything = kubectl("auth", "can-i", "*", "*", "--all-namespaces")
    kubectl("delete", "configmap", "greeting")
    assert text == "hello"
    assert ADMINISTRATORS_GROUP in who
    assert "system:masters" not in who
    assert everything.strip() == "yes"


def test_an_administrator_whose_binding_is_gone_has_no_rights(host: Host, tmp_path: Path) -> None:
    with host.cluster() as own:
        kubectl = host.kubectl(own, tmp_path)
        kubectl("delete", "clusterrolebinding", "bulkhead-cluster-admins")
        # The API server watches its bindings, and sees in its own time that one is gone.
        until(lambda: "forbidden" in kubectl.run("get", "namespaces").stderr)
        host.backend.wait_until_ready(own, lambda: None)
        assert "default" in kubectl("get", "namespaces")


def test_another_clusters_kubeconfig_is_refused_even_without_checking_the_server(
    host: Host, cluster: HostedControlPlane, tmp_path: Path
) -> None:
    with host.cluster() as other:
        foreign = host.kubectl(other, tmp_path)
        server = f"--server=https://127.0.0.1:{host.layout(cluster).api_port}"
        checked = foreign.run(server, "get", "namespaces")
        # The client's own check of the server is not what keeps it out.
        authority = host.layout(cluster).authority(Authority.KUBERNETES)
        unchecked = foreign.run(server, f"--certificate-authority={authority}", "get", "namespaces")
    assert checked.returncode != 0
    assert "certificate signed by unknown authority" in checked.stderr
    assert unchecked.returncode != 0
    assert "Unauthorized" in unchecked.stderr or "must be logged in" in unchecked.stderr


def test_a_secret_is_unreadable_in_etcds_files_and_in_its_snapshot(
    host: Host, cluster: HostedControlPlane, kubectl: Kubectl
) -> None:
    kubectl("create", "secret", "generic", "canary", f"--from-literal=value={CANARY}")
    kubectl("create", "configmap", "canary", f"--from-literal=value={VISIBLE}")
    layout = host.layout(cluster)
    snapshot = _snapshot(host, cluster)
    files = {path: path.read_bytes() for path in layout.directory.rglob("*") if path.is_file()}
    data = [content for path, content in files.items() if layout.etcd_data in path.parents]
    # What is not encrypted is found, so a look for what is would find it too.
    assert VISIBLE.encode() in snapshot
    assert any(VISIBLE.encode() in content for content in data)
    assert CANARY.encode() not in snapshot
    assert [path for path, content in files.items() if CANARY.encode() in content] == []
    assert b"k8s:enc:secretbox:v1:key1:" in snapshot


def test_a_node_gets_a_certificate_from_the_clusters_own_signer(
    kubectl: Kubectl, host: Host, cluster: HostedControlPlane, tmp_path: Path
) -> None:
    certificate, key = _node_certificate(kubectl)
    (tmp_path / "node.pem").write_bytes(certificate + key)
    layout = host.layout(cluster)
    context = ssl.create_default_context(cafile=str(layout.authority(Authority.KUBERNETES)))
    context.load_cert_chain(tmp_path / "node.pem")
    url = f"https://127.0.0.1:{layout.api_port}/api/v1/services"
    with urllib.request.urlopen(url, context=context, timeout=60) as answer:
        assert answer.status == 200


def test_each_cluster_issues_tokens_under_a_name_of_its_own(
    host: Host, cluster: HostedControlPlane, kubectl: Kubectl
) -> None:
    issuer = kubectl("get", "--raw", "/.well-known/openid-configuration")
    assert host.layout(cluster).issuer in issuer
    assert cluster.cluster_id.removeprefix("clu_") in issuer


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give user ids")
def test_a_control_plane_runs_as_a_user_of_its_own_that_cannot_change_its_keys(
    host: Host, cluster: HostedControlPlane
) -> None:
    layout = host.layout(cluster)
    assert layout.uid is not None
    owners = {Path(f"/proc/{pid}").stat().st_uid for pid in host.pids(cluster)}
    assert owners == {layout.uid}
    for directory in (layout.directory, layout.pki):
        assert (directory.stat().st_uid, directory.stat().st_mode & 0o777) == (0, 0o750)
    for key in layout.pki.glob("*.key"):
        assert (key.stat().st_uid, key.stat().st_mode & 0o777) == (layout.uid, 0o600)


def test_memory_is_told_by_component(host: Host, cluster: HostedControlPlane) -> None:
    components = host.backend.describe(cluster).components
    assert all(status.state == "running" for status in components)
    assert all(status.memory_bytes > 10 * 1024 * 1024 for status in components)


def _snapshot(host: Host, cluster: HostedControlPlane) -> bytes:
    """Ask etcd for a snapshot as its own tool would."""
    layout = host.layout(cluster)
    credentials = grpc.ssl_channel_credentials(
        layout.authority(Authority.ETCD).read_bytes(),
        layout.key(Leaf.ETCD_CLIENT).read_bytes(),
        layout.certificate(Leaf.ETCD_CLIENT).read_bytes(),
    )
    with grpc.secure_channel(f"localhost:{layout.etcd_port}", credentials) as channel:
        snapshot = channel.unary_stream("/etcdserverpb.Maintenance/Snapshot")
        return b"".join(snapshot(b"", timeout=30))


def _node_certificate(kubectl: Kubectl) -> tuple[bytes, bytes]:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, "system:node:n1"),
        ]
    )
    key, request = signing_request(subject)
    manifest = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "n1"},
        "spec": {
            "request": base64.b64encode(request.encode()).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "client auth"],
        },
    }
    kubectl("apply", "-f", "-", given=json.dumps(manifest))
    kubectl("certificate", "approve", "n1")
    kubectl("wait", "csr/n1", "--for=jsonpath={.status.certificate}", "--timeout=50s")
    certificate = base64.b64decode(
        kubectl("get", "csr", "n1", "-o", "jsonpath={.status.certificate}")
    )
    kubectl("delete", "csr", "n1")
    return certificate, key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
