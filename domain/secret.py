"""Secrets: their kinds, the states of both state machines, values, and how they rotate.

A secret has versions; a version has one value, which is written once and never changes. Values
are kept in OpenBao alone: everything else in the platform holds ids.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from domain.errors import BulkheadError, Reason

MAXIMUM_VALUE_BYTES: Final = 64 * 1024
MAXIMUM_ALIASES: Final = 50

# How long a deleted secret can be restored.
RESTORABLE_DAYS: Final = 30

CURRENT: Final = "current"
PREVIOUS: Final = "previous"
LATEST: Final = "latest"

# `current` is the one system alias that a person may move, and `previous` follows it.
RESERVED_ALIASES: Final = frozenset({LATEST, "new", PREVIOUS, "pending"})
LONGEST_ALIAS: Final = 128
# Begins as no number, and as no step of a path.
_ALIAS: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")


class SecretKind(StrEnum):
    """What a secret is for; the cloud kinds can be validated at their provider."""

    HCLOUD = "cloud_provider/hcloud"
    AWS = "cloud_provider/aws"
    GCP = "cloud_provider/gcp"
    AZURE = "cloud_provider/azure"
    OCI_REGISTRY = "oci_registry"
    CLOUDFLARE_API = "cloudflare_api"
    WEBHOOK_SIGNING = "webhook_signing"
    GENERIC = "generic"


CLOUD_KINDS: Final = frozenset(
    {SecretKind.HCLOUD, SecretKind.AWS, SecretKind.GCP, SecretKind.AZURE}
)


class SecretState(StrEnum):
    """`creating` and `purging` are shown to nobody: the contract knows the other two."""

    CREATING = "creating"
    ACTIVE = "active"
    SOFT_DELETED = "soft_deleted"
    PURGING = "purging"


class VersionState(StrEnum):
    """The life of a version.

    `writing`: its value may or may not be stored; `pending`: stored by a rotation that has not
    finished; `destroying`: no longer readable, and its value may still be stored. `abandoned`
    versions never had a value that anyone saw, and their numbers are not used again.
    """

    WRITING = "writing"
    PENDING = "pending"
    ENABLED = "enabled"
    DISABLED = "disabled"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"
    ABANDONED = "abandoned"


# What a person sees; `destroying` reads as `disabled` until the value is proven to be gone.
VISIBLE_VERSION_STATES: Final = frozenset(
    {
        VersionState.ENABLED,
        VersionState.DISABLED,
        VersionState.DESTROYING,
        VersionState.DESTROYED,
    }
)


class ValueEncoding(StrEnum):
    """How a value travels in JSON: as text, or as base64 of any bytes."""

    UTF8 = "utf-8"
    BASE64 = "base64"


@dataclass(frozen=True, slots=True)
class SecretValue:
    """The bytes of a version. Never printed, and never in a workflow's payload.

    Attributes:
        data: at most `MAXIMUM_VALUE_BYTES`, at least one.
        encoding: how the value was given, and is given back.
    """

    data: bytes = field(repr=False)
    encoding: ValueEncoding = ValueEncoding.UTF8

    def __post_init__(self) -> None:
        if not 0 < len(self.data) <= MAXIMUM_VALUE_BYTES:
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                f"A value has between 1 and {MAXIMUM_VALUE_BYTES} bytes.",
                path=("body", "value"),
                status=400,
            )

    @property
    def sha256(self) -> str:
        """The checksum that is stored beside the value, as hex digits."""
        return hashlib.sha256(self.data).hexdigest()

    def text(self) -> str:
        """Return the value as it travels in JSON."""
        if self.encoding is ValueEncoding.BASE64:
            return base64.b64encode(self.data).decode()
        return self.data.decode()

    @classmethod
    def of_text(cls, text: str, encoding: ValueEncoding = ValueEncoding.UTF8) -> "SecretValue":
        """Read a value as it travels in JSON.

        Raises:
            BulkheadError: INVALID_ARGUMENT when it is not base64, no text, empty or too long.
        """
        if encoding is ValueEncoding.UTF8:
            try:
                return cls(text.encode(), encoding)
            except UnicodeEncodeError:
                # The error holds the whole text.
                raise BulkheadError(
                    Reason.INVALID_ARGUMENT,
                    "This holds half of a surrogate pair, which is no text; send bytes as base64.",
                    path=("body", "value"),
                    status=400,
                ) from None
        try:
            return cls(base64.b64decode(text, validate=True), encoding)
        except (binascii.Error, ValueError):
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                "This is not base64 (RFC 4648, with padding), as `value_encoding` says.",
                path=("body", "value"),
                status=400,
            ) from None


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretPlace:
    """Which secret is meant: what workflows of a secret that are no operations are given."""

    workspace_id: str
    secret_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionPlace:
    """Where the value of a version is: ids, nothing else."""

    workspace_id: str
    secret_id: str
    version_id: str


class RotatorKind(StrEnum):
    """What a rotation can rotate."""

    POSTGRESQL_LOGIN = "postgresql_login"
    WORKSPACE_API_TOKEN = "workspace_api_token"  # noqa: S105 - the name of a kind
    WEBHOOK_SIGNING_KEY = "webhook_signing_key"
    KUBERNETES_SERVICE_ACCOUNT = "kubernetes_service_account"
    HTTPS = "https"
    AWS_ACCESS_KEY = "aws_access_key"
    GCP_SERVICE_ACCOUNT_KEY = "gcp_service_account_key"
    HETZNER_CLOUD_TOKEN = "hetzner_cloud_token"  # noqa: S105 - the name of a kind


# Rotators that give values to a target which the settings name. A hosted cluster is one too: its
# administrators can see what its API server is asked.
SENDING_ROTATORS: Final = frozenset(
    {
        RotatorKind.POSTGRESQL_LOGIN,
        RotatorKind.KUBERNETES_SERVICE_ACCOUNT,
        RotatorKind.HTTPS,
    }
)

# Rotators that give a new value the rights of the current one, those over secrets among them. Only
# an owner gives such rights away, so only an owner says what is rotated: how, and from which value.
GRANTING_ROTATORS: Final = frozenset({RotatorKind.WORKSPACE_API_TOKEN})

# Rotators whose new value ends the one before the current value at the target.
ALTERNATING_ROTATORS: Final = frozenset({RotatorKind.POSTGRESQL_LOGIN})

# As what a rotation is named where it uses another secret, such as an administrator's login.
ROTATION_CONSUMER: Final = "secret_rotation"


class Retirement(StrEnum):
    """What becomes of the version that a rotation replaces; `keep` unless the policy says so."""

    KEEP = "keep"
    DISABLE = "disable"
    DESTROY = "destroy"


def check_alias(name: str) -> None:
    """Return when a person may give this alias.

    Raises:
        BulkheadError: INVALID_ARGUMENT, as 400.
    """
    if name in RESERVED_ALIASES or name.startswith("secv_") or not _ALIAS.fullmatch(name):
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "An alias is a letter and up to 127 letters, digits, `_`, `-` and `.`; `latest`, "
            "`new`, `previous` and `pending` have a meaning of their own.",
            path=("body", "version_aliases"),
            status=400,
        )


def is_alias(name: str) -> bool:
    """Tell whether this can be an alias of a version, of a person or of the system."""
    return _ALIAS.fullmatch(name) is not None
