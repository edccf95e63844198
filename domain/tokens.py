"""Bearer tokens: a prefix that tells the kind, 36 random characters and a checksum.

36 base62 characters carry 214 random bits, so a plain SHA-256 is what is stored: a slow hash
protects guessable passwords, and would only cost every request its time. The checksum rejects
typing errors and noise before the database is asked; it proves nothing about who made the token.
"""

import hashlib
import re
import secrets
import string
import zlib
from enum import StrEnum


class TokenKind(StrEnum):
    """What a token belongs to; the value is its prefix, for secret scanners to find."""

    USER = "bulkhead_pat"
    WORKSPACE = "bulkhead_wst"
    WORKER_BOOTSTRAP = "bulkhead_wbt"


_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_LENGTH = 36
_CHECKSUM_LENGTH = 6
_DISPLAYED_RANDOM_LENGTH = 4
_PATTERN = re.compile(
    rf"({'|'.join(TokenKind)})_([0-9A-Za-z]{{{_RANDOM_LENGTH}}})([0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})"
)


def new_token(kind: TokenKind) -> str:
    """Return a fresh token of the kind. Shown once; only `hash_of` it is stored."""
    body = f"{kind}_" + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))
    return body + _checksum_of(body)


def is_well_formed(token: str) -> bool:
    """Tell whether the text has the shape and the checksum of a token of ours."""
    match = _PATTERN.fullmatch(token)
    return match is not None and _checksum_of(token[:-_CHECKSUM_LENGTH]) == match[3]


def hash_of(token: str) -> bytes:
    """Return the 32 bytes under which the token is stored and looked up."""
    return hashlib.sha256(token.encode()).digest()


def display_prefix_of(token: str) -> str:
    """Return the part by which people recognise a token in a list; no secret."""
    return token[: token.rindex("_") + 1 + _DISPLAYED_RANDOM_LENGTH]


def _checksum_of(body: str) -> str:
    value = zlib.crc32(body.encode())
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        value, digit = divmod(value, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
