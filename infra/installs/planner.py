"""What applying a render would do, found out by dry runs of server-side apply against what is live.

The answer is bound to what was seen: the digest changes with the objects that it touches. Of a
Secret's data nothing is in it but that it changes.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from domain.errors import BulkheadError, Reason
from domain.install import Change, ObjectScope
from domain.names import install_namespace_of
from domain.pod_security import beyond_baseline
from infra.helm.manifest import hooks_of, is_kept, is_secret, key_of
from infra.installs.identities import MANAGED_BY, labels_of
from infra.installs.object_diff import differences
from infra.installs.plan_needs import first_few, privileges, storage
from infra.kubernetes.client import FIELD_MANAGER, KubernetesClient, Object
from infra.kubernetes.discovery import Discovery

# Who owns the fields of a release's objects.
RELEASE_MANAGER: Final = "helm"

CRD: Final = "CustomResourceDefinition"

# Requests at a time to one API server.
_AT_A_TIME: Final = 8

_FORBIDDEN: Final = "403"
_UNPROCESSABLE: Final = "422"
# In what an API server says of a pod that its namespace's level does not allow.
_POD_SECURITY: Final = "PodSecurity"
_RELEASE_NAME: Final = "meta.helm.sh/release-name"
_RELEASE_NAMESPACE: Final = "meta.helm.sh/release-namespace"

# Of a name, with room for a suffix in the 253 characters that it may have.
_TRIAL_CHARACTERS: Final = 40

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedChange:
    """What becomes of one object.

    Attributes:
        key: `<group>/<kind>/<namespace>/<name>`.
        reference: its `api_version`, `kind`, `namespace` and `name`.
        scope: by which identity it is applied.
        change: what is done.
        diff: each `{path, before, after}`.
        uid: of the live object; empty when there is none.
    """

    key: str
    reference: dict[str, str]
    scope: ObjectScope
    change: Change
    diff: tuple[dict[str, Any], ...] = ()
    uid: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as people see it."""
        return {
            "key": self.key,
            **self.reference,
            "scope": self.scope,
            "change": self.change,
            "diff": list(self.diff),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What applying a render would do.

    Attributes:
        changes: of objects, sorted by key.
        unchanged: how many objects stay as they are.
        hooks: what helm runs besides: `{key, hooks}`.
        needs: what it needs: `{what, why}` and a `name` where there is one.
        cluster_objects: references to everything of cluster scope in the render.
        release_bytes: about how large helm's record of the release gets.
    """

    changes: tuple[PlannedChange, ...]
    unchanged: int
    hooks: tuple[dict[str, Any], ...]
    needs: tuple[dict[str, str], ...]
    cluster_objects: tuple[dict[str, str], ...]
    release_bytes: int

    @property
    def needs_approval(self) -> bool:
        """Whether somebody has to look at it before it is applied."""
        return any(need["what"] == "approval" for need in self.needs)

    def keys(self, change: Change, scope: ObjectScope) -> frozenset[str]:
        """Return the objects of which this becomes."""
        return frozenset(
            found.key for found in self.changes if (found.change, found.scope) == (change, scope)
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as the row has it."""
        counts = {str(change): 0 for change in Change}
        for found in self.changes:
            counts[found.change] += 1
        return {
            "changes": [found.as_json() for found in self.changes],
            "hooks": list(self.hooks),
            "needs": list(self.needs),
            "counts": {**counts, "unchanged": self.unchanged},
            "cluster_objects": list(self.cluster_objects),
            "release_bytes": self.release_bytes,
        }

    def digest(self, render_hash: str, version_id: str, values: dict[str, Any]) -> str:
        """Return what an approval is bound to: the plan, its inputs, and what was seen live."""
        facts = {
            "changes": [{**found.as_json(), "uid": found.uid} for found in self.changes],
            "hooks": list(self.hooks),
            "render_hash": render_hash,
            "version_id": version_id,
            "values": values,
        }
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


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
    view = _View(client, install_id, [*wanted.namespaced, *wanted.cluster])
    live = [manifest for manifest in wanted.namespaced if not hooks_of(manifest)]
    found = _all_at_once(lambda one: view.change_of(one, ObjectScope.NAMESPACE), live)
    found += _all_at_once(lambda one: view.change_of(one, ObjectScope.CLUSTER), wanted.cluster)
    kept = {key_of(manifest) for manifest in [*wanted.namespaced, *wanted.cluster]}
    gone = [
        manifest
        for manifest in wanted.before
        if key_of(manifest) not in kept and not _outlives(manifest)
    ]
    removals = _all_at_once(view.removal_of, gone)
    changes = [change for change in [*found, *removals] if change is not None]
    return Plan(
        changes=tuple(sorted(changes, key=lambda change: change.key)),
        unchanged=found.count(None),
        hooks=tuple(
            {"key": key_of(manifest), "hooks": sorted(hooks_of(manifest))}
            for manifest in wanted.namespaced
            if hooks_of(manifest)
        ),
        needs=(
            *_approvals(changes),
            *privileges(wanted.namespaced),
            *storage(client, live),
        ),
        cluster_objects=tuple(reference_of(manifest) for manifest in wanted.cluster),
        release_bytes=wanted.release_bytes,
    )


def conflicts(
    client: KubernetesClient, install_id: str, manifests: Iterable[Object]
) -> list[Object]:
    """Return the release's objects that can only be had by removing the live ones first."""
    live = [manifest for manifest in manifests if not hooks_of(manifest)]
    view = _View(client, install_id, live)
    found = _all_at_once(lambda one: view.change_of(one, ObjectScope.NAMESPACE), live)
    replaced = [change is not None and change.change is Change.REPLACED for change in found]
    return [manifest for manifest, is_so in zip(live, replaced, strict=True) if is_so]


def replaced_in(plan: dict[str, Any] | None) -> frozenset[str]:
    """Return the keys of the release's objects that a stored plan replaces."""
    return frozenset(
        found["key"]
        for found in (plan or {}).get("changes", [])
        if (found["change"], found["scope"]) == (Change.REPLACED, ObjectScope.NAMESPACE)
    )


def reference_of(manifest: Object) -> dict[str, str]:
    """Return what names an object."""
    metadata = manifest["metadata"]
    return {
        "api_version": manifest["apiVersion"],
        "kind": manifest["kind"],
        "namespace": metadata.get("namespace") or "",
        "name": metadata["name"],
    }


def as_release(manifest: Object, install_id: str) -> Object:
    """Return an object with the marks that helm puts on what is a release's."""
    space = install_namespace_of(install_id)
    marks = {_RELEASE_NAME: space, _RELEASE_NAMESPACE: space}
    return _marked(manifest, {MANAGED_BY: "Helm"}, marks)


def as_cluster_object(manifest: Object, install_id: str) -> Object:
    """Return an object of cluster scope with the marks of its install."""
    return _marked(manifest, labels_of(install_id), {})


def kinds_brought_by(manifests: Iterable[Object]) -> dict[tuple[str, str], str]:
    """Return the plurals of the kinds that CRDs among the objects bring."""
    return {
        (f"{found['spec']['group']}/{version['name']}", found["spec"]["names"]["kind"]): found[
            "spec"
        ]["names"]["plural"]
        for found in manifests
        if found["kind"] == CRD
        for version in found["spec"]["versions"]
    }


def is_of_another(live: Object, install_id: str) -> bool:
    """Tell whether an object of cluster scope is not the install's."""
    labels = live["metadata"].get("labels") or {}
    return any(labels.get(name) != value for name, value in labels_of(install_id).items())


class _View:
    """One cluster, as a plan looks at it."""

    def __init__(self, client: KubernetesClient, install_id: str, wanted: list[Object]) -> None:
        self._client = client
        self._install_id = install_id
        self._space = install_namespace_of(install_id)
        self._discovery = Discovery(client)
        self._promised = kinds_brought_by(wanted)

    def change_of(self, manifest: Object, scope: ObjectScope) -> PlannedChange | None:
        """Return what becomes of a wanted object; None: it stays as it is."""
        path = self._discovery.path_of(manifest, self._space)
        if path is None:
            self._require_promised(manifest)
            return _change(manifest, scope, Change.ADDED)
        live = self._client.find(path)
        if scope is ObjectScope.CLUSTER:
            manager, marked = FIELD_MANAGER, as_cluster_object(manifest, self._install_id)
            if live is not None and is_of_another(live, self._install_id):
                raise _of_another(manifest)
        else:
            manager, marked = RELEASE_MANAGER, as_release(manifest, self._install_id)
        try:
            after = self._client.apply(path, marked, manager=manager, dry_run=True)
        except BulkheadError as error:
            if error.metadata.get("status") is None or error.retryable:
                raise
            if _waits_for_approval(manifest, error):
                return _unadmitted(manifest, scope, marked, live)
            if live is not None and self._is_conflict(path, marked, manager, error):
                diff = differences(live, marked, only_wanted=True)
                return _change(manifest, scope, Change.REPLACED, diff, live)
            raise _refused(manifest, error) from None
        if live is None:
            return _change(manifest, scope, Change.ADDED)
        diff = differences(live, after)
        return _change(manifest, scope, Change.CHANGED, diff, live) if diff else None

    def removal_of(self, manifest: Object) -> PlannedChange | None:
        """Return that an object goes; None: it is not there."""
        path = self._discovery.path_of(manifest, self._space)
        live = None if path is None else self._client.find(path)
        if live is None:
            return None
        is_ours = manifest["metadata"].get("namespace") == self._space
        scope = ObjectScope.NAMESPACE if is_ours else ObjectScope.CLUSTER
        if scope is ObjectScope.CLUSTER and is_of_another(live, self._install_id):
            return None
        return _change(manifest, scope, Change.DELETED, (), live)

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


def _outlives(manifest: Object) -> bool:
    """Tell whether an object stays that its chart has no more.

    What helm has to do with; objects of cluster scope go, whatever helm would make of them.
    """
    is_of_release = bool(manifest["metadata"].get("namespace"))
    return is_of_release and (bool(hooks_of(manifest)) or is_kept(manifest))


def _marked(manifest: Object, labels: dict[str, str], annotations: dict[str, str]) -> Object:
    metadata = dict(manifest["metadata"])
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    if annotations:
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations}
    return {**manifest, "metadata": metadata}


def _change(
    manifest: Object,
    scope: ObjectScope,
    change: Change,
    diff: Iterable[dict[str, Any]] = (),
    live: Object | None = None,
) -> PlannedChange:
    return PlannedChange(
        key=key_of(manifest),
        reference=reference_of(manifest),
        scope=scope,
        change=change,
        diff=tuple(diff),
        uid="" if live is None else str(live["metadata"]["uid"]),
    )


def _of_another(manifest: Object) -> BulkheadError:
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"{key_of(manifest)} is on the cluster and not of this install. Remove it, or leave it out "
        "by the chart's values.",
        metadata={"object": key_of(manifest)},
    )


def _refused(manifest: Object, error: BulkheadError) -> BulkheadError:
    # What the API server says of a Secret may quote it.
    said = "" if is_secret(manifest) else f" {error.message}"
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"The cluster does not take {key_of(manifest)} (HTTP {error.metadata['status']}).{said}",
        metadata={"object": key_of(manifest), "status": error.metadata["status"]},
    )


def _approvals(changes: Sequence[PlannedChange]) -> list[dict[str, str]]:
    def named(found: list[PlannedChange]) -> str:
        return first_few([change.key for change in found], ", ")

    needs: list[dict[str, str]] = []
    wide = [change for change in changes if change.scope is ObjectScope.CLUSTER]
    if wide:
        why = f"It changes objects of the whole cluster: {named(wide)}."
        needs.append({"what": "approval", "why": why})
    replaced = [change for change in changes if change.change is Change.REPLACED]
    if replaced:
        why = "Objects must go before they come back, for fields that never change: "
        needs.append({"what": "approval", "why": f"{why}{named(replaced)}."})
    return needs


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
        return _change(manifest, scope, Change.ADDED)
    diff = differences(live, marked, only_wanted=True)
    return _change(manifest, scope, Change.CHANGED, diff, live) if diff else None


def _all_at_once(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        return list(pool.map(work, items))
