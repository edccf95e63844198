"""What the objects of a render need of a cluster and of its owner, by what they are."""

from collections.abc import Iterable, Sequence
from typing import Final

from domain.install import Change, ObjectScope
from domain.pod_security import beyond_baseline
from infra.installs.ownership import owner_of
from infra.installs.plan import PlannedChange
from infra.kubernetes.client import KubernetesClient, Object

_STORAGE_CLASSES: Final = "/apis/storage.k8s.io/v1/storageclasses"
_DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"

# Of an object of the release's that lacks its marks.
MADE_ANEW: Final = "not of the release any more: somebody made it anew"

# As many as a sentence can name.
_NAMED: Final = 3


def first_few(names: Sequence[str], separator: str) -> str:
    """Return the first names of many for a sentence, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return separator.join(names[:_NAMED]) + more


def approvals(changes: Sequence[PlannedChange]) -> list[dict[str, str]]:
    """Return the approvals that changes need: of the whole cluster's objects, and of removals."""

    def named(found: list[PlannedChange]) -> str:
        return first_few([_named(change) for change in found], ", ")

    needs: list[dict[str, str]] = []
    moved = [change for change in changes if change.change is not Change.KEPT]
    wide = [change for change in moved if change.scope is ObjectScope.CLUSTER]
    if wide:
        why = f"It changes objects of the whole cluster: {named(wide)}."
        needs.append({"what": "approval", "why": why})
    replaced = [change for change in moved if change.change is Change.REPLACED]
    if replaced:
        why = "Objects must go before they come back, for fields that never change: "
        needs.append({"what": "approval", "why": f"{why}{named(replaced)}."})
    anew = [one for one in moved if (one.change, one.note) == (Change.DELETED, MADE_ANEW)]
    if anew:
        why = "Helm removes objects although somebody else made them since: "
        needs.append({"what": "approval", "why": f"{why}{named(anew)}."})
    return needs


def uses(shared: Sequence[Object]) -> list[dict[str, str]]:
    """Return the CRDs that other installs have, and that are used as these have them."""
    return [
        {
            "what": "custom_resource_definition",
            "why": f"It is there, of the install {owner_of(crd)}, and is used as it is.",
            "name": crd["metadata"]["name"],
        }
        for crd in sorted(shared, key=lambda one: str(one["metadata"]["name"]))
    ]


def privileges(manifests: Sequence[Object]) -> list[dict[str, str]]:
    """Return the approval that pods need which ask for more than the baseline."""
    found = beyond_baseline(manifests)
    if not found:
        return []
    why = (
        "Its pods want more of their nodes than the baseline of the Pod Security Standards "
        "allows, which can give whoever made the chart these nodes: "
    )
    named = first_few([str(one) for one in found], "; ")
    return [{"what": "approval", "why": f"{why}{named}."}]


def storage(client: KubernetesClient, manifests: Iterable[Object]) -> list[dict[str, str]]:
    """Return the storage classes that volumes need and the cluster does not have."""
    asked = {
        (claim.get("spec") or {}).get("storageClassName")
        for manifest in manifests
        for claim in _claims_of(manifest)
    }
    if not asked:
        return []
    classes = client.list_all(_STORAGE_CLASSES)
    known = {found["metadata"]["name"] for found in classes}
    has_default = any(
        (found["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true"
        for found in classes
    )
    needs = []
    for name in sorted(asked - known, key=str):
        if name is None and not has_default:
            why = "A volume names no storage class, and the cluster has no default one."
            needs.append({"what": "storage_class", "why": why})
        elif name:
            why = f"A volume wants the storage class {name}, which the cluster does not have."
            needs.append({"what": "storage_class", "why": why, "name": name})
    return needs


def _claims_of(manifest: Object) -> list[Object]:
    if manifest["kind"] == "PersistentVolumeClaim":
        return [manifest]
    return (manifest.get("spec") or {}).get("volumeClaimTemplates") or []


def _named(change: PlannedChange) -> str:
    return f"{change.key} ({change.note})" if change.note else change.key
