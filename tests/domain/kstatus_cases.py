"""Objects as API servers return them, and what is to be said of each."""

from datetime import UTC, datetime
from typing import Any

from domain.install import Health

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
JUST_NOW, LONG_AGO = "2026-05-04T11:59:50Z", "2026-05-04T11:50:00Z"

OK, MOVES, BAD, PAUSED = (
    Health.HEALTHY,
    Health.PROGRESSING,
    Health.DEGRADED,
    Health.SUSPENDED,
)

Json = dict[str, Any]


def live(kind: str, spec: Json | None = None, status: Json | None = None, **more: Any) -> Json:  # noqa: ANN401 - metadata
    """Return an object as an API server returns it."""
    versions = {
        "Deployment": "apps/v1",
        "ReplicaSet": "apps/v1",
        "StatefulSet": "apps/v1",
        "DaemonSet": "apps/v1",
        "Job": "batch/v1",
        "CronJob": "batch/v1",
        "Ingress": "networking.k8s.io/v1",
        "PodDisruptionBudget": "policy/v1",
        "CustomResourceDefinition": "apiextensions.k8s.io/v1",
        "Certificate": "cert-manager.io/v1",
    }
    return {
        "apiVersion": versions.get(kind, "v1"),
        "kind": kind,
        "metadata": {"name": "web", "uid": f"{kind}-uid", "generation": 2, **more},
        "spec": spec or {},
        "status": status or {},
    }


def condition(kind: str, status: str = "True", reason: str = "", message: str = "") -> Json:
    return {"type": kind, "status": status, "reason": reason, "message": message}


AVAILABLE = condition("Available", reason="MinimumReplicasAvailable")
DONE = condition("Progressing", reason="NewReplicaSetAvailable")
STARTS = condition("Progressing", reason="ReplicaSetUpdated")
OVERDUE = condition("Progressing", "False", "ProgressDeadlineExceeded", "timed out progressing")


def deployment(*conditions: Json, spec: Json | None = None, **counts: int) -> Json:
    full = {"replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3}
    status = {**full, **counts, "conditions": list(conditions)}
    status.setdefault("observedGeneration", 2)
    return live(
        "Deployment", {"replicas": 3, "progressDeadlineSeconds": 600, **(spec or {})}, status
    )


def workload(kind: str, spec: Json | None = None, **counts: Any) -> Json:  # noqa: ANN401 - fields of a status
    return live(kind, spec, {"observedGeneration": 2, **counts})


def waiting(reason: str, **more: Any) -> Json:  # noqa: ANN401 - fields of a container
    return {
        "name": "app",
        "state": {"waiting": {"reason": reason, "message": "it is so"}},
        "lastState": {"terminated": {"reason": "Error", "exitCode": 1, "message": "canary"}},
        **more,
    }


def pod(phase: str = "Running", *containers: Json, since: str = LONG_AGO, **status: Any) -> Json:  # noqa: ANN401 - fields of a status
    fields = {"phase": phase, "startTime": since, "containerStatuses": list(containers), **status}
    return live("Pod", status=fields)


def definition(*conditions: Json) -> Json:
    return live("CustomResourceDefinition", status={"conditions": list(conditions)})


def of_someones(*conditions: Json, **status: Any) -> Json:  # noqa: ANN401 - fields of a status
    return live("Certificate", status={"conditions": list(conditions), **status})


FULL_SET: Json = {"replicas": 2, "readyReplicas": 2, "updatedReplicas": 2}
FULL_DAEMONS: Json = {
    "desiredNumberScheduled": 2,
    "currentNumberScheduled": 2,
    "updatedNumberScheduled": 2,
    "numberAvailable": 2,
    "numberReady": 2,
}
ON_DELETE: Json = {"updateStrategy": {"type": "OnDelete"}}
TWO = {"replicas": 2}
UNSCHEDULABLE = [condition("PodScheduled", "False", "Unschedulable", "0/0 nodes are available")]

CASES: list[tuple[str, Json, Health, str]] = [
    ("deployment", deployment(AVAILABLE, DONE), OK, "3 of 3"),
    (
        "deployment without a deadline",
        deployment(AVAILABLE, spec={"progressDeadlineSeconds": 2**31 - 1}),
        OK,
        "",
    ),
    ("deployment that is new", live("Deployment", {"replicas": 3}), MOVES, "0 of 3 pods exist"),
    (
        "deployment with few updated",
        deployment(AVAILABLE, STARTS, updatedReplicas=1),
        MOVES,
        "1 of 3 pods are of",
    ),
    ("deployment with old pods", deployment(AVAILABLE, STARTS, replicas=4), MOVES, "1 old pods"),
    (
        "deployment with few available",
        deployment(AVAILABLE, DONE, availableReplicas=2),
        MOVES,
        "2 of 3 pods are av",
    ),
    (
        "deployment with few ready",
        deployment(AVAILABLE, DONE, readyReplicas=2),
        MOVES,
        "2 of 3 pods are re",
    ),
    ("deployment that just started", deployment(AVAILABLE, STARTS), MOVES, "newest ReplicaSet"),
    ("deployment not available", deployment(DONE), MOVES, "not available"),
    (
        "deployment unseen",
        deployment(AVAILABLE, DONE, observedGeneration=1),
        MOVES,
        "generation 2, seen 1",
    ),
    ("deployment overdue", deployment(AVAILABLE, OVERDUE), BAD, "timed out progressing"),
    ("deployment paused", deployment(AVAILABLE, DONE, spec={"paused": True}), PAUSED, "paused"),
    (
        "deployment of none",
        deployment(
            AVAILABLE,
            DONE,
            spec={"replicas": 0},
            replicas=0,
            updatedReplicas=0,
            readyReplicas=0,
            availableReplicas=0,
        ),
        OK,
        "0 of 0",
    ),
    (
        "replica set",
        workload(
            "ReplicaSet",
            TWO,
            replicas=2,
            fullyLabeledReplicas=2,
            availableReplicas=2,
            readyReplicas=2,
        ),
        OK,
        "",
    ),
    (
        "replica set that may not",
        workload(
            "ReplicaSet", TWO, conditions=[condition("ReplicaFailure", message="exceeded quota")]
        ),
        MOVES,
        "exceeded quota",
    ),
    (
        "replica set with few",
        workload("ReplicaSet", TWO, replicas=1, fullyLabeledReplicas=1),
        MOVES,
        "1 of 2",
    ),
    ("stateful set", workload("StatefulSet", TWO, **FULL_SET), OK, "2 of 2"),
    (
        "stateful set with few",
        workload("StatefulSet", TWO, **{**FULL_SET, "replicas": 1}),
        MOVES,
        "1 of 2 pods exist",
    ),
    (
        "stateful set not ready",
        workload("StatefulSet", TWO, **{**FULL_SET, "readyReplicas": 1}),
        MOVES,
        "1 of 2",
    ),
    (
        "stateful set that shrinks",
        workload("StatefulSet", TWO, **{**FULL_SET, "replicas": 3}),
        MOVES,
        "old",
    ),
    (
        "stateful set that updates",
        workload("StatefulSet", TWO, **{**FULL_SET, "updatedReplicas": 1}),
        MOVES,
        "1 of 2",
    ),
    (
        "stateful set in parts",
        workload(
            "StatefulSet",
            {**TWO, "updateStrategy": {"rollingUpdate": {"partition": 1}}},
            **{**FULL_SET, "updatedReplicas": 1},
        ),
        OK,
        "",
    ),
    ("stateful set by hand", workload("StatefulSet", {**TWO, **ON_DELETE}), OK, "deletes"),
    ("daemon set", workload("DaemonSet", **FULL_DAEMONS), OK, "2 nodes"),
    ("daemon set unseen", live("DaemonSet"), MOVES, "not seen it"),
    (
        "daemon set with few",
        workload("DaemonSet", **{**FULL_DAEMONS, "numberReady": 1}),
        MOVES,
        "1 of 2",
    ),
    (
        "daemon set that updates",
        workload("DaemonSet", **{**FULL_DAEMONS, "updatedNumberScheduled": 0}),
        MOVES,
        "0 of",
    ),
    (
        "daemon set by hand",
        workload("DaemonSet", ON_DELETE, **{**FULL_DAEMONS, "updatedNumberScheduled": 0}),
        OK,
        "",
    ),
    ("job complete", live("Job", status={"conditions": [condition("Complete")]}), OK, "complete"),
    (
        "job failed",
        live("Job", status={"conditions": [condition("Failed", reason="BackoffLimitExceeded")]}),
        BAD,
        "BackoffLimitExceeded",
    ),
    (
        "job about to fail",
        live("Job", status={"conditions": [condition("FailureTarget", message="limit")]}),
        BAD,
        "",
    ),
    ("job suspended", live("Job", status={"conditions": [condition("Suspended")]}), PAUSED, ""),
    ("job that runs", live("Job", status={"startTime": LONG_AGO, "active": 1}), OK, "1 active"),
    ("job that is new", live("Job"), MOVES, "not started"),
    ("cron job", live("CronJob"), OK, ""),
    ("cron job suspended", live("CronJob", {"suspend": True}), PAUSED, ""),
    ("pod ready", pod(conditions=[condition("Ready")]), OK, ""),
    ("pod complete", pod("Succeeded"), OK, ""),
    ("pod failed", pod("Failed", reason="Evicted"), BAD, "Evicted"),
    ("pod not ready", pod(conditions=[condition("Ready", "False")]), MOVES, "not ready"),
    ("pod that is new", pod("Pending"), MOVES, "not started"),
    ("pod without a node", pod("Pending", conditions=UNSCHEDULABLE), MOVES, "0/0 nodes"),
    (
        "pod that crashed once",
        pod("Running", waiting("CrashLoopBackOff", restartCount=1)),
        MOVES,
        "crashed 1",
    ),
    (
        "pod that crashes",
        pod("Running", waiting("CrashLoopBackOff", restartCount=3)),
        BAD,
        "exit code 1",
    ),
    (
        "pod whose first container crashes",
        pod("Pending", initContainerStatuses=[waiting("CrashLoopBackOff", restartCount=5)]),
        BAD,
        "crashed 5",
    ),
    (
        "pod that pulls",
        pod("Pending", waiting("ImagePullBackOff"), since=JUST_NOW),
        MOVES,
        "ImagePullBackOff",
    ),
    (
        "pod that cannot pull",
        pod("Pending", waiting("ImagePullBackOff")),
        BAD,
        "ImagePullBackOff): it is so.",
    ),
    (
        "pod without its secret",
        pod("Pending", waiting("CreateContainerConfigError")),
        BAD,
        "ConfigError",
    ),
    (
        "pod with a wrong name",
        pod("Pending", waiting("InvalidImageName"), since=JUST_NOW),
        BAD,
        "InvalidImageName",
    ),
    (
        "pod with a good container and a bad one",
        pod("Pending", waiting("ErrImagePull"), waiting("InvalidImageName"), since=JUST_NOW),
        BAD,
        "InvalidImageName",
    ),
    ("claim", live("PersistentVolumeClaim", status={"phase": "Bound"}), OK, ""),
    (
        "claim that waits",
        live("PersistentVolumeClaim", status={"phase": "Pending"}),
        MOVES,
        "Pending",
    ),
    ("claim that lost", live("PersistentVolumeClaim", status={"phase": "Lost"}), BAD, "gone"),
    ("service", live("Service", {"type": "ClusterIP"}), OK, ""),
    ("load balancer", live("Service", {"type": "LoadBalancer", "clusterIP": "10.96.0.9"}), OK, ""),
    ("load balancer that is new", live("Service", {"type": "LoadBalancer"}), MOVES, "no address"),
    (
        "budget",
        live("PodDisruptionBudget", status={"currentHealthy": 0, "desiredHealthy": 2}),
        OK,
        "",
    ),
    ("definition", definition(condition("NamesAccepted"), condition("Established")), OK, ""),
    (
        "definition that is new",
        definition(condition("Established", "False", "Installing")),
        MOVES,
        "",
    ),
    (
        "definition in the way",
        definition(condition("NamesAccepted", "False", message="in use")),
        BAD,
        "in use",
    ),
    (
        "definition refused",
        definition(condition("Established", "False", "NotAccepted")),
        BAD,
        "NotAccepted",
    ),
    ("ingress", live("Ingress"), OK, ""),
    ("config map", live("ConfigMap"), OK, ""),
    ("someone's kind without conditions", of_someones(), OK, ""),
    (
        "someone's kind with odd conditions",
        live("Certificate", status={"conditions": "none"}),
        OK,
        "",
    ),
    ("someone's kind ready", of_someones(condition("Ready")), OK, ""),
    (
        "someone's kind not ready",
        of_someones(condition("Ready", "False", "Issuing")),
        MOVES,
        "Issuing",
    ),
    ("someone's kind undecided", of_someones(condition("Ready", "Unknown")), MOVES, ""),
    (
        "someone's kind at work",
        of_someones(condition("Ready"), condition("Reconciling")),
        MOVES,
        "",
    ),
    (
        "someone's kind stuck",
        of_someones(condition("Reconciling"), condition("Stalled", message="no")),
        BAD,
        "no",
    ),
    (
        "someone's kind unseen",
        of_someones(condition("Ready"), observedGeneration=1),
        MOVES,
        "generation",
    ),
    ("what is deleted", live("ConfigMap", deletionTimestamp=LONG_AGO), MOVES, "deleted"),
]
