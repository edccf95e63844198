"""A rollout: one version of a product on many installs, in waves. States and what they mean."""

from enum import StrEnum
from typing import Final


class RolloutState(StrEnum):
    """How far a rollout is.

    Attributes:
        PLANNING: targets and waves are being decided, and each target's plan is made where asked.
        PLANNED: it waits for an approval, or was only planned.
        RUNNING: waves move.
        PAUSED: nothing new begins; what had begun ends.
        ROLLING_BACK: installs return to the render that they had.
        SUCCEEDED: every target that could be reached has the version.
        FAILED: it stopped itself, and what it took back is told.
        CANCELLED: a person ended it; what was moved stays moved.
        ROLLED_BACK: a person, or the rollout itself, took back what was moved.
    """

    PLANNING = "planning"
    PLANNED = "planned"
    RUNNING = "running"
    PAUSED = "paused"
    ROLLING_BACK = "rolling_back"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ROLLED_BACK = "rolled_back"


class TargetState(StrEnum):
    """How far one install of a rollout is.

    Attributes:
        PENDING: its wave has not come.
        WAITING: its wave has come, but something is in the way; `waiting_for` says what.
        MOVING: an operation of the install runs.
        BAKING: it has the version, and is looked at before the next wave.
        SUCCEEDED: it has the version and stayed healthy.
        FAILED: it does not have the version, or was not healthy with it.
        SKIPPED: it was left out for good; `last_error` says why.
        ROLLING_BACK: an operation takes it back.
        ROLLED_BACK: it has what it had before.
    """

    PENDING = "pending"
    WAITING = "waiting"
    MOVING = "moving"
    BAKING = "baking"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"


class Obstacle(StrEnum):
    """Why a target waits: the answer to "why is it not moving?".

    Attributes:
        APPROVAL: its operation waits for an approval of the customer's.
        OPERATION: its operation waits for something else, or takes very long.
        UNDO: its operation failed, and what it did cannot be undone yet.
    """

    OFFLINE = "offline"
    WINDOW = "window"
    HOLD = "hold"
    CONSENT = "consent"
    BUSY = "busy"
    EMERGENCY_STOP = "emergency_stop"
    APPROVAL = "approval"
    OPERATION = "operation"
    UNDO = "undo"


class Gate(StrEnum):
    """Where a rollout waits for an approval."""

    NONE = "none"
    START = "start"
    EACH_WAVE = "each_wave"


class CheckKind(StrEnum):
    """How a target that was moved is looked at."""

    WORKLOAD = "workload"
    HTTP = "http"
    METRIC = "metric"
    JOB = "job"


class StopScope(StrEnum):
    """What an emergency stop covers.

    Attributes:
        ALL: the whole platform; only members of a platform workspace may.
    """

    WORKSPACE = "workspace"
    PRODUCT = "product"
    PROVIDER = "provider"
    REGION = "region"
    ALL = "all"


class StopOwner(StrEnum):
    """Who stopped what is held: its own workspace, the vendor of its product, or the platform."""

    WORKSPACE = "workspace"
    VENDOR = "vendor"
    PLATFORM = "platform"


# The signal that wakes a rollout's workflow: something that it reads from the database changed.
ROLLOUT_CHANGED: Final = "changed"

TERMINAL: Final = frozenset(
    {
        RolloutState.SUCCEEDED,
        RolloutState.FAILED,
        RolloutState.CANCELLED,
        RolloutState.ROLLED_BACK,
    }
)
