"""What applying a render would do, found out by dry runs of server-side apply against what is live.

The answer is bound to what was seen: the digest changes with the objects that it touches. Of a
Secret's data nothing is in it but that it changes.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from domain.errors import BulkheadError, Reason
from domain.install import Change, ObjectScope
from domain.names import install_namespace_of
from domain.pod_security import beyond_baseline
from infra.helm.manifest import HOOK, hooks_of, is_kept, key_of
from infra.installs.crds import CRD, is_served_to, kinds_brought_by, with_stored_versions
from infra.installs.object_diff import differences
from infra.installs.ownership import (
    RELEASE_MANAGER,
    as_cluster_object,
    as_release,
    is_left_over,
    is_never_removed,
    is_of_another,
    is_of_release,
    is_own,
    is_shared,
    owner_of,
    stay_of,
    users_of,
)
from infra.installs.plan import Plan, PlannedChange, reference_of
from infra.installs.plan_needs import MADE_ANEW, approvals, privileges, storage, uses
from infra.kubernetes.client import FIELD_MANAGER, KubernetesClient, Object
from infra.kubernetes.discovery import Discovery

# Requests at a time to one API server.
_AT_A_TIME: Final = 8

_FORBIDDEN: Final = "403"
_UNPROCESSABLE: Final = "422"
# In what an API server says of a pod that its namespace's level does not allow.
_POD_SECURITY: Final = "PodSecurity"
# What is in them goes with them.
CONTAINERS: Final = frozenset({CRD, "Namespace"})

# Of a name, with room for a suffix in the 253 characters that it may have.
_TRIAL_CHARACTERS: Final = 40

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What shall be there.

    Attributes:
        namespaced: of the install's own namespace, hooks among them.
        cluster: of cluster scope.
        before: the objects of the render that is deployed; of a Secret's data only digests.
        release_bytes: about how large helm's record of the release gets.
    """

    namespaced: Sequence[Object]
    cluster: Sequence[Object]
    before: Sequence[Object]
    release_bytes: int


def make_plan(client: KubernetesClient, install_id: str, wanted: Wanted) -> Plan:
    """Ask an API server what would become of everything. Nothing is changed.

    Args:
        client: may see everything of the cluster.
        install_id: whose objects these are.
        wanted: what shall be there.

    Raises:
        BulkheadError: FAILED_PRECONDITION for what the cluster does not take or another owner has;
            as `KubernetesClient` when it does not answer.
    """
    view = _View(client, install_id, [*wanted.namespaced, *wanted.cluster], wanted.before)
    live = [manifest for manifest in wanted.namespaced if not hooks_of(manifest)]
    hooks = [manifest for manifest in wanted.namespaced if hooks_of(manifest)]
    _all_at_once(view.check_hook, hooks)
    found = _all_at_once(lambda one: view.change_of(one, ObjectScope.NAMESPACE), live)
    found += _all_at_once(lambda one: view.change_of(one, ObjectScope.CLUSTER), wanted.cluster)
    kept = {key_of(manifest) for manifest in [*wanted.namespaced, *wanted.cluster]}
    gone = [
        manifest
        for manifest in wanted.before
        if key_of(manifest) not in kept and not _is_hook_of_release(manifest)
    ]
    removals = _all_at_once(view.removal_of, gone)
    changes = [change for change in [*found, *removals] if change is not None]
    return Plan(
        changes=tuple(sorted(changes, key=lambda change: change.key)),
        unchanged=found.count(None),
        hooks=tuple(
            {"key": key_of(manifest), "hooks": sorted(hooks_of(manifest))} for manifest in hooks
        ),
        needs=(
            *approvals(changes),
            *privileges(wanted.namespaced),
            *storage(client, live),
            *uses(view.shared),
        ),
        cluster_objects=tuple(reference_of(manifest) for manifest in wanted.cluster),
        release_bytes=wanted.release_bytes,
    )


def conflicts(
    client: KubernetesClient, install_id: str, manifests: Iterable[Object]
) -> list[Object]:
    """Return the release's objects that can be had only by removing the live ones first.

    Those that are to be kept, and those that are not the release's any more, are among them.

    Args:
        client: may see everything of the namespace.
        install_id: whose release it is.
        manifests: what is deployed.

    Raises:
        BulkheadError: FAILED_PRECONDITION for what the cluster does not take; as
            `KubernetesClient`.
    """
    live = [manifest for manifest in manifests if not hooks_of(manifest)]
    view = _View(client, install_id, live, live, is_restoring=True)
    found = _all_at_once(lambda one: view.change_of(one, ObjectScope.NAMESPACE), live)
    replaced = [change is not None and change.change is Change.REPLACED for change in found]
    return [manifest for manifest, is_so in zip(live, replaced, strict=True) if is_so]


class _View:
    """One cluster, as a plan looks at it.

    Attributes:
        shared: CRDs of other installs that this one uses, as they are there.
    """

    def __init__(
        self,
        client: KubernetesClient,
        install_id: str,
        wanted: Sequence[Object],
        before: Iterable[Object],
        *,
        is_restoring: bool = False,
    ) -> None:
        self._client = client
        self._install_id = install_id
        self._space = install_namespace_of(install_id)
        self._discovery = Discovery(client)
        self._promised = kinds_brought_by(wanted)
        self._before = {key_of(manifest) for manifest in before if not hooks_of(manifest)}
        self._is_restoring = is_restoring
        self.shared: list[Object] = []

    def change_of(self, manifest: Object, scope: ObjectScope) -> PlannedChange | None:
        """Return what becomes of a wanted object; None: it stays as it is."""
        path = self._discovery.path_of(manifest, self._space)
        if path is None:
            self._require_promised(manifest)
            return PlannedChange.of(manifest, scope, Change.ADDED)
        live = self._client.find(path)
        if scope is ObjectScope.NAMESPACE:
            self._require_released(manifest, live)
            marked = as_release(manifest, self._install_id)
            return self._applied(manifest, scope, path, RELEASE_MANAGER, marked, live)
        if live is not None and is_shared(live, self._install_id):
            self._share(manifest, live)
            return None
        if live is not None and is_of_another(live, self._install_id):
            raise _of_another(manifest)
        marked = as_cluster_object(with_stored_versions(manifest, live), self._install_id)
        return self._applied(manifest, scope, path, FIELD_MANAGER, marked, live)

    def removal_of(self, manifest: Object) -> PlannedChange | None:
        """Return that an object goes, or stays without its install; None: it is not there."""
        path = self._discovery.path_of(manifest, self._space)
        live = None if path is None else self._client.find(path)
        if live is None:
            return None
        if manifest["metadata"].get("namespace") == self._space:
            change = Change.KEPT if is_kept(live) else Change.DELETED
            note = "" if is_of_release(live, self._install_id) else MADE_ANEW
            return PlannedChange.of(manifest, ObjectScope.NAMESPACE, change, (), live, note)
        if not is_own(live, self._install_id):
            return None
        stay = stay_of(self._client, live, self._install_id)
        if stay is None:
            return PlannedChange.of(manifest, ObjectScope.CLUSTER, Change.DELETED, (), live)
        return PlannedChange.of(manifest, ObjectScope.CLUSTER, Change.KEPT, (), live, stay.why)

    def check_hook(self, manifest: Object) -> None:
        """Refuse a hook that helm would make in place of what is no hook: it removes that first."""
        path = self._discovery.path_of(manifest, self._space)
        live = None if path is None else self._client.find(path)
        if live is not None and HOOK not in (live["metadata"].get("annotations") or {}):
            self._require_released(manifest, live)

    def _applied(
        self,
        manifest: Object,
        scope: ObjectScope,
        path: str,
        manager: str,
        marked: Object,
        live: Object | None,
    ) -> PlannedChange | None:
        try:
            after = self._client.apply(path, marked, manager=manager, dry_run=True)
        except BulkheadError as error:
            if error.metadata.get("status") is None or error.retryable:
                raise
            if _waits_for_approval(manifest, error):
                return _unadmitted(manifest, scope, marked, live)
            if live is not None and self._is_conflict(path, marked, manager, error):
                self._require_removable(manifest, scope, live)
                diff = differences(live, marked, only_wanted=True)
                return PlannedChange.of(manifest, scope, Change.REPLACED, diff, live)
            raise _refused(manifest, error) from None
        if live is None:
            return PlannedChange.of(manifest, scope, Change.ADDED)
        diff = differences(live, after)
        if not diff:
            return None
        return PlannedChange.of(manifest, scope, Change.CHANGED, diff, live, _note_on(live))

    def _share(self, manifest: Object, live: Object) -> None:
        if not is_served_to(live, manifest):
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"{key_of(manifest)} is of the install {owner_of(live)}, and does not serve what "
                "this version needs. Update that install first, or choose another version.",
                metadata={"object": key_of(manifest)},
            )
        self.shared.append(live)

    def _require_released(self, manifest: Object, live: Object | None) -> None:
        """Refuse what helm would refuse: an object that nobody made for this release."""
        is_new = key_of(manifest) not in self._before
        if live is not None and is_new and not is_of_release(live, self._install_id):
            raise _of_another(manifest)

    def _require_removable(self, manifest: Object, scope: ObjectScope, live: Object) -> None:
        is_lasting = is_kept(live)
        if scope is ObjectScope.CLUSTER:
            is_lasting = manifest["kind"] in CONTAINERS or is_never_removed(live)
        if is_lasting and not self._is_restoring:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"{key_of(manifest)} would have to go before it comes back, and is to be kept. "
                "Choose another version or other values; or see what it holds, and remove it "
                "yourself.",
                metadata={"object": key_of(manifest)},
            )

    def _is_conflict(self, path: str, marked: Object, manager: str, error: BulkheadError) -> bool:
        """Tell whether only the live object is in the way: under another name it would be taken."""
        if error.metadata.get("status") != _UNPROCESSABLE:
            return False
        collection, _, name = path.rpartition("/")
        trial = f"{name[:_TRIAL_CHARACTERS].rstrip('-.')}-trial"
        body = {**marked, "metadata": {**marked["metadata"], "name": trial}}
        try:
            self._client.apply(f"{collection}/{trial}", body, manager=manager, dry_run=True)
        except BulkheadError as refusal:
            if refusal.retryable:
                raise
            return False
        return True

    def _require_promised(self, manifest: Object) -> None:
        kind = (manifest["apiVersion"], manifest["kind"])
        if kind not in self._promised:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"The cluster does not serve {kind[1]} of {kind[0]}, which {key_of(manifest)} is. "
                "Install what brings its CustomResourceDefinition first, or another version.",
                metadata={"object": key_of(manifest)},
            )


def _is_hook_of_release(manifest: Object) -> bool:
    """Tell whether only helm has to do with an object; those of cluster scope go as any other."""
    return bool(manifest["metadata"].get("namespace")) and bool(hooks_of(manifest))


def _note_on(live: Object) -> str:
    if live["kind"] == CRD and users_of(live):
        return f"it is used by {', '.join(users_of(live))} too"
    if is_left_over(live):
        return "it was kept by an install that went, and is this one's then"
    return ""


def _of_another(manifest: Object) -> BulkheadError:
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"{key_of(manifest)} is on the cluster and not of this install. Leave it out by the "
        "chart's values, or take what it holds elsewhere and remove it.",
        metadata={"object": key_of(manifest)},
    )


def _refused(manifest: Object, error: BulkheadError) -> BulkheadError:
    status = error.metadata["status"]
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"The cluster does not take {key_of(manifest)} (HTTP {status}). {error.message}",
        metadata={"object": key_of(manifest), "status": status},
    )


def _waits_for_approval(manifest: Object, error: BulkheadError) -> bool:
    """Tell whether a pod is refused for what its namespace allows once the plan is approved."""
    return (
        error.metadata.get("status") == _FORBIDDEN
        and _POD_SECURITY in error.message
        and bool(beyond_baseline([manifest]))
    )


def _unadmitted(
    manifest: Object, scope: ObjectScope, marked: Object, live: Object | None
) -> PlannedChange | None:
    if live is None:
        return PlannedChange.of(manifest, scope, Change.ADDED)
    diff = differences(live, marked, only_wanted=True)
    return PlannedChange.of(manifest, scope, Change.CHANGED, diff, live) if diff else None


def _all_at_once(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        return list(pool.map(work, items))
