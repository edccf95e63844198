"""A certificate of the platform's authority for one of its own listeners, with a new key."""

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from infra.openbao.leaf import private_pem
from infra.openbao.signing import ApiOpenBao


def new_platform_leaf(openbao: ApiOpenBao, names: list[str]) -> bytes:
    """Return a new key and its certificate, both in one PEM; valid for these names and addresses.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when OpenBao does not answer.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    certificate = openbao.sign_platform_certificate(signed.decode(), names)
    return private_pem(key) + certificate.encode()
