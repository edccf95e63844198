"""AWS access keys as values of secrets."""

import json
import re
from collections.abc import Mapping
from typing import Final

from domain.secret import SecretValue
from infra.providers.signing import AccessKey

_KEY_ID: Final = re.compile(r"[A-Z0-9]{16,128}")
_SECRET: Final = re.compile(r"[!-~]{1,128}")
_ID_NAMES: Final = ("access_key_id", "AccessKeyId", "aws_access_key_id")
_SECRET_NAMES: Final = ("secret_access_key", "SecretAccessKey", "aws_secret_access_key")


def access_key_of(
    value: SecretValue, attributes: Mapping[str, str] | None = None
) -> AccessKey | None:
    """Return the access key that a value holds; None when it holds none.

    Args:
        value: JSON with `access_key_id` and `secret_access_key`, as AWS's own tools write it too;
            or the secret part alone.
        attributes: of the secret: `aws_access_key_id`, which goes with the secret part alone.
    """
    text = value.data.decode(errors="replace")
    found: object = None
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return None
    if not isinstance(found, dict):
        key_id, secret = (attributes or {}).get("aws_access_key_id"), text
    else:
        # What `aws iam create-access-key` prints has the key inside.
        inner = found.get("AccessKey")
        fields = inner if isinstance(inner, dict) else found
        key_id = next((fields[name] for name in _ID_NAMES if name in fields), None)
        secret = next((fields[name] for name in _SECRET_NAMES if name in fields), "")
    if not isinstance(key_id, str) or not isinstance(secret, str):
        return None
    if not _KEY_ID.fullmatch(key_id) or not _SECRET.fullmatch(secret):
        return None
    return AccessKey(key_id=key_id, secret=secret)


def value_of(key: AccessKey) -> SecretValue:
    """Return a value that holds the whole key."""
    whole = {"access_key_id": key.key_id, "secret_access_key": key.secret}
    return SecretValue.of_text(json.dumps(whole))
