"""Compute: in whose account, where and how large a workspace's machines may be made."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from domain.cloud import Provider

MAXIMUM_MACHINES: Final = 100
DEFAULT_MAXIMUM_MACHINES: Final = 10
LARGEST_POOL: Final = 20

# A snapshot of a suspended machine is kept so long; the contract's figure.
SNAPSHOT_KEPT_DAYS: Final = 90

# How long a drift report is worth looking at.
DRIFT_REPORT_KEPT_DAYS: Final = 30


class SuspensionState(StrEnum):
    """The contract's published states."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    RESUMED = "resumed"
    EXPIRED = "expired"


class DriftState(StrEnum):
    """The contract's published states."""

    IN_SYNC = "in_sync"
    DRIFTED = "drifted"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A place and a size to try, in the order of a request's fallbacks."""

    place: str
    instance_type: str


def allowed_place(provider: Provider, place: str) -> str:
    """Return how a workspace's list of allowed places names a place: `hcloud/fsn1`."""
    return f"{provider}/{place}"
