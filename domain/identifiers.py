"""Ids: a prefix that tells the kind, an underscore, and the 32 hex digits of a UUIDv7.

UUIDv7 (RFC 9562) sorts by creation time, so an index on the id is also an index on age.
"""

import re
from enum import StrEnum

from uuid_utils import uuid7


class Prefix(StrEnum):
    """The kinds of thing that have an id of ours."""

    API_TOKEN = "tok"  # noqa: S105 - the prefix of an id, not a credential
    AUDIT_EVENT = "aud"
    CLUSTER = "clu"
    COMPUTE_CONFIG = "cmp"
    DRIFT_REPORT = "dft"
    EMERGENCY_STOP = "stop"
    GRANT = "grnt"
    INSTALL = "inst"
    INSTALL_DRIFT = "idft"
    INVENTORY = "inv"
    LEAK = "leak"
    MACHINE = "mch"
    MACHINE_POOL = "mpl"
    MEMBER = "wsm"
    OPERATION = "op"
    PACKAGE = "pkg"
    PACKAGE_VERSION = "pkgv"
    PRODUCT = "prod"
    REGION = "reg"
    REGISTRY_CONNECTION = "rcon"
    RENDER = "rnd"
    REQUEST = "req"
    ROLLOUT = "roll"
    SECRET = "sec"  # noqa: S105 - the same
    SECRET_VERSION = "secv"  # noqa: S105 - the same
    STACK = "stk"
    SUSPENSION = "sus"
    USER = "usr"
    WORKER_BOOTSTRAP = "wbs"
    WORKSPACE = "ws"


_PATTERN = re.compile(r"([a-z]{2,5})_([0-9a-f]{32})")


def new_id(prefix: Prefix) -> str:
    """Return a fresh id of the kind, greater than every earlier one of this process."""
    return f"{prefix}_{uuid7().hex}"


def is_id(prefix: Prefix, value: str) -> bool:
    """Tell whether the value is a well-formed id of the kind."""
    match = _PATTERN.fullmatch(value)
    return match is not None and match[1] == prefix


def opaque_part(identifier: str) -> str:
    """Return the 32 hex digits after the prefix.

    Raises:
        ValueError: the value is not an id of ours; a name outside must never be built from it.
    """
    match = _PATTERN.fullmatch(identifier)
    if match is None:
        message = f"not an id: {identifier!r}"
        raise ValueError(message)
    return match[2]
