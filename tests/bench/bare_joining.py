"""A node as somebody makes one by hand: two units, static files and ready-made certificates.

No script, no token, no report, no tunnel: containerd and kubelet start with the server and find
everything there. The programs are the pinned ones, and so are all settings that cost time.
"""

import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from domain.machine import NODE_USER_PREFIX, NODES_GROUP
from infra.control_planes.layout import Layout
from infra.local_cloud import LocalServer, disk
from infra.openbao.authorities import Authority

_PKI = "/etc/kubernetes/pki"
_LIFETIME = dt.timedelta(hours=1)
# Of a size that no node of the run gets from the cluster, whose nodes start from the other end.
_POD_SUBNET = "10.244.240.0/24"

_CONTAINERD_UNIT = """\
[Unit]
Description=container runtime

[Service]
Type=notify
Restart=always
Environment=PATH=/opt/bulkhead/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=/opt/bulkhead/bin/containerd --config /etc/containerd/config.toml
KillMode=process
Delegate=yes
LimitNOFILE=1048576
"""
_KUBELET_UNIT = """\
[Unit]
Description=kubelet
After=containerd.service network-online.target
Wants=containerd.service network-online.target

[Service]
Restart=always
RestartSec=1
Environment=PATH=/opt/bulkhead/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=/opt/bulkhead/bin/kubelet --config=/etc/kubernetes/kubelet.yaml \
--config-dir=/etc/kubernetes/kubelet.conf.d --kubeconfig=/etc/kubernetes/kubelet.kubeconfig \
--hostname-override={name} --node-ip={address}
KillMode=process
"""
_CONTAINERD = """\
version = 3
imports = ["/etc/containerd/conf.d/*.toml"]

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = "/opt/bulkhead/bin/runc"

[plugins.'io.containerd.nri.v1.nri']
disable = true
"""
_KUBELET = f"""\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {_PKI}/ca.crt}}
authorization: {{mode: Webhook}}
cgroupDriver: cgroupfs
clusterDNS: [10.96.0.10]
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
readOnlyPort: 0
tlsCertFile: {_PKI}/serving.crt
tlsPrivateKeyFile: {_PKI}/serving.key
"""


def lay_out(server: LocalServer, layout: Layout) -> None:
    """Put everything on the disk of a server that is off.

    Args:
        server: its node has its name.
        layout: of the cluster's control plane, whose signer is on this host.
    """
    user = f"{NODE_USER_PREFIX}{server.name}"
    client = _leaf(layout, user, ExtendedKeyUsageOID.CLIENT_AUTH, [])
    names = [x509.DNSName(server.name), x509.IPAddress(server.address)]
    serving = _leaf(layout, user, ExtendedKeyUsageOID.SERVER_AUTH, names)
    unit = _KUBELET_UNIT.format(name=server.name, address=server.address)
    files = {
        f"{_PKI}/ca.crt": layout.client_authorities.read_text(),
        f"{_PKI}/server-ca.crt": layout.authority(Authority.KUBERNETES).read_text(),
        f"{_PKI}/node.crt": client[0],
        f"{_PKI}/node.key": client[1],
        f"{_PKI}/serving.crt": serving[0],
        f"{_PKI}/serving.key": serving[1],
        "/etc/kubernetes/kubelet.yaml": _KUBELET,
        "/etc/kubernetes/kubelet.kubeconfig": _kubeconfig(layout),
        "/etc/containerd/config.toml": _CONTAINERD,
        "/etc/cni/net.d/10-bridge.conflist": _network(),
        "/etc/systemd/system/containerd.service": _CONTAINERD_UNIT,
        "/etc/systemd/system/kubelet.service": unit,
    }
    root = server.directory / "disk"
    for path, content in files.items():
        disk.write(root / path.lstrip("/"), content, 0o600)
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(mode=0o755)
    for name in ("containerd", "kubelet"):
        (wants / f"{name}.service").symlink_to(f"/etc/systemd/system/{name}.service")


def _leaf(
    layout: Layout, user: str, usage: x509.ObjectIdentifier, names: Sequence[x509.GeneralName]
) -> tuple[str, str]:
    """Return certificate and key, signed as the cluster's controller manager would."""
    signer = x509.load_pem_x509_certificate(layout.signer_certificate.read_bytes())
    signer_key = _private_key(layout.signer_key)
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, NODES_GROUP),
            x509.NameAttribute(NameOID.COMMON_NAME, user),
        ]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(signer_key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def _private_key(file: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(file.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _kubeconfig(layout: Layout) -> str:
    cluster = {
        "server": f"https://{layout.advertise_host}:{layout.api_port}",
        "certificate-authority": f"{_PKI}/server-ca.crt",
    }
    user = {"client-certificate": f"{_PKI}/node.crt", "client-key": f"{_PKI}/node.key"}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "bare",
            "clusters": [{"name": "bare", "cluster": cluster}],
            "users": [{"name": "bare", "user": user}],
            "contexts": [{"name": "bare", "context": {"cluster": "bare", "user": "bare"}}],
        }
    )


def _network() -> str:
    addresses = {"type": "host-local", "ranges": [[{"subnet": _POD_SUBNET}]]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": addresses}
    plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return json.dumps({"cniVersion": "1.0.0", "name": "bare", "plugins": plugins})
