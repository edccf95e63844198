"""Compute: in whose account, where and how large a workspace's machines may be made."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from domain.caller import Caller
from domain.cloud import Allowance, InstanceType, Provider

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


# The consumer that a compute config is to its secret.
COMPUTE_CONFIG_CONSUMER: Final = "compute_config"


@dataclass(frozen=True, kw_only=True, slots=True)
class PreflightRequest:
    """What `PreflightMachines` gets: in which places of a config's account to ask.

    Attributes:
        instance_types: that shall be made there; the config's image is looked for then.
        caller: who asked, for whom the credential is read.
    """

    workspace_id: str
    compute_config_id: str
    places: list[str]
    instance_types: list[str] = field(default_factory=list)
    caller: Caller | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaceOffer:
    """What one place has, and how much more of it the account may have."""

    place: str
    instance_types: list[InstanceType] = field(default_factory=list)
    allowance: Allowance = field(default_factory=Allowance)


@dataclass(frozen=True, kw_only=True, slots=True)
class PreflightResult:
    """What `PreflightMachines` answers, in the order of the request's places."""

    places: list[PlaceOffer]


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftRequest:
    """What `DetectMachineDrift` gets: whose drift to look for, and the id of the report to write.

    A report of that id that exists already is the result of an earlier attempt, and stays.

    Attributes:
        caller: who asked, for whom the credential is read; None: the clock.
    """

    workspace_id: str
    machine_id: str
    report_id: str
    trigger: str | None = None
    caller: Caller | None = None


def allowed_place(provider: Provider, place: str) -> str:
    """Return how a workspace's list of allowed places names a place: `hcloud/fsn1`."""
    return f"{provider}/{place}"
