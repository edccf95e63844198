"""What a vendor is told about an install that did not take a version.

The error of an operation is its customer's: it may quote what an object, a cluster or a chart says,
and thereby values or lines of a log. Only this crosses: the step that failed, and of an object that
did not become healthy its kind and words of Kubernetes' own. No name does, nor a kind that is the
chart's own: a chart makes them of the customer's values, in whatever encoding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from domain.errors import Reason
from domain.install import Health
from domain.operation import Step
from domain.rollout import Obstacle

_STEPS: Final[Mapping[str, str]] = {
    Step.RENDER_CHART: "Its chart could not be rendered with the customer's values",
    Step.PLAN_CHANGES: "Its cluster did not take the new version's objects as planned",
    Step.AWAIT_APPROVAL: "Its customer did not approve the changes",
    Step.SYNC_SECRETS: "Its secrets could not be written",
    Step.APPLY_CLUSTER_OBJECTS: "The objects for its whole cluster could not be applied",
    Step.APPLY_RELEASE: "The new version's objects, or a hook of the chart, failed",
    Step.WAIT_UNTIL_HEALTHY: "The new version did not become healthy",
    Step.REMOVE_CLUSTER_OBJECTS: "What the new version has no more could not be removed",
}

# What Kubernetes calls it when something does not start; none of them is a text of somebody's.
_CAUSES: Final = (
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "OOMKilled",
    "Evicted",
    "Unschedulable",
    "ProgressDeadlineExceeded",
    "BackoffLimitExceeded",
    "DeadlineExceeded",
)

# Kinds of Kubernetes' own that can be unhealthy.
_KINDS: Final = frozenset(
    {
        "CronJob",
        "CustomResourceDefinition",
        "DaemonSet",
        "Deployment",
        "Ingress",
        "Job",
        "PersistentVolumeClaim",
        "Pod",
        "PodDisruptionBudget",
        "ReplicaSet",
        "ReplicationController",
        "Service",
        "StatefulSet",
    }
)
_OTHER_KIND: Final = "an object of its chart"


@dataclass(frozen=True, kw_only=True, slots=True)
class UnhealthyObject:
    """The object by which an install did not become healthy, as a vendor may see it.

    Attributes:
        kind: of the object, where it is one of Kubernetes' own.
        health: that it had in the end.
        cause: what Kubernetes calls the reason, of words that are known; empty: none of them.
    """

    kind: str
    health: Health
    cause: str = ""

    @classmethod
    def of(cls, kind: str, health: Health, said: str) -> "UnhealthyObject":
        """Return what may be told of an object.

        Args:
            kind: of the object.
            health: of the same.
            said: why it is not healthy; of this only words that are known are kept.
        """
        return cls(
            kind=kind if kind in _KINDS else _OTHER_KIND,
            health=health,
            cause=next((cause for cause in _CAUSES if cause in said), ""),
        )

    def as_json(self) -> dict[str, str]:
        """Return what a row has of it."""
        return {"kind": self.kind, "health": self.health, "cause": self.cause}


def failure_told(step: str | None, reason: str, unhealthy: Mapping[str, str] | None) -> str:
    """Return a sentence for the vendor about an operation that failed and undid itself.

    Args:
        step: at which it failed; None: none of the install's.
        reason: of its error.
        unhealthy: an `UnhealthyObject` as a row has it.
    """
    if reason == Reason.ABORTED and step is None:
        return "Its operation was cancelled"
    if step == Step.PLAN_CHANGES and reason == Reason.FAILED_PRECONDITION:
        # A plan that is stale, an object that the cluster refuses, a release that is too large.
        return f"{_STEPS[step]}, or is not what was approved"
    said = _STEPS.get(step or "", "Its operation failed")
    if step == Step.WAIT_UNTIL_HEALTHY and unhealthy is not None:
        cause = f" ({unhealthy['cause']})" if unhealthy["cause"] else ""
        return f"{said}: {unhealthy['kind']} is {unhealthy['health']}{cause}"
    return said if step == Step.WAIT_UNTIL_HEALTHY else f"{said} ({reason})"


def is_of_checks(obstacle: str) -> bool:
    """Tell whether what a target that moves waits for is in the way of its checks alone.

    Its operation has ended then, and it has the version.
    """
    return obstacle in {Obstacle.HOLD, Obstacle.OFFLINE}


def let_go_told(obstacle: str) -> str:
    """Return a sentence for the vendor about a target that a rollout waits for no more."""
    if is_of_checks(obstacle):
        return f"It has the version, and was not checked in time ({obstacle})."
    if obstacle == Obstacle.EMERGENCY_STOP:
        # It may be a check that waits, whose operation has succeeded.
        return f"It did not go on ({obstacle}). Its operation is cancelled, unless it has ended."
    return f"Its operation did not go on ({obstacle}), and is cancelled."
