"""Who a server is: the key that it made, the request that it signs with it, and nothing else.

Strict on purpose: what a server may put into a signing request is its key. Everything that the
certificate says is decided here, so a request that asks for more is refused, not trimmed.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.datastructures import Headers

from domain.errors import BulkheadError, Reason

# A request of a P-256 key is 400 bytes of PEM; the rest is room for other line lengths.
_LONGEST_REQUEST: Final = 8 * 1024

# A server does not know its name before it is told, so it sends this, or none.
_COMMON_NAME: Final = "bulkhead-node"

_KEY: Final = re.compile(r"[0-9a-f]{64}")
_TIME: Final = re.compile(r"[0-9]{1,12}")
_LONGEST_SIGNATURE: Final = 200


@dataclass(frozen=True, slots=True)
class Identity:
    """A server's own key.

    Attributes:
        key: its public half, as PEM.
        key_hash: the SHA-256 of its DER form, by which it is found.
        request: the signing request, as PEM.
    """

    key: str
    key_hash: bytes
    request: str


@dataclass(frozen=True, slots=True)
class Proof:
    """What a server's request was signed as; `time` is by its own clock, in Unix seconds."""

    key_hash: bytes
    time: int
    signature: bytes
    message: bytes

    def is_of(self, key: str) -> bool:
        """Whether the private half of a public key, as PEM, made the signature."""
        public = serialization.load_pem_public_key(key.encode())
        assert isinstance(public, ec.EllipticCurvePublicKey)  # noqa: S101 - no other is stored
        try:
            public.verify(self.signature, self.message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


def identity_of(encoded: str) -> Identity:
    """Read a signing request (PEM, in base64) and take the key out of it.

    Raises:
        BulkheadError: INVALID_ARGUMENT, as 400, with what is wrong.
    """
    # Base64 makes four characters of three bytes.
    if len(encoded) > _LONGEST_REQUEST * 4 // 3 + 4:
        raise _refused(why=f"It is larger than {_LONGEST_REQUEST} bytes.")
    try:
        request = x509.load_pem_x509_csr(base64.b64decode(encoded, validate=True))
        key = request.public_key()
        subject = list(request.subject)
        asks_for_more = len(list(request.attributes)) > 0
        digest = request.signature_hash_algorithm
    except (ValueError, TypeError, UnsupportedAlgorithm, binascii.Error):
        raise _refused(why="It is not the base64 of a PEM file that can be read.") from None
    # Before the signature is looked at: others can be made costly to verify.
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _refused(why="Its key must be of the curve P-256.")
    if not isinstance(digest, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
        raise _refused(why="It must be signed with SHA-256 or longer.")
    if subject and [(name.oid, name.value) for name in subject] != [
        (NameOID.COMMON_NAME, _COMMON_NAME)
    ]:
        raise _refused(why=f"Its subject must be empty, or CN={_COMMON_NAME}.")
    if asks_for_more:
        raise _refused(why="It asks for extensions or attributes; a node's request has none.")
    if not _is_signed(request):
        raise _refused(why="Its signature is not of its own key.")
    return Identity(
        key=key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode(),
        key_hash=_hash_of(key),
        request=request.public_bytes(serialization.Encoding.PEM).decode(),
    )


def proof_of(headers: Headers, method: str, path: str, body: bytes) -> Proof:
    """Read what a signed request says of its signature; nothing is verified yet.

    Raises:
        BulkheadError: UNAUTHENTICATED when a header is missing or malformed.
    """
    key = headers.get("bulkhead-key", "")
    time = headers.get("bulkhead-time", "")
    signature = _decoded(headers.get("bulkhead-signature", ""))
    if not _KEY.fullmatch(key) or not _TIME.fullmatch(time) or signature is None:
        raise BulkheadError(
            Reason.UNAUTHENTICATED,
            "Sign the request with the server's own key: the headers Bulkhead-Key, Bulkhead-Time "
            "and Bulkhead-Signature.",
            path=("header", "bulkhead-signature"),
        )
    message = f"{method}\n{path}\n{time}\n{hashlib.sha256(body).hexdigest()}"
    return Proof(bytes.fromhex(key), int(time), signature, message.encode())


def _decoded(signature: str) -> bytes | None:
    if not 0 < len(signature) <= _LONGEST_SIGNATURE:
        return None
    try:
        return base64.b64decode(signature, validate=True)
    except ValueError:
        return None


def _is_signed(request: x509.CertificateSigningRequest) -> bool:
    try:
        return request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm):
        return False


def _hash_of(key: ec.EllipticCurvePublicKey) -> bytes:
    return hashlib.sha256(
        key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    ).digest()


def _refused(*, why: str) -> BulkheadError:
    return BulkheadError(
        Reason.INVALID_ARGUMENT,
        f"The signing request is refused, and nothing is used up. {why}",
        path=("body", "csr"),
        status=400,
    )
