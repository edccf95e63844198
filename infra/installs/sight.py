"""What a cluster shows of an install's objects: one list for each kind, not a request for each."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from domain.errors import BulkheadError, Reason
from domain.install import Health, Sync
from domain.kstatus import MISSING, ObjectStatus, overall, status_of, status_with_pods
from domain.live_object import group_of
from infra.helm.manifest import hooks_of, key_of, named
from infra.kubernetes.client import KubernetesClient, Object
from infra.kubernetes.discovery import ApiResource, Discovery

# Of these only whether they are there matters, and they may be large, or nobody's business.
_ONLY_METADATA: Final = frozenset({("v1", "ConfigMap"), ("v1", "Secret")})

# What makes pods that may say more than it does itself.
_WORKLOADS: Final = frozenset(
    {
        ("apps", "DaemonSet"),
        ("apps", "Deployment"),
        ("apps", "ReplicaSet"),
        ("apps", "StatefulSet"),
        ("batch", "Job"),
    }
)

# In a row. What has more objects than this is looked at as a whole, and shown in part.
_MOST_RESOURCES: Final = 500


@dataclass(frozen=True, slots=True)
class Seen:
    """One object of an install after a look.

    Attributes:
        wanted: `apiVersion`, `kind` and `metadata` with `name` and `namespace`, as rendered.
        live: as it is in the cluster, None when it is not. Of what `status` does not depend on,
            such as the data of a Secret, nothing is in it.
        status: how it is.
    """

    wanted: Object
    live: Object | None
    status: ObjectStatus


def references_to(manifest: Sequence[Object]) -> tuple[Object, ...]:
    """Return what a look needs of a render's objects; hooks are gone once they have run."""
    return tuple(
        {
            "apiVersion": one["apiVersion"],
            "kind": one["kind"],
            "metadata": {
                key: one["metadata"][key]
                for key in ("name", "namespace")
                if one["metadata"].get(key) is not None
            },
        }
        for one in manifest
        if not hooks_of(one)
    )


def look_at_objects(
    client: KubernetesClient,
    discovery: Discovery,
    manifest: Sequence[Object],
    namespace: str,
    now: datetime,
) -> list[Seen]:
    """Return how each object of a render is, in the order of the render and without its hooks.

    A kind that the API server cannot list, because an aggregated one is down, is Unknown.

    Args:
        client: of the cluster.
        discovery: of the same.
        manifest: the objects of a render; of each, its kind and name are enough.
        namespace: of the install.
        now: the moment of the look.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when the API server does not answer,
            PERMISSION_DENIED when it does not let us look.
    """
    wanted = references_to(manifest)
    if not wanted:
        # Nothing to look for is seen only where somebody answers.
        client.find(f"/api/v1/namespaces/{namespace}")
    by_kind: dict[tuple[str, str], list[Object]] = defaultdict(list)
    for one in wanted:
        by_kind[one["apiVersion"], one["kind"]].append(one)
    found: dict[tuple[str, str, str], Object] = {}
    unknown: dict[tuple[str, str], ObjectStatus] = {}
    for kind, objects in by_kind.items():
        try:
            for live in _find(client, discovery.find(*kind), objects, namespace):
                found[*kind, live["metadata"]["name"]] = live
        except BulkheadError as error:
            # It answered, and only this kind is out of reach.
            if error.reason is not Reason.DEPENDENCY_UNAVAILABLE or "status" not in error.metadata:
                raise
            unknown[kind] = ObjectStatus(Health.UNKNOWN, error.message)
    seen = []
    pods = _Pods(client, namespace)
    for one in wanted:
        kind = (one["apiVersion"], one["kind"])
        of_this = found.get((*kind, one["metadata"]["name"]))
        status = unknown.get(kind) or (MISSING if of_this is None else pods.judge(of_this, now))
        seen.append(Seen(one, of_this, status))
    return seen


def health_of(seen: Sequence[Seen]) -> ObjectStatus:
    """Return how an install is as a whole."""
    return overall({named(one.wanted): one.status for one in seen})


def resources_of(seen: Sequence[Seen], drifted: frozenset[str]) -> list[dict[str, Any]]:
    """Return the contract's ResourceStatus of each object.

    Args:
        seen: what a look found.
        drifted: the keys of the objects that are known to differ from the render.
    """
    return [_resource(one, key_of(one.wanted) in drifted) for one in seen[:_MOST_RESOURCES]]


class _Pods:
    """The pods of a namespace, asked for when something in it is not done."""

    def __init__(self, client: KubernetesClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._found: tuple[list[Object], list[Object]] | None = None

    def judge(self, live: Object, now: datetime) -> ObjectStatus:
        status = status_of(live, now)
        kind = (group_of(live), live["kind"])
        if status.health is not Health.PROGRESSING or kind not in _WORKLOADS:
            return status
        if self._found is None:
            # What lists leave out, and a pod is judged by.
            missing = {"apiVersion": "v1", "kind": "Pod"}
            listed = self._client.list_all(f"/api/v1/namespaces/{self._namespace}/pods")
            pods = [{**missing, **pod} for pod in listed]
            sets = self._client.list_all(f"/apis/apps/v1/namespaces/{self._namespace}/replicasets")
            self._found = pods, sets
        return status_with_pods(live, *self._found, now)


def _find(
    client: KubernetesClient,
    resource: ApiResource | None,
    wanted: Sequence[Object],
    namespace: str,
) -> list[Object]:
    """Return those of one kind that are there, with what lists leave out."""
    if resource is None:
        return []
    names = {one["metadata"]["name"] for one in wanted}
    kind = {"apiVersion": resource.api_version, "kind": resource.kind}
    bare = (resource.api_version, resource.kind) in _ONLY_METADATA
    # Of cluster scope most are strangers; in the namespace there are hardly any.
    if not resource.namespaced or (len(names) == 1 and not bare):
        paths = [resource.path(name, namespace) for name in names]
        return [live for path in paths if (live := client.find(path)) is not None]
    collection = resource.collection(namespace)
    try:
        listed = client.list_metadata(collection) if bare else client.list_all(collection)
    except BulkheadError as error:
        # The kind was served when it was discovered.
        if error.reason is Reason.NOT_FOUND:
            return []
        raise
    return [{**live, **kind} for live in listed if live["metadata"]["name"] in names]


def _resource(one: Seen, drifted: bool) -> dict[str, Any]:  # noqa: FBT001 - read at one place
    metadata = one.wanted["metadata"]
    missing = one.status.health is Health.MISSING
    sync = Sync.OUT_OF_SYNC if missing or drifted else Sync.SYNCED
    found: dict[str, Any] = {
        "group": group_of(one.wanted),
        "version": one.wanted["apiVersion"].rpartition("/")[2],
        "kind": one.wanted["kind"],
        "name": metadata["name"],
        "status": Sync.UNKNOWN if one.status.health is Health.UNKNOWN else sync,
        "health": {"status": one.status.health, "message": one.status.reason},
    }
    if metadata.get("namespace"):
        found["namespace"] = metadata["namespace"]
    return found
