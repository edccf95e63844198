"""An install's namespace and the users that may act for it there.

All of it is made and removed by the platform's administrator; each user is a client certificate
that is made when it is needed (`HostClusters.login_as`), and has what the bindings here give it.
"""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError, Reason
from domain.identifiers import opaque_part
from domain.names import (
    cluster_objects_user_of,
    install_namespace_of,
    install_reader_of,
    install_user_of,
)
from domain.pod_security import POD_SECURITY_VERSION, PodSecurity
from domain.secret_use import is_object_name
from infra.helm.program import ClusterAccess
from infra.helm.releases import Release
from infra.kubernetes.client import DEPENDENCY, KubernetesClient, Object
from infra.kubernetes.install_namespaces import INSTALL_LABEL, POD_SECURITY
from infra.kubernetes.manifest import RBAC, KeptObject, binding, role, user
from infra.machines.clusters import HostClusters

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
PLATFORM: Final = "bulkhead"

_DEPLOYER: Final = "bulkhead-deployer"
_READER: Final = "bulkhead-reader"
# Of pods that name no other.
_SERVICE_ACCOUNT: Final = "default"

_REVIEWS: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_RIGHTS_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.05

_UNPROCESSABLE: Final = "422"

Rules = list[dict[str, list[str]]]


def release_of(install_id: str) -> Release:
    """Return the helm release that an install is."""
    space = install_namespace_of(install_id)
    return Release(space, space)


async def access_of(
    clusters: HostClusters, plane: HostedControlPlane, install_id: str
) -> ClusterAccess:
    """Return how helm reaches the cluster: as the user with the rights of the namespace alone."""
    login = await clusters.login_as(plane, install_user_of(install_id))
    return ClusterAccess(clusters.url_of(plane), login)


def labels_of(install_id: str) -> dict[str, str]:
    """Return the labels of what is an install's outside of its namespace."""
    return {MANAGED_BY: PLATFORM, INSTALL_LABEL: opaque_part(install_id)}


def prepare_namespace(
    client: KubernetesClient, install_id: str, level: PodSecurity = PodSecurity.BASELINE
) -> None:
    """Make the namespace, and give the install's users their rights in it; repeatable.

    Args:
        client: the platform's administrator.
        install_id: whose namespace it is.
        level: what its pods may ask of their nodes.

    Raises:
        BulkheadError: CONFLICT, worth another try, while an earlier namespace of the name ends;
            DEPENDENCY_UNAVAILABLE, also while the API server does not know the rights yet.
    """
    space = install_namespace_of(install_id)
    path = f"/api/v1/namespaces/{space}"
    found = client.find(path)
    if found is not None and "deletionTimestamp" in found["metadata"]:
        raise BulkheadError(
            Reason.CONFLICT,
            f"The namespace {space} is being removed; it is made again after that.",
            retryable=True,
        )
    security = {
        f"{POD_SECURITY}enforce": str(level),
        f"{POD_SECURITY}enforce-version": POD_SECURITY_VERSION,
    }
    labels = {**labels_of(install_id), **security}
    if found is None or not labels.items() <= (found["metadata"].get("labels") or {}).items():
        metadata = {"name": space, "labels": labels}
        client.apply(path, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    if found is None:
        _make_service_account(client, space)
    rights = _rights(install_id)
    # Each is two to four milliseconds of the API server's, most of which is etcd's disk.
    with ThreadPoolExecutor(len(rights)) as pool:
        list(pool.map(lambda kept: _ensure(client, kept, is_new=found is None), rights))
    if found is None:
        _await_rights(client, install_id)


def _make_service_account(client: KubernetesClient, space: str) -> None:
    # The controller makes it too, a moment later: until then the API server refuses every pod, and
    # a chart with a bare one would fail in its plan.
    account: Object = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": _SERVICE_ACCOUNT},
    }
    try:
        client.create(f"/api/v1/namespaces/{space}/serviceaccounts", account)
    except BulkheadError as error:
        if error.reason is not Reason.CONFLICT:
            raise


def _await_rights(client: KubernetesClient, install_id: str) -> None:
    # The API server decides by what its watch has told it, which is later than what is stored;
    # helm would end with "forbidden", as if that were the chart's fault.
    space = install_namespace_of(install_id)
    question: Object = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": install_user_of(install_id),
            "resourceAttributes": {
                "namespace": space,
                "verb": "*",
                "group": "*",
                "resource": "*",
            },
        },
    }
    deadline = time.monotonic() + _RIGHTS_SECONDS
    while not client.create(_REVIEWS, question)["status"]["allowed"]:
        if time.monotonic() > deadline:
            raise BulkheadError(
                Reason.DEPENDENCY_UNAVAILABLE,
                f"The cluster's API server does not see the rights of {space} yet; it is asked "
                "again.",
                metadata={**DEPENDENCY},
            )
        time.sleep(_POLL_SECONDS)


def refuse_reserved(manifests: Iterable[Object]) -> None:
    """Refuse objects that would take the place of what the platform keeps in a namespace.

    Raises:
        BulkheadError: INVALID_ARGUMENT, with the first of them.
    """
    for found in manifests:
        kind, name = found["kind"], found["metadata"]["name"]
        is_of_rights = found["apiVersion"].startswith(f"{RBAC}/") and name in {_DEPLOYER, _READER}
        if is_of_rights or (kind == "Secret" and is_object_name(name)):
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                f"The chart's {kind} {name} has the name of what the platform keeps in an "
                "install's namespace. Give it another one.",
            )


def is_prepared(client: KubernetesClient, install_id: str) -> bool:
    """Tell whether the namespace is there, and not about to go."""
    found = client.find(f"/api/v1/namespaces/{install_namespace_of(install_id)}")
    return found is not None and "deletionTimestamp" not in found["metadata"]


def remove_namespace(client: KubernetesClient, install_id: str) -> str | None:
    """Have the namespace go; return what it waits for in words, None when it is gone."""
    path = f"/api/v1/namespaces/{install_namespace_of(install_id)}"
    found = client.find(path)
    if found is None:
        return None
    if "deletionTimestamp" not in found["metadata"]:
        client.delete(path, uid=found["metadata"]["uid"])
        found = client.find(path)
        if found is None:
            return None
    return _obstacles_of(found) or "the namespace's objects to end"


def forget_pods(client: KubernetesClient, install_id: str) -> None:
    """Forget the pods of a namespace that goes, whose kubelets do not say that they ended."""
    pods = f"/api/v1/namespaces/{install_namespace_of(install_id)}/pods"
    for pod in client.list_all(pods):
        metadata = pod["metadata"]
        if "deletionTimestamp" in metadata:
            client.delete(f"{pods}/{metadata['name']}", grace_seconds=0)


def grant_cluster_rights(client: KubernetesClient, install_id: str, rules: Rules) -> None:
    """Give the second user the rights that an approved plan needs, until they are withdrawn."""
    for kept in _cluster_rights(install_id, rules):
        client.apply(kept.path, kept.manifest)


def withdraw_cluster_rights(client: KubernetesClient, install_id: str) -> None:
    """Take the second user's rights; what is not there is fine."""
    for kept in reversed(_cluster_rights(install_id, [])):
        client.delete(kept.path)


def remains_of(client: KubernetesClient, install_id: str) -> dict[str, list[str]]:
    """Return what is left of an install's identities and namespace, by kind."""
    space = install_namespace_of(install_id)
    rights = [kept for kept in _cluster_rights(install_id, []) if client.find(kept.path)]
    return {
        "namespace": [space] if client.find(f"/api/v1/namespaces/{space}") else [],
        "cluster_rights": [f"{kept.kind}/{kept.name}" for kept in rights],
    }


def _ensure(client: KubernetesClient, kept: KeptObject, *, is_new: bool) -> None:
    if is_new or not _is_there(client, kept):
        _keep(client, kept)


def _is_there(client: KubernetesClient, kept: KeptObject) -> bool:
    # Reading is a tenth of the work of an apply that changes nothing.
    live = client.find(kept.path)
    return live is not None and all(live.get(name) == what for name, what in kept.content.items())


def _keep(client: KubernetesClient, kept: KeptObject) -> None:
    try:
        client.apply(kept.path, kept.manifest)
    except BulkheadError as error:
        if error.metadata.get("status") != _UNPROCESSABLE:
            raise
        # Whatever runs in the namespace may have bound another role here, which never changes.
        client.delete(kept.path)
        client.apply(kept.path, kept.manifest)


def _rights(install_id: str) -> list[KeptObject]:
    space = install_namespace_of(install_id)
    everything = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    reads = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ]
    return [
        role(_DEPLOYER, everything, namespace=space),
        binding(
            _DEPLOYER, role=_DEPLOYER, subject=user(install_user_of(install_id)), namespace=space
        ),
        role(_READER, reads, namespace=space),
        binding(
            _READER, role=_READER, subject=user(install_reader_of(install_id)), namespace=space
        ),
    ]


def _cluster_rights(install_id: str, rules: Rules) -> list[KeptObject]:
    name = f"bulkhead:{install_namespace_of(install_id)}"
    subject = user(cluster_objects_user_of(install_id))
    return [role(name, rules), binding(name, cluster_role=name, subject=subject)]


def _obstacles_of(namespace: Object) -> str | None:
    conditions = (namespace.get("status") or {}).get("conditions") or []
    said = [
        str(condition.get("message", ""))
        for condition in conditions
        if condition.get("status") == "True"
    ]
    return "; ".join(filter(None, said)) or None
