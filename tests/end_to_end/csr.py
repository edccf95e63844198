"""Certificate requests as root of a server can make them in its cluster."""

import base64
import contextlib
import ipaddress
from collections.abc import Mapping, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from infra.kubernetes.signing_requests import SERVING_SIGNER
from tests.end_to_end.stack import Body


def signing_request(
    subject: Mapping[str, Sequence[str]],
    names: Sequence[str] = (),
    *,
    authority: bool = False,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
) -> str:
    """Return the base64 of a request for a subject (CN, O) and names; an authority if asked."""
    oids = {"CN": NameOID.COMMON_NAME, "O": NameOID.ORGANIZATION_NAME}
    attributes = [
        x509.NameAttribute(oids[kind], value)
        for kind, values in subject.items()
        for value in values
    ]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    if names:
        alternatives = [_general_name(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    if authority:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
    signed = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return base64.b64encode(signed.public_bytes(serialization.Encoding.PEM)).decode()


def _general_name(name: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    return x509.DNSName(name)


def csr(name: str, signer: str, request: str) -> Body:
    """Return the object that asks a signer for it."""
    usage = "server auth" if signer == SERVING_SIGNER else "client auth"
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {"signerName": signer, "request": request, "usages": ["digital signature", usage]},
    }
