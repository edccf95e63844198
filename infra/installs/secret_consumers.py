"""Has the pods of an install take over what was written into their Kubernetes Secrets.

What a pod has in its environment it has until it ends: such workloads get another annotation on
their template, and roll over as their own strategy says. Pods of Jobs, of operators and of nobody
are waited for until they end. What is mounted is brought up to date by kubelets, which cannot be
asked when they have done so.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from domain.install import Health
from domain.kstatus import status_with_pods
from domain.names import install_namespace_of, install_user_of
from domain.owned_operation import InstallOperation
from domain.secret_consumers import mounted, taken_at_start, template_of
from infra.database.tables import InstallSecretRow
from infra.installs.secret_objects import SECRETS_MANAGER
from infra.kubernetes.client import KubernetesClient, Object
from infra.machines.clusters import HostClusters

# Kubelets look at the volumes of a pod each minute, and at most half of one later; what they know
# of a Secret is at most a watch's delay behind.
REFRESHED_WITHIN: Final = timedelta(seconds=100)

# On the template of a workload that was made to start its pods anew.
_VERSIONS: Final = "bulkhead.io/secret-versions"

# What is in the environment of such pods is gone.
_ENDED: Final = frozenset({"Succeeded", "Failed"})

_WORKLOADS: Final = {
    "Deployment": "deployments",
    "StatefulSet": "statefulsets",
    "DaemonSet": "daemonsets",
}


@dataclass(frozen=True, slots=True)
class _Sight:
    """What is in an install's namespace at one moment."""

    workloads: Sequence[Object]
    replica_sets: Sequence[Object]
    pods: Sequence[Object]


@dataclass(frozen=True, slots=True)
class _Restart:
    """A workload some of whose pods started with older values, and what they take."""

    workload: Object
    written: Sequence[InstallSecretRow]


class SecretConsumers:
    """Looks after the consumers of secrets in the installs on one host's clusters.

    Args:
        clusters: of the host.
        refreshed_within: how long kubelets take for what is mounted.
    """

    def __init__(
        self, clusters: HostClusters, refreshed_within: timedelta = REFRESHED_WITHIN
    ) -> None:
        self._clusters = clusters
        self._refreshed_within = refreshed_within

    async def look(
        self, operation: InstallOperation, written: Sequence[InstallSecretRow]
    ) -> list[str]:
        """Start anew what must be; return who does not work with what was written yet, and why.

        Raises:
            BulkheadError: as `KubernetesClient`.
        """
        written = [one for one in written if one.synced_at is not None]
        if not written:
            return []
        space = install_namespace_of(operation.install_id)
        sight = await self._clusters.ask(
            operation.control_plane, lambda client: _look(client, space)
        )
        waiting: list[str] = []
        stale: list[_Restart] = []
        for workload in sight.workloads:
            started = _of(written, taken_at_start(template_of(workload)))
            older = _older(_pods_of(workload, sight), started)
            if older and not _has_versions(template_of(workload), started):
                stale.append(_Restart(workload, started))
            reason = (
                f"{len(older)} of its pods started before"
                if older
                else self._unready(workload, sight, started)
                or self._unrefreshed(_pods_of(workload, sight), template_of(workload), written)
            )
            if reason is not None:
                waiting.append(f"{workload['kind']} {workload['metadata']['name']}: {reason}")
        if stale:
            user = install_user_of(operation.install_id)
            await self._clusters.ask_as(
                operation.control_plane, user, lambda client: _restart_all(client, stale)
            )
        return waiting + self._waiting_alone(sight, written)

    def _waiting_alone(self, sight: _Sight, written: Sequence[InstallSecretRow]) -> list[str]:
        """Return which pods of no workload do not work with what was written, by their owners."""
        waiting: dict[tuple[str, str], str] = {}
        older: Counter[tuple[str, str]] = Counter()
        for pod in _alone(sight):
            owner = _owner_of(pod)
            if _older([pod], _of(written, taken_at_start(pod))):
                older[owner] += 1
                waiting[owner] = (
                    "it started before, and nothing starts it anew"
                    if owner[0] == "Pod"
                    else f"{older[owner]} of its pods started before, and nothing starts them anew"
                )
            elif owner not in older and (reason := self._unrefreshed([pod], pod, written)):
                waiting[owner] = reason
        return [f"{kind} {name}: {reason}" for (kind, name), reason in waiting.items()]

    def _unready(
        self, workload: Object, sight: _Sight, started: Sequence[InstallSecretRow]
    ) -> str | None:
        if not started or not _has_versions(template_of(workload), started):
            return None
        status = status_with_pods(workload, sight.pods, sight.replica_sets, datetime.now(UTC))
        return None if status.health is Health.HEALTHY else status.reason

    def _unrefreshed(
        self,
        pods: Sequence[Object],
        template: Mapping[str, Any],
        written: Sequence[InstallSecretRow],
    ) -> str | None:
        volumes = _of(written, mounted(template))
        if not _older(pods, volumes):
            return None
        newest = max(one.synced_at for one in volumes if one.synced_at is not None)
        if datetime.now(UTC) - newest >= self._refreshed_within:
            return None
        return "kubelets bring its volumes up to date"


def _look(client: KubernetesClient, space: str) -> _Sight:
    apps, core = f"/apis/apps/v1/namespaces/{space}", f"/api/v1/namespaces/{space}"
    workloads = [
        # What a list returns does not say of which kind its items are.
        {"apiVersion": "apps/v1", "kind": kind, **found}
        for kind, plural in _WORKLOADS.items()
        for found in client.list_all(f"{apps}/{plural}")
    ]
    return _Sight(
        workloads, client.list_all(f"{apps}/replicasets"), client.list_all(f"{core}/pods")
    )


def _pods_of(workload: Object, sight: _Sight) -> list[Object]:
    """Return the pods of every revision that are not about to end anyway."""
    owners = {workload["metadata"]["uid"]}
    owners |= {one["metadata"]["uid"] for one in sight.replica_sets if _is_owned(one, owners)}
    return [
        pod
        for pod in sight.pods
        if _is_owned(pod, owners) and "deletionTimestamp" not in pod["metadata"]
    ]


def _alone(sight: _Sight) -> list[Object]:
    """Return the pods of no workload that a kubelet has begun, and that have not ended."""
    of_workloads = {
        pod["metadata"]["uid"] for workload in sight.workloads for pod in _pods_of(workload, sight)
    }
    return [
        pod
        for pod in sight.pods
        if pod["metadata"]["uid"] not in of_workloads
        and "deletionTimestamp" not in pod["metadata"]
        and "startTime" in pod["status"]
        and pod["status"].get("phase") not in _ENDED
    ]


def _owner_of(pod: Object) -> tuple[str, str]:
    """Return kind and name of what made a pod: of itself, where nothing did."""
    for reference in pod["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return str(reference["kind"]), str(reference["name"])
    return "Pod", str(pod["metadata"]["name"])


def _is_owned(one: Object, owners: set[str]) -> bool:
    return any(
        reference.get("uid") in owners for reference in one["metadata"].get("ownerReferences") or ()
    )


def _of(written: Iterable[InstallSecretRow], names: frozenset[str]) -> list[InstallSecretRow]:
    return [one for one in written if one.object_name in names]


def _older(pods: Iterable[Object], written: Sequence[InstallSecretRow]) -> list[Object]:
    """Return the pods that may have started with what was there before."""
    moments = [one.synced_at for one in written if one.synced_at is not None]
    if not moments:
        return []
    # API servers count in whole seconds; what was started anew for these says so.
    newest = max(moments).replace(microsecond=0)
    return [
        pod
        for pod in pods
        if datetime.fromisoformat(pod["metadata"]["creationTimestamp"]) <= newest
        and not _has_versions(pod, written)
    ]


def _digest(written: Iterable[InstallSecretRow]) -> str:
    # With the time: a version can become current a second time.
    versions = sorted(
        f"{one.object_name}={one.synced_version_id}@{one.synced_at}" for one in written
    )
    return hashlib.sha256("\n".join(versions).encode()).hexdigest()[:32]


def _has_versions(pod: Mapping[str, Any], written: Sequence[InstallSecretRow]) -> bool:
    """Tell whether a pod, or a template of pods, is of after these were written."""
    metadata: Mapping[str, Mapping[str, str]] = pod.get("metadata") or {}
    return (metadata.get("annotations") or {}).get(_VERSIONS) == _digest(written)


def _restart_all(client: KubernetesClient, stale: Sequence[_Restart]) -> None:
    for one in stale:
        metadata, kind = one.workload["metadata"], one.workload["kind"]
        annotations = {_VERSIONS: _digest(one.written)}
        client.apply(
            f"/apis/apps/v1/namespaces/{metadata['namespace']}/{_WORKLOADS[kind]}/{metadata['name']}",
            {
                "apiVersion": "apps/v1",
                "kind": kind,
                # This one only, and never its successor of the same name.
                "metadata": {"name": metadata["name"], "uid": metadata["uid"]},
                "spec": {"template": {"metadata": {"annotations": annotations}}},
            },
            manager=SECRETS_MANAGER,
        )
