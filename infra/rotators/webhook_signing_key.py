"""A webhook signing key: nothing outside has to accept it.

The overlap is the consumers': a receiver verifies with `current` and `previous`, a sender signs
with `current`, so that messages which were on their way during a rotation are accepted.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any, Final

from domain.errors import BulkheadError, Reason
from domain.rotation import Rotation
from domain.secret import SecretValue
from infra.rotators.fields import RotatorSettings, read_settings

# The prefix by which libraries of the Standard Webhooks specification know the base64 of a key.
PREFIX: Final = "whsec_"
KEY_BYTES: Final = 32

_PROBE: Final = b"bulkhead"


class WebhookSigningKey:
    """Makes a new random key. Its value is `whsec_` and the base64 of 32 bytes."""

    @staticmethod
    def check_settings(secret_id: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings: there are none."""
        del secret_id
        return read_settings(RotatorSettings, settings).model_dump(mode="json")

    async def reach(self, rotation: Rotation, current: SecretValue) -> None:
        """There is no target."""
        del rotation, current

    async def create(self, rotation: Rotation, current: SecretValue) -> SecretValue:
        """Make a key."""
        del rotation, current
        key = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        return SecretValue.of_text(PREFIX + key)

    async def set(self, rotation: Rotation, pending: SecretValue, current: SecretValue) -> None:
        """Do nothing."""

    async def test(self, rotation: Rotation, pending: SecretValue) -> None:
        """Sign something, and verify it with what is stored."""
        del rotation
        signature = _sign(key_of(pending), _PROBE)
        if not hmac.compare_digest(signature, _sign(key_of(pending), _PROBE)):
            raise _not_a_key()

    async def unset(
        self, rotation: Rotation, pending: SecretValue | None, current: SecretValue
    ) -> None:
        """Do nothing."""

    async def retire(
        self, rotation: Rotation, retired: SecretValue, replacement: SecretValue
    ) -> None:
        """Do nothing: a key that no consumer reads verifies nothing."""


def key_of(value: SecretValue) -> bytes:
    """Return the key that a value stands for.

    Raises:
        BulkheadError: CREDENTIAL_REJECTED when it is none of ours.
    """
    try:
        key = base64.b64decode(value.data.removeprefix(PREFIX.encode()), validate=True)
    except binascii.Error:
        raise _not_a_key() from None
    if len(key) != KEY_BYTES or not value.data.startswith(PREFIX.encode()):
        raise _not_a_key()
    return key


def _sign(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, hashlib.sha256)


def _not_a_key() -> BulkheadError:
    return BulkheadError(
        Reason.CREDENTIAL_REJECTED,
        f"The new value is no signing key ({PREFIX} and the base64 of {KEY_BYTES} bytes). Start "
        "the rotation again.",
    )
