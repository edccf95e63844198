"""Applies and removes an install's objects of cluster scope, which helm does not.

It is done under the install's second identity, which has the rights of exactly these objects for as
long as it takes.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError, Reason
from domain.names import cluster_objects_user_of
from infra.helm.manifest import key_of
from infra.installs.crds import (
    CRD,
    await_established,
    is_served_to,
    kinds_brought_by,
    stored_versions_kept,
    with_stored_versions,
)
from infra.installs.identities import Rules, grant_cluster_rights, withdraw_cluster_rights
from infra.installs.ownership import (
    Stay,
    as_cluster_object,
    is_never_removed,
    is_of_another,
    is_own,
    is_shared,
    is_used_by,
    stay_of,
    use_label_of,
    users_of,
)
from infra.installs.plan import identity_of, reference_of
from infra.installs.planner import CONTAINERS
from infra.kubernetes.client import KubernetesClient, Object
from infra.kubernetes.discovery import Discovery
from infra.kubernetes.manifest import RBAC
from infra.machines.clusters import HostClusters

# Removed objects whose finalizers take longer are waited for by the next attempt.
_GONE_SECONDS: Final = 30.0
# API servers see a new binding within about a second.
_RIGHTS_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.2

_VERBS: Final = ["get", "create", "patch", "delete"]
# Everything else may need them.
_FIRST: Final = ("Namespace", CRD)

# Of what depends on an object that goes.
IN_BACKGROUND: Final = "Background"

_UNPROCESSABLE: Final = "422"

Reference = Mapping[str, str]
Result = TypeVar("Result")


class ClusterObjects:
    """Objects of cluster scope of the installs on one host's clusters."""

    def __init__(self, clusters: HostClusters) -> None:
        self._clusters = clusters

    async def apply(
        self,
        plane: HostedControlPlane,
        install_id: str,
        manifests: Sequence[Object],
        replaced: Collection[str],
    ) -> None:
        """Have the objects as they are rendered; CRDs are served when it returns.

        Args:
            plane: of the install's cluster.
            install_id: which.
            manifests: the objects.
            replaced: keys of those that may go before they come back.

        Raises:
            BulkheadError: FAILED_PRECONDITION for an object that another owner has; as
                `KubernetesClient` when the API server refuses one or does not answer.
        """
        if manifests:
            await self._as_second_user(
                plane,
                install_id,
                lambda client: _rights_to_apply(client, manifests),
                lambda client: _apply(client, install_id, manifests, replaced),
            )

    async def restore(
        self, plane: HostedControlPlane, install_id: str, manifests: Sequence[Object]
    ) -> list[str]:
        """Have objects as they were; return what cannot be, as sentences, and stays as it is.

        Raises:
            BulkheadError: as `KubernetesClient`.
        """
        if not manifests:
            return []
        return await self._as_second_user(
            plane,
            install_id,
            lambda client: _rights_to_apply(client, manifests),
            lambda client: _restore(client, install_id, manifests),
        )

    async def remove(
        self, plane: HostedControlPlane, install_id: str, references: Sequence[Reference]
    ) -> list[str]:
        """Have the objects gone that are the install's; return those that stay, and why.

        What stays is the install's no more (`ownership.stay_of`), once all that goes has gone.

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
                lambda client: _remove(client, install_id, going),
            )
        await self._clusters.ask(plane, lambda client: _let_go(client, staying))
        return [f"{_named(reference)} stays: {stay.why}" for reference, stay in staying]

    async def left(
        self, plane: HostedControlPlane, install_id: str, references: Sequence[Reference]
    ) -> list[str]:
        """Return what is still there of the install among the objects, as names for a person."""
        found = await self._clusters.ask(plane, lambda client: _live(client, references))
        return [
            _named(reference)
            for reference, _, live in found
            if is_own(live, install_id) or is_used_by(live, install_id)
        ]

    async def withdraw_rights(self, plane: HostedControlPlane, install_id: str) -> None:
        """Take the second user's rights; what is not there is fine."""
        await self._clusters.ask(plane, lambda client: withdraw_cluster_rights(client, install_id))

    async def _as_second_user(
        self,
        plane: HostedControlPlane,
        install_id: str,
        rights: Callable[[KubernetesClient], Rules],
        work: Callable[[KubernetesClient], Result],
    ) -> Result:
        rules = await self._clusters.ask(plane, rights)
        await self._clusters.ask(
            plane, lambda client: grant_cluster_rights(client, install_id, rules)
        )
        try:
            user = cluster_objects_user_of(install_id)
            return await self._clusters.ask_as(plane, user, lambda client: _patiently(client, work))
        finally:
            await self.withdraw_rights(plane, install_id)


def await_gone(client: KubernetesClient, paths: Sequence[str]) -> None:
    """Wait until objects are gone.

    Raises:
        BulkheadError: CONFLICT, worth another try, while one of them ends; as `KubernetesClient`.
    """
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


def _apply(
    client: KubernetesClient,
    install_id: str,
    manifests: Sequence[Object],
    replaced: Collection[str],
) -> None:
    discovery = Discovery(client)
    for manifest, path in _in_turn(discovery, manifests):
        live = client.find(path)
        if live is not None and is_shared(live, install_id) and is_served_to(live, manifest):
            client.patch(path, _use(install_id))
        elif live is not None and is_of_another(live, install_id):
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"{key_of(manifest)} is on the cluster and not of this install.",
            )
        else:
            may_go = key_of(manifest) in replaced
            _apply_one(client, install_id, path, manifest, live, may_go=may_go)


def _restore(client: KubernetesClient, install_id: str, manifests: Sequence[Object]) -> list[str]:
    discovery = Discovery(client)
    stays = []
    for manifest, path in _in_turn(discovery, manifests):
        live = client.find(path)
        if live is not None and is_shared(live, install_id):
            client.patch(path, _use(install_id))
        elif live is not None and is_of_another(live, install_id):
            stays.append(f"{_named(reference_of(manifest))} is not of this install any more")
        else:
            may_go = manifest["kind"] not in CONTAINERS
            _apply_one(client, install_id, path, manifest, live, may_go=may_go)
            stays += [
                f"{_named(reference_of(manifest))} keeps its version {version['name']}, in which "
                "objects may be stored; it is served no more"
                for version in stored_versions_kept(manifest, live)
            ]
    return stays


def _in_turn(discovery: Discovery, manifests: Sequence[Object]) -> Iterator[tuple[Object, str]]:
    """Give the objects with their paths, each when those before it are there.

    Raises:
        BulkheadError: FAILED_PRECONDITION, worth another try, for a kind that is not served.
    """
    for manifest in sorted(manifests, key=lambda one: _turn_of(one["kind"])):
        path = discovery.path_of(manifest, "")
        if path is None:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"The cluster does not serve the kind of {key_of(manifest)}.",
                retryable=True,
            )
        yield manifest, path


def _apply_one(
    client: KubernetesClient,
    install_id: str,
    path: str,
    manifest: Object,
    live: Object | None,
    *,
    may_go: bool,
) -> None:
    wanted = as_cluster_object(with_stored_versions(manifest, live), install_id)
    try:
        client.apply(path, wanted)
    except BulkheadError as error:
        is_in_the_way = live is not None and may_go and not is_never_removed(live)
        if live is None or not is_in_the_way or error.metadata.get("status") != _UNPROCESSABLE:
            raise
        client.delete(path, uid=live["metadata"]["uid"], propagation=IN_BACKGROUND)
        await_gone(client, [path])
        client.apply(path, wanted)
    if manifest["kind"] == CRD:
        await_established(client, path)


def _use(install_id: str) -> Object:
    return {"metadata": {"labels": {use_label_of(install_id): ""}}}


def _turn_of(kind: str) -> int:
    return _FIRST.index(kind) if kind in _FIRST else len(_FIRST)


def _named(reference: Reference) -> str:
    return f"{reference['kind']}/{reference['name']}"


def _live(
    client: KubernetesClient, references: Sequence[Reference]
) -> list[tuple[Reference, str, Object]]:
    """Return those of the objects that are there, with their paths."""
    discovery = Discovery(client)
    found = []
    for reference in references:
        path = _path_of(discovery, reference)
        live = None if path is None else client.find(path)
        if path is not None and live is not None:
            found.append((reference, path, live))
    return found


def _parted(
    client: KubernetesClient, install_id: str, references: Sequence[Reference]
) -> tuple[list[Reference], list[tuple[Reference, Stay]]]:
    """Return what of the install can go, and what stays; what it only used, it does no more."""
    going: list[Reference] = []
    staying: list[tuple[Reference, Stay]] = []
    for reference, path, live in _live(client, references):
        if is_used_by(live, install_id):
            client.patch(path, {"metadata": {"labels": {use_label_of(install_id): None}}})
        if is_own(live, install_id):
            stay = stay_of(client, live, install_id)
            if stay is None:
                going.append(reference)
            else:
                staying.append((reference, stay))
    return going, staying


def _let_go(client: KubernetesClient, staying: Sequence[tuple[Reference, Stay]]) -> None:
    stays = {identity_of(reference): stay for reference, stay in staying}
    for reference, path, _ in _live(client, [reference for reference, _ in staying]):
        client.patch(path, {"metadata": {"labels": stays[identity_of(reference)].labels}})


def _path_of(discovery: Discovery, reference: Reference) -> str | None:
    resource = discovery.find(reference["api_version"], reference["kind"])
    if resource is None:
        return None
    return resource.path(reference["name"], reference["namespace"])


def _remove(client: KubernetesClient, install_id: str, references: Sequence[Reference]) -> None:
    going: list[str] = []
    # Objects of a kind go before the CRD that brings it.
    ordered = sorted(references, key=lambda one: one["kind"] in _FIRST)
    for reference, path, live in _live(client, ordered):
        if not is_own(live, install_id) or users_of(live):
            raise BulkheadError(
                Reason.CONFLICT,
                f"{_named(reference)} came to be another install's meanwhile; it is looked at "
                "again.",
                retryable=True,
            )
        client.delete(path, uid=live["metadata"]["uid"], propagation=IN_BACKGROUND)
        going.append(path)
    await_gone(client, going)


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


def _patiently(client: KubernetesClient, work: Callable[[KubernetesClient], Result]) -> Result:
    """Work with rights that were just given, which an API server may not see yet."""
    deadline = time.monotonic() + _RIGHTS_SECONDS
    while True:
        try:
            return work(client)
        except BulkheadError as error:
            if error.reason is not Reason.PERMISSION_DENIED or time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)
