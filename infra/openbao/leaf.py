"""The making of a leaf certificate: the key is made here, the certificate is signed in OpenBao."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from infra.openbao.authorities import Authority

# Signs the request, for the usages, and returns the certificate as PEM.
Sign = Callable[[str, tuple[str, ...]], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class LeafSpec:
    """What one leaf says.

    Attributes:
        authority: the root that signs it.
        common_name: whom it identifies.
        usages: as a server, as a client, or both.
        names: the host names and addresses that it stands for.
        organization: the group that it belongs to.
    """

    authority: Authority
    common_name: str
    usages: tuple[str, ...]
    names: tuple[str, ...] = ()
    organization: str | None = None


def make_leaf(sign: Sign, spec: LeafSpec) -> tuple[bytes, bytes]:
    """Make a key here and have it certified; return key and certificate as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, spec.common_name)]
    if spec.organization is not None:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, spec.organization))
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    if spec.names:
        names = x509.SubjectAlternativeName([_general_name(name) for name in spec.names])
        request = request.add_extension(names, critical=False)
    signed = request.sign(key, hashes.SHA256())
    certificate = sign(signed.public_bytes(serialization.Encoding.PEM).decode(), spec.usages)
    return private_pem(key), certificate.encode()


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM, unencrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
