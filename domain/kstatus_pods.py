"""What pods say of themselves and of the workloads that made them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from domain.install import Health
from domain.live_object import (
    Live,
    ObjectStatus,
    because,
    conditions_of,
    degraded,
    group_of,
    healthy,
    holds,
    part,
    progressing,
    said_by,
)

# Containers that crash are started again at once, then after 10, 20 and 40 s: one that crashes this
# often did so for more than a minute, and was not just early for what it needs.
_CRASHES: Final = 3

# A registry, or a ConfigMap that is written by somebody else, may be late by this much.
_LATE: Final = timedelta(seconds=60)

# Of what a container waits for: what nobody but a person changes, and what may come by itself.
_NEVER: Final = frozenset({"InvalidImageName", "ErrImageNeverPull"})
_PERHAPS: Final = frozenset(
    {
        "ImagePullBackOff",
        "ErrImagePull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)


def status_of_pod(live: Live, now: datetime | None) -> ObjectStatus:
    """Return how a pod is; `now` as for `status_of`."""
    status, conditions = part(live, "status"), conditions_of(live)
    phase = status.get("phase")
    if phase == "Succeeded":
        return healthy("It has completed.")
    if phase == "Failed":
        return degraded(f"It has ended in failure{because(status.get('reason'))}.")
    if phase == "Running" and holds(conditions, "Ready", "True"):
        return healthy("It is ready.")
    lasts = _lasts(status.get("startTime"), now)
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    stuck = [found for one in containers if (found := _container(one, lasts)) is not None]
    if stuck:
        return next((one for one in stuck if one.health is Health.DEGRADED), stuck[0])
    if holds(conditions, "PodScheduled", "False"):
        # Not Degraded: whoever installs before there are nodes gets them any minute.
        return progressing(f"It has no node yet: {said_by(conditions['PodScheduled'])}")
    return progressing(
        "It runs, and is not ready." if phase == "Running" else "It has not started yet."
    )


def _container(container: Mapping[str, Any], lasts: timedelta) -> ObjectStatus | None:
    """Return why a container does not start; what it wrote itself is not repeated."""
    waiting = part(part(container, "state"), "waiting")
    why, name = waiting.get("reason"), container.get("name")
    if why == "CrashLoopBackOff":
        crashes = container.get("restartCount", 0)
        ended = part(part(container, "lastState"), "terminated")
        last = f"{ended.get('reason', 'ended')}, exit code {ended.get('exitCode')}"
        said = f"Container {name} has crashed {crashes} times (CrashLoopBackOff; last: {last})."
        return degraded(said) if crashes >= _CRASHES else progressing(said)
    said = f"Container {name} cannot start ({why}){because(waiting.get('message'))}."
    if why in _NEVER:
        return degraded(said)
    if why in _PERHAPS:
        return degraded(said) if lasts > _LATE else progressing(said)
    return None


def newest_pods(live: Live, pods: Sequence[Live], replica_sets: Sequence[Live]) -> Iterable[Live]:
    """Return the pods of a workload's newest revision, out of all of its namespace."""
    kind = (group_of(live), live.get("kind"))
    if kind == ("apps", "Deployment"):
        revisions = [one for one in replica_sets if _owned(one, live)]
        newest = max(revisions, key=_revision, default=None)
        return [] if newest is None else [pod for pod in pods if _owned(pod, newest)]
    of_this = [pod for pod in pods if _owned(pod, live)]
    if kind == ("apps", "StatefulSet"):
        newest_hash = part(live, "status").get("updateRevision")
        return [pod for pod in of_this if _label(pod, "controller-revision-hash") == newest_hash]
    if kind == ("apps", "DaemonSet"):
        annotations = part(part(live, "metadata"), "annotations")
        generation = annotations.get("deprecated.daemonset.template.generation")
        return [pod for pod in of_this if _label(pod, "pod-template-generation") == generation]
    return of_this


def _owned(one: Live, owner: Live) -> bool:
    uid = part(owner, "metadata").get("uid")
    owners = part(one, "metadata").get("ownerReferences") or ()
    return uid is not None and any(reference.get("uid") == uid for reference in owners)


def _revision(replica_set: Live) -> int:
    annotations = part(part(replica_set, "metadata"), "annotations")
    return int(annotations.get("deployment.kubernetes.io/revision", 0))


def _label(live: Live, name: str) -> str | None:
    found = part(part(live, "metadata"), "labels").get(name)
    return None if found is None else str(found)


def _lasts(since: str | None, now: datetime | None) -> timedelta:
    if since is None or now is None:
        return timedelta(0)
    return now - datetime.fromisoformat(since)
