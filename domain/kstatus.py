"""What a live Kubernetes object says of itself: the rules of kstatus, in the words of Argo CD.

kstatus is the library by which kubectl's relatives wait (sigs.k8s.io/cli-utils/pkg/kstatus). Where
it knows "in progress" only, and something shows that waiting has no sense, this says Degraded.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from domain.foreign_text import printable
from domain.install import Health
from domain.kstatus_pods import newest_pods, status_of_pod
from domain.live_object import (
    Live,
    ObjectStatus,
    conditions_of,
    degraded,
    group_of,
    healthy,
    holds,
    part,
    progressing,
    said_by,
)

__all__ = ["MISSING", "ObjectStatus", "overall", "status_of", "status_with_pods"]

# Of a Deployment without a progress deadline, as its controller marks it.
_NO_DEADLINE: Final = 2**31 - 1

# The worst first. Unknown is no reason to call what is seen to be broken anything else.
_WORST_FIRST: Final = (
    Health.DEGRADED,
    Health.MISSING,
    Health.PROGRESSING,
    Health.UNKNOWN,
    Health.SUSPENDED,
    Health.HEALTHY,
)


MISSING: Final = ObjectStatus(Health.MISSING, "It is not in the cluster.")


def status_of(live: Live, now: datetime | None = None) -> ObjectStatus:
    """Return how an object is by what its own fields say.

    Args:
        live: as the API server returned it.
        now: what has lasted too long is Degraded; None: it is still Progressing.
    """
    found = _generic(live)
    if found is None:
        rule = _RULES.get((group_of(live), str(live.get("kind"))), _ready_condition)
        found = rule(live, now)
    return ObjectStatus(found.health, printable(found.reason))


def status_with_pods(
    live: Live, pods: Sequence[Live], replica_sets: Sequence[Live], now: datetime
) -> ObjectStatus:
    """Return how a workload is, with what its pods say.

    A Deployment whose pods crash is in progress for its deadline of ten minutes, and a StatefulSet
    for ever. Only pods of the newest revision count: those of the one before may be the reason why
    there is a new one.

    Args:
        live: any object; what makes no pods is judged alone.
        pods: all of its namespace.
        replica_sets: all of its namespace.
        now: the moment of the look.
    """
    own = status_of(live, now)
    if own.health is not Health.PROGRESSING:
        return own
    for pod in newest_pods(live, pods, replica_sets):
        status = status_of(pod, now)
        if status.health is Health.DEGRADED:
            reason = f"Pod {pod['metadata']['name']}: {status.reason}"
            return ObjectStatus(Health.DEGRADED, printable(reason))
    return own


def overall(statuses: Mapping[str, ObjectStatus]) -> ObjectStatus:
    """Return the worst of several objects, which are named in its reason; none is Healthy."""
    for health in _WORST_FIRST[:-1]:
        of_this = [(name, one) for name, one in statuses.items() if one.health is health]
        if of_this:
            name, one = of_this[0]
            others = f" ({len(of_this) - 1} more like it)" if len(of_this) > 1 else ""
            return ObjectStatus(health, printable(f"{name}: {one.reason}{others}"))
    return ObjectStatus(Health.HEALTHY, "Every object is as it should be.")


def _generic(live: Live) -> ObjectStatus | None:
    """Return what holds for an object of any kind, None when its kind decides."""
    metadata, status = part(live, "metadata"), part(live, "status")
    if metadata.get("deletionTimestamp"):
        return progressing("It is being deleted.")
    observed, wanted = status.get("observedGeneration"), metadata.get("generation")
    if observed is not None and wanted is not None and observed != wanted:
        return progressing(
            f"Its controller has not seen the latest change (generation {wanted}, seen {observed})."
        )
    conditions = conditions_of(live)
    if holds(conditions, "Stalled", "True"):
        return degraded(said_by(conditions["Stalled"]))
    if holds(conditions, "Reconciling", "True"):
        return progressing(said_by(conditions["Reconciling"]))
    return None


def _deployment(live: Live, _now: datetime | None) -> ObjectStatus:
    spec, status, conditions = part(live, "spec"), part(live, "status"), conditions_of(live)
    progress = conditions.get("Progressing", {})
    if progress.get("reason") == "ProgressDeadlineExceeded":
        return degraded(f"Its progress deadline is exceeded: {said_by(progress)}")
    if spec.get("paused"):
        return ObjectStatus(Health.SUSPENDED, "It is paused.")
    wanted = spec.get("replicas", 1)
    replicas, updated = status.get("replicas", 0), status.get("updatedReplicas", 0)
    waits = (
        _too_few("exist", replicas, wanted)
        or _too_few("are of the newest revision", updated, wanted)
        or _too_many(replicas, wanted)
        or _too_few("are available", status.get("availableReplicas", 0), updated)
        or _too_few("are ready", status.get("readyReplicas", 0), wanted)
    )
    if waits is not None:
        return waits
    has_deadline = spec.get("progressDeadlineSeconds", _NO_DEADLINE) != _NO_DEADLINE
    if has_deadline and progress.get("reason") != "NewReplicaSetAvailable":
        return progressing("Its newest ReplicaSet is not available yet.")
    if not holds(conditions, "Available", "True"):
        return progressing("It is not available yet.")
    return healthy(f"{replicas} of {wanted} pods are available.")


def _replica_set(live: Live, _now: datetime | None) -> ObjectStatus:
    spec, status, conditions = part(live, "spec"), part(live, "status"), conditions_of(live)
    if holds(conditions, "ReplicaFailure", "True"):
        return progressing(f"Pods cannot be made: {said_by(conditions['ReplicaFailure'])}")
    wanted, replicas = spec.get("replicas", 1), status.get("replicas", 0)
    return (
        _too_few("exist", status.get("fullyLabeledReplicas", 0), wanted)
        or _too_few("are available", status.get("availableReplicas", 0), wanted)
        or _too_few("are ready", status.get("readyReplicas", 0), wanted)
        or _too_many(replicas, wanted)
        or healthy(f"{replicas} of {wanted} pods are available.")
    )


def _stateful_set(live: Live, _now: datetime | None) -> ObjectStatus:
    spec, status = part(live, "spec"), part(live, "status")
    strategy = part(spec, "updateStrategy")
    if strategy.get("type") == "OnDelete":
        return healthy("Its pods are updated when somebody deletes them.")
    wanted, replicas = spec.get("replicas", 1), status.get("replicas", 0)
    # The API server fills a partition of 0 in: all pods are to be of the newest revision.
    partition = part(strategy, "rollingUpdate").get("partition") or 0
    return (
        _too_few("exist", replicas, wanted)
        or _too_few("are ready", status.get("readyReplicas", 0), wanted)
        or _too_many(replicas, wanted)
        or _too_few(
            "are of the newest revision", status.get("updatedReplicas", 0), wanted - partition
        )
        or healthy(f"{replicas} of {wanted} pods are ready.")
    )


def _daemon_set(live: Live, _now: datetime | None) -> ObjectStatus:
    status = part(live, "status")
    wanted = status.get("desiredNumberScheduled")
    if status.get("observedGeneration") is None or wanted is None:
        return progressing("Its controller has not seen it yet.")
    by_hand = part(part(live, "spec"), "updateStrategy").get("type") == "OnDelete"
    updated = wanted if by_hand else status.get("updatedNumberScheduled", 0)
    return (
        _too_few("exist", status.get("currentNumberScheduled", 0), wanted)
        or _too_few("are of the newest revision", updated, wanted)
        or _too_few("are available", status.get("numberAvailable", 0), wanted)
        or _too_few("are ready", status.get("numberReady", 0), wanted)
        or healthy(f"Its pod is ready on each of {wanted} nodes.")
    )


def _job(live: Live, _now: datetime | None) -> ObjectStatus:
    status, conditions = part(live, "status"), conditions_of(live)
    if holds(conditions, "Complete", "True"):
        return healthy("It is complete.")
    # A Job says first that it will fail, and has failed when its last pod has ended.
    for kind in ("Failed", "FailureTarget"):
        if holds(conditions, kind, "True"):
            return degraded(f"It has failed: {said_by(conditions[kind])}")
    if holds(conditions, "Suspended", "True"):
        return ObjectStatus(Health.SUSPENDED, "It is suspended.")
    if not status.get("startTime"):
        return progressing("It has not started yet.")
    counts = {kind: status.get(kind, 0) for kind in ("succeeded", "active", "failed")}
    return healthy(f"It runs; pods: {', '.join(f'{n} {kind}' for kind, n in counts.items())}.")


def _cron_job(live: Live, _now: datetime | None) -> ObjectStatus:
    if part(live, "spec").get("suspend"):
        return ObjectStatus(Health.SUSPENDED, "It is suspended.")
    return healthy("It is there.")


def _claim(live: Live, _now: datetime | None) -> ObjectStatus:
    phase = part(live, "status").get("phase", "unknown")
    if phase == "Lost":
        return degraded("The volume that it was bound to is gone.")
    if phase != "Bound":
        return progressing(f"It is not bound to a volume (phase {phase}).")
    return healthy("It is bound to a volume.")


def _service(live: Live, _now: datetime | None) -> ObjectStatus:
    spec = part(live, "spec")
    if spec.get("type") == "LoadBalancer" and not spec.get("clusterIP"):
        return progressing("It has no address yet.")
    return healthy("It is there.")


def _definition(live: Live, _now: datetime | None) -> ObjectStatus:
    conditions = conditions_of(live)
    if holds(conditions, "NamesAccepted", "False"):
        return degraded(f"Its names are not accepted: {said_by(conditions['NamesAccepted'])}")
    established = conditions.get("Established", {})
    if established.get("status") == "True":
        return healthy("It is established.")
    if established.get("status") == "False" and established.get("reason") != "Installing":
        return degraded(f"It is not established: {said_by(established)}")
    return progressing("It is not established yet.")


def _always(_live: Live, _now: datetime | None) -> ObjectStatus:
    return healthy("It is there.")


def _ready_condition(live: Live, _now: datetime | None) -> ObjectStatus:
    ready = conditions_of(live).get("Ready")
    if ready is None or ready.get("status") == "True":
        return healthy("It is there." if ready is None else "It is ready.")
    return progressing(f"It is not ready: {said_by(ready)}")


# Every other kind, Ingress among them, is judged by its Ready condition, if it has one.
_RULES: Final[Mapping[tuple[str, str], Callable[[Live, datetime | None], ObjectStatus]]] = {
    ("", "ConfigMap"): _always,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "Pod"): status_of_pod,
    ("", "Secret"): _always,
    ("", "Service"): _service,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
    ("apps", "DaemonSet"): _daemon_set,
    ("apps", "Deployment"): _deployment,
    ("apps", "ReplicaSet"): _replica_set,
    ("apps", "StatefulSet"): _stateful_set,
    ("batch", "CronJob"): _cron_job,
    ("batch", "Job"): _job,
    ("policy", "PodDisruptionBudget"): _always,
}


def _too_few(what: str, count: int, wanted: int) -> ObjectStatus | None:
    return progressing(f"{count} of {wanted} pods {what}.") if count < wanted else None


def _too_many(count: int, wanted: int) -> ObjectStatus | None:
    return progressing(f"{count - wanted} old pods still end.") if count > wanted else None
