"""The leaf certificates of a control plane: what each says, and when it is due."""

import time
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from domain.cluster import KUBELET_CLIENT_USER, TUNNEL_SERVER_USER, Leaf
from infra.control_planes.commands import FRONT_PROXY_NAME
from infra.control_planes.layout import LOOPBACK
from infra.openbao.authorities import Authority
from infra.openbao.leaf import LeafSpec

_DAY_SECONDS: Final = 24 * 60 * 60

# Short enough that a stolen key is of little use for long, long enough that a schedule which runs
# every 15 minutes can fail for ten days before anything ends.
LEAF_LIFETIME_SECONDS: Final = 30 * _DAY_SECONDS

# Of a leaf's life, after which it is replaced.
_RENEW_AFTER: Final = 2 / 3

_CLIENT: Final = "ClientAuth"
_SERVER: Final = "ServerAuth"


def leaf_specs(
    api_server_names: tuple[str, ...], tunnel_server_names: tuple[str, ...]
) -> dict[Leaf, LeafSpec]:
    """Return what every leaf of a control plane says."""
    kubernetes = Authority.KUBERNETES
    etcd_names = ("localhost", LOOPBACK)
    return {
        Leaf.API_SERVER: LeafSpec(
            authority=kubernetes,
            common_name="kube-apiserver",
            usages=(_SERVER,),
            names=api_server_names,
        ),
        Leaf.KUBELET_CLIENT: LeafSpec(
            authority=kubernetes, common_name=KUBELET_CLIENT_USER, usages=(_CLIENT,)
        ),
        Leaf.FRONT_PROXY_CLIENT: LeafSpec(
            authority=Authority.FRONT_PROXY, common_name=FRONT_PROXY_NAME, usages=(_CLIENT,)
        ),
        Leaf.ETCD_SERVER: LeafSpec(
            authority=Authority.ETCD, common_name="etcd", usages=(_SERVER,), names=etcd_names
        ),
        Leaf.ETCD_PEER: LeafSpec(
            authority=Authority.ETCD,
            common_name="etcd-peer",
            usages=(_SERVER, _CLIENT),
            names=etcd_names,
        ),
        Leaf.ETCD_CLIENT: LeafSpec(
            authority=Authority.ETCD, common_name="kube-apiserver", usages=(_CLIENT,)
        ),
        Leaf.CONTROLLER_MANAGER: LeafSpec(
            authority=kubernetes,
            common_name="system:kube-controller-manager",
            usages=(_CLIENT,),
        ),
        Leaf.SCHEDULER: LeafSpec(
            authority=kubernetes, common_name="system:kube-scheduler", usages=(_CLIENT,)
        ),
        Leaf.TUNNEL_SERVER: LeafSpec(
            authority=kubernetes,
            common_name="konnectivity-server",
            usages=(_SERVER,),
            names=tunnel_server_names,
        ),
        Leaf.TUNNEL_CLIENT: LeafSpec(
            authority=kubernetes, common_name=TUNNEL_SERVER_USER, usages=(_CLIENT,)
        ),
    }


def public_pem(private_key_pem: str) -> bytes:
    """Return the public half of a private key as PEM."""
    key = serialization.load_pem_private_key(private_key_pem.encode(), password=None)
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def times_of(certificate_pem: bytes) -> tuple[int, int]:
    """Return when a certificate is due for renewal and when it ends, in Unix seconds."""
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    start = certificate.not_valid_before_utc.timestamp()
    end = certificate.not_valid_after_utc.timestamp()
    return int(start + (end - start) * _RENEW_AFTER), int(end)


def fits(key_pem: bytes, certificate_pem: bytes, root_pem: bytes, spec: LeafSpec) -> bool:
    """Tell whether a leaf is not yet due, has this key, this root, this subject and these names.

    A write that was cut short leaves a new key beside an old certificate, or a broken file; a
    changed setting leaves names that clients no longer use.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        key = serialization.load_pem_private_key(key_pem, password=None)
        root = x509.load_pem_x509_certificate(root_pem)
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return (
        time.time() < times_of(certificate_pem)[0]
        and certificate.public_key() == key.public_key()
        and [name.value for name in names] == [spec.common_name]
        and _names_of(certificate) == set(spec.names)
    )


def _names_of(certificate: x509.Certificate) -> set[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in extension.value}
