"""An install: one copy of a package on one cluster; its states, health and renders."""

from enum import StrEnum
from typing import Final


class InstallState(StrEnum):
    """The contract's published states."""

    PENDING = "pending"
    RENDERING = "rendering"
    SYNCING = "syncing"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    FAILED = "failed"
    DELETED = "deleted"


class RenderState(StrEnum):
    """The contract's published states of a render."""

    RUNNING = "running"
    DEPLOYED = "deployed"
    SKIPPED = "skipped"
    FAILED = "failed"


class Health(StrEnum):
    """How objects, and an install as a whole, are; the words are those of Argo CD.

    UNKNOWN is not unhealthy: it says that nothing could be seen.
    """

    HEALTHY = "Healthy"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    SUSPENDED = "Suspended"
    MISSING = "Missing"
    UNKNOWN = "Unknown"


class Sync(StrEnum):
    """Whether the live objects are those of the render; the words are those of Argo CD."""

    SYNCED = "Synced"
    OUT_OF_SYNC = "OutOfSync"
    UNKNOWN = "Unknown"


class Change(StrEnum):
    """What a plan does to one object."""

    ADDED = "added"
    CHANGED = "changed"
    REPLACED = "replaced"
    DELETED = "deleted"
    # It stays on the cluster, and is the install's no more.
    KEPT = "kept"


class ObjectScope(StrEnum):
    """Where an object lives, and with that by which identity it is applied."""

    NAMESPACE = "namespace"
    CLUSTER = "cluster"


class DriftState(StrEnum):
    """What became of a drift finding."""

    OPEN = "open"
    CORRECTED = "corrected"
    RESOLVED = "resolved"


class Consent(StrEnum):
    """Whether a customer is asked before each version that a vendor's rollout brings."""

    AUTOMATIC = "automatic"
    ASK = "ask"


# The kind of consumer that an install is of the secrets to which its values refer.
INSTALL_CONSUMER: Final = "install"

# Each install's reader of pods and logs is this prefix and the opaque part of its id.
INSTALL_READER_PREFIX: Final = "bulkhead:install-reader:"
