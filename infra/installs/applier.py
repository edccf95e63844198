"""Applies and removes what of an install's objects helm does not.

Those of cluster scope, under the install's second identity, which has the rights of exactly these
objects for as long as it takes; and those of the release that must go before they come back.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError, Reason
from domain.names import cluster_objects_user_of, install_namespace_of
from infra.helm.manifest import key_of
from infra.installs.identities import (
    Rules,
    grant_cluster_rights,
    labels_of,
    withdraw_cluster_rights,
)
from infra.installs.planner import (
    CRD,
    as_cluster_object,
    is_of_another,
    kinds_brought_by,
    reference_of,
)
from infra.kubernetes.client import KubernetesClient, Object
from infra.kubernetes.discovery import ApiResource, Discovery
from infra.kubernetes.manifest import RBAC
from infra.machines.clusters import HostClusters

# CRDs answer within a second; an API server under load takes longer.
_ESTABLISHED_SECONDS: Final = 30.0
# Removed objects whose finalizers take longer are waited for by the next attempt.
_GONE_SECONDS: Final = 30.0
# API servers see a new binding within about a second.
_RIGHTS_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.2

_VERBS: Final = ["get", "create", "patch", "delete"]
# Everything else may need them.
_FIRST: Final = ("Namespace", CRD)

_BEHIND: Final = "Background"

Reference = Mapping[str, str]


class ClusterObjects:
    """Objects of cluster scope of the installs on one host's clusters."""

    def __init__(self, clusters: HostClusters) -> None:
        self._clusters = clusters

    async def apply(
        self, plane: HostedControlPlane, install_id: str, manifests: Sequence[Object]
    ) -> None:
        """Have the objects as they are rendered; CRDs are served when it returns.

        Raises:
            BulkheadError: FAILED_PRECONDITION for an object that another owner has; as
                `KubernetesClient` when the API server refuses one or does not answer.
        """
        if manifests:
            await self._as_second_user(
                plane,
                install_id,
                lambda client: _rights_to_apply(client, manifests),
                lambda client: _apply(client, install_id, manifests),
            )

    async def remove(
        self, plane: HostedControlPlane, install_id: str, references: Sequence[Reference]
    ) -> list[str]:
        """Have the objects gone that are the install's; return those that stay, and why.

        A CRD stays while others have objects of its kind, which would go with it.

        Raises:
            BulkheadError: CONFLICT, worth another try, while one of them ends; as
                `KubernetesClient`.
        """
        going, staying = await self._clusters.ask(
            plane, lambda client: _parted(client, install_id, references)
        )
        if going:
            await self._as_second_user(
                plane,
                install_id,
                lambda client: _rights_to_remove(client, going),
                lambda client: _remove(client, going),
            )
        return [
            f"{reference['kind']}/{reference['name']} stays: others have objects of its kind"
            for reference in staying
        ]

    async def left(
        self, plane: HostedControlPlane, install_id: str, references: Sequence[Reference]
    ) -> list[str]:
        """Return what is still there of the install among the objects, as names for a person."""
        found = await self._clusters.ask(plane, lambda client: _own(client, install_id, references))
        return [f"{reference['kind']}/{reference['name']}" for reference in found]

    async def withdraw_rights(self, plane: HostedControlPlane, install_id: str) -> None:
        """Take the second user's rights; what is not there is fine."""
        await self._clusters.ask(plane, lambda client: withdraw_cluster_rights(client, install_id))

    async def _as_second_user(
        self,
        plane: HostedControlPlane,
        install_id: str,
        rights: Callable[[KubernetesClient], Rules],
        work: Callable[[KubernetesClient], None],
    ) -> None:
        rules = await self._clusters.ask(plane, rights)
        await self._clusters.ask(
            plane, lambda client: grant_cluster_rights(client, install_id, rules)
        )
        try:
            user = cluster_objects_user_of(install_id)
            await self._clusters.ask_as(plane, user, lambda client: _patiently(client, work))
        finally:
            await self.withdraw_rights(plane, install_id)


def remove_release_objects(
    client: KubernetesClient, install_id: str, manifests: Iterable[Object]
) -> None:
    """Remove objects of the install's own namespace and wait until they are gone.

    Raises:
        BulkheadError: CONFLICT, worth another try, while one of them ends; as `KubernetesClient`.
    """
    space = install_namespace_of(install_id)
    discovery = Discovery(client)
    paths = [discovery.path_of(manifest, space) for manifest in manifests]
    going = [
        path for path in paths if path is not None and client.delete(path, propagation=_BEHIND)
    ]
    _await_gone(client, going)


def _apply(client: KubernetesClient, install_id: str, manifests: Sequence[Object]) -> None:
    discovery = Discovery(client)
    for manifest in sorted(manifests, key=lambda one: _turn_of(one["kind"])):
        path = discovery.path_of(manifest, "")
        if path is None:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"The cluster does not serve the kind of {key_of(manifest)}.",
                retryable=True,
            )
        live = client.find(path)
        if live is not None and is_of_another(live, install_id):
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"{key_of(manifest)} is on the cluster and not of this install.",
            )
        client.apply(path, as_cluster_object(manifest, install_id))
        if manifest["kind"] == CRD:
            _await_established(client, path)


def _turn_of(kind: str) -> int:
    return _FIRST.index(kind) if kind in _FIRST else len(_FIRST)


def _await_established(client: KubernetesClient, path: str) -> None:
    deadline = time.monotonic() + _ESTABLISHED_SECONDS
    while time.monotonic() < deadline:
        conditions = (client.get(path).get("status") or {}).get("conditions") or []
        if any((one["type"], one["status"]) == ("Established", "True") for one in conditions):
            return
        time.sleep(_POLL_SECONDS)
    raise BulkheadError(
        Reason.DEPENDENCY_UNAVAILABLE,
        f"The cluster does not serve {path.rpartition('/')[2]} yet; it is looked at again.",
    )


def _own(
    client: KubernetesClient, install_id: str, references: Sequence[Reference]
) -> list[Reference]:
    """Return those of the objects that are there and the install's."""
    discovery = Discovery(client)
    found = []
    for reference in references:
        path = _path_of(discovery, reference)
        live = None if path is None else client.find(path)
        if live is not None and not is_of_another(live, install_id):
            found.append(reference)
    return found


def _parted(
    client: KubernetesClient, install_id: str, references: Sequence[Reference]
) -> tuple[list[Reference], list[Reference]]:
    """Return what of the install can go, and the CRDs that must stay; these are its no more."""
    found = _own(client, install_id, references)
    discovery = Discovery(client)
    staying = [
        reference
        for reference in found
        if reference["kind"] == CRD
        and (path := _path_of(discovery, reference)) is not None
        and _is_used_by_others(client, client.get(path), install_id)
    ]
    for reference in staying:
        path = _path_of(discovery, reference)
        if path is not None:
            client.patch(path, {"metadata": {"labels": dict.fromkeys(labels_of(install_id))}})
    return [reference for reference in found if reference not in staying], staying


def _is_used_by_others(client: KubernetesClient, crd: Object, install_id: str) -> bool:
    spec = crd["spec"]
    served = [version["name"] for version in spec["versions"] if version["served"]]
    if not served:
        return False
    resource = ApiResource(
        f"{spec['group']}/{served[0]}",
        spec["names"]["kind"],
        spec["names"]["plural"],
        spec["scope"] == "Namespaced",
    )
    space = install_namespace_of(install_id)
    return any(
        found["metadata"].get("namespace") != space
        if resource.namespaced
        else is_of_another(found, install_id)
        for found in client.list_all(resource.collection())
    )


def _path_of(discovery: Discovery, reference: Reference) -> str | None:
    resource = discovery.find(reference["api_version"], reference["kind"])
    if resource is None:
        return None
    return resource.path(reference["name"], reference["namespace"])


def _remove(client: KubernetesClient, references: Sequence[Reference]) -> None:
    discovery = Discovery(client)
    going: list[str] = []
    # Objects of a kind go before the CRD that brings it.
    for reference in sorted(references, key=lambda one: one["kind"] in _FIRST):
        path = _path_of(discovery, reference)
        if path is not None and client.delete(path, propagation=_BEHIND):
            going.append(path)
    _await_gone(client, going)


def _await_gone(client: KubernetesClient, paths: Sequence[str]) -> None:
    deadline = time.monotonic() + _GONE_SECONDS
    left = [path for path in paths if client.find(path) is not None]
    while left and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        left = [path for path in left if client.find(path) is not None]
    if left:
        raise BulkheadError(
            Reason.CONFLICT,
            f"{', '.join(left[:3])} is still being removed.",
            retryable=True,
        )


def _rights_to_apply(client: KubernetesClient, manifests: Sequence[Object]) -> Rules:
    """Return the rights that exactly these objects need."""
    brought = kinds_brought_by(manifests)
    rules = _rules(client, [reference_of(manifest) for manifest in manifests], brought)
    roles = [manifest["roleRef"]["name"] for manifest in manifests if "roleRef" in manifest]
    if roles:
        # A binding may give more than its maker has; who approved the plan saw what it gives.
        rules.append(_rule(RBAC, "clusterroles", roles, ["bind"]))
    # One without rules may aggregate those of others, which needs the same right.
    roles = [found["metadata"]["name"] for found in manifests if found["kind"] == "ClusterRole"]
    if roles:
        rules.append(_rule(RBAC, "clusterroles", roles, ["escalate"]))
    return rules


def _rights_to_remove(client: KubernetesClient, references: Sequence[Reference]) -> Rules:
    return _rules(client, references, {})


def _rules(
    client: KubernetesClient,
    references: Sequence[Reference],
    brought: Mapping[tuple[str, str], str],
) -> Rules:
    discovery = Discovery(client)
    named: dict[tuple[str, str], list[str]] = {}
    for reference in references:
        kind = (reference["api_version"], reference["kind"])
        resource = discovery.find(*kind)
        plural = brought.get(kind) if resource is None else resource.plural
        if plural is not None:
            group = kind[0].rpartition("/")[0]
            named.setdefault((group, plural), []).append(reference["name"])
    return [_rule(group, plural, names, _VERBS) for (group, plural), names in named.items()]


def _rule(group: str, plural: str, names: Iterable[str], verbs: list[str]) -> dict[str, list[str]]:
    return {
        "apiGroups": [group],
        "resources": [plural],
        "resourceNames": sorted(set(names)),
        "verbs": verbs,
    }


def _patiently(client: KubernetesClient, work: Callable[[KubernetesClient], None]) -> None:
    """Work with rights that were just given, which an API server may not see yet."""
    deadline = time.monotonic() + _RIGHTS_SECONDS
    while True:
        try:
            return work(client)
        except BulkheadError as error:
            if error.reason is not Reason.PERMISSION_DENIED or time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)
