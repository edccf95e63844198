"""Whose an object on a cluster is: the marks that tell, and what outlives its install.

An object of cluster scope has the labels of one install. A CRD may have others that use it, a label
each; it is handed on to one of these when its install goes. What stays without an install has the
label `bulkhead.io/kept`: any install may have it again, and none ever removes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from domain.identifiers import Prefix, opaque_part
from domain.names import install_namespace_of
from infra.helm.manifest import is_kept
from infra.installs.crds import CRD, resource_of
from infra.installs.identities import MANAGED_BY, labels_of
from infra.kubernetes.client import KubernetesClient, Object
from infra.kubernetes.install_namespaces import INSTALL_LABEL

# Who owns the fields of a release's objects.
RELEASE_MANAGER: Final = "helm"

KEPT_LABEL: Final = "bulkhead.io/kept"
_USED_BY: Final = "used-by.bulkhead.io/"

_HELM: Final = "Helm"
_RELEASE_NAME: Final = "meta.helm.sh/release-name"
_RELEASE_NAMESPACE: Final = "meta.helm.sh/release-namespace"

Labels = dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Stay:
    """That an object stays when its install has it no more.

    Attributes:
        why: for a sentence that begins with the object.
        labels: what becomes of its labels; None removes one.
    """

    why: str
    labels: Labels


def as_release(manifest: Object, install_id: str) -> Object:
    """Return an object with the marks that helm puts on what is a release's."""
    return _marked(manifest, {MANAGED_BY: _HELM}, _release_marks(install_id))


def as_cluster_object(manifest: Object, install_id: str) -> Object:
    """Return an object of cluster scope with the marks of its install."""
    return _marked(manifest, labels_of(install_id), {})


def is_of_release(live: Object, install_id: str) -> bool:
    """Tell whether helm made an object for the install's release, or took it over."""
    marks = _release_marks(install_id).items()
    annotations = live["metadata"].get("annotations") or {}
    return labels_on(live).get(MANAGED_BY) == _HELM and marks <= annotations.items()


def is_own(live: Object, install_id: str) -> bool:
    """Tell whether an object of cluster scope is the install's."""
    return labels_of(install_id).items() <= labels_on(live).items()


def is_left_over(live: Object) -> bool:
    """Tell whether an object of cluster scope outlived its install, so that any may have it."""
    labels = labels_on(live)
    return KEPT_LABEL in labels and INSTALL_LABEL not in labels


def is_of_another(live: Object, install_id: str) -> bool:
    """Tell whether an object of cluster scope is not the install's, and not to be had."""
    return not is_own(live, install_id) and not is_left_over(live)


def owner_of(live: Object) -> str | None:
    """Return the install whose an object of cluster scope is; None: none's."""
    owner = labels_on(live).get(INSTALL_LABEL)
    return None if owner is None else f"{Prefix.INSTALL}_{owner}"


def is_shared(live: Object, install_id: str) -> bool:
    """Tell whether it is a CRD of another install, which has it for this one too."""
    labels = labels_on(live)
    is_of_install = INSTALL_LABEL in labels and not is_own(live, install_id)
    return live["kind"] == CRD and is_of_install


def is_used_by(live: Object, install_id: str) -> bool:
    """Tell whether a CRD of another install is used by this one."""
    return use_label_of(install_id) in labels_on(live)


def use_label_of(install_id: str) -> str:
    """Return the label of what the install uses and another one has."""
    return f"{_USED_BY}{opaque_part(install_id)}"


def users_of(live: Object) -> list[str]:
    """Return the installs that use a CRD of another one, sorted."""
    found = [name for name in labels_on(live) if name.startswith(_USED_BY)]
    return sorted(f"{Prefix.INSTALL}_{name.removeprefix(_USED_BY)}" for name in found)


def is_never_removed(live: Object) -> bool:
    """Tell whether nobody but a person removes an object of cluster scope."""
    return is_kept(live) or KEPT_LABEL in labels_on(live)


def stay_of(client: KubernetesClient, live: Object, install_id: str) -> Stay | None:
    """Return why an object of the install's stays without it; None: it can go.

    Args:
        client: may list what is of the kinds that CRDs bring.
        live: of cluster scope, and the install's.
        install_id: which.
    """
    kept: Labels = {KEPT_LABEL: "true"}
    freed: Labels = {**dict.fromkeys(labels_of(install_id)), **kept}
    users = users_of(live)
    if users:
        handed: Labels = {**labels_of(users[0]), use_label_of(users[0]): None}
        why = f"the install {users[0]} uses it, and has it from now on"
        return Stay(why, {**handed, **(kept if is_never_removed(live) else {})})
    if is_kept(live):
        return Stay("its chart asks for that (helm.sh/resource-policy: keep)", freed)
    if is_never_removed(live):
        return Stay("it was there before, kept by an install that went", freed)
    if live["kind"] == CRD and _is_used_by_others(client, live, install_id):
        return Stay("others have objects of its kind", freed)
    return None


def labels_on(live: Object) -> Mapping[str, str]:
    """Return an object's labels."""
    found: Mapping[str, str] = live["metadata"].get("labels") or {}
    return found


def _is_used_by_others(client: KubernetesClient, crd: Object, install_id: str) -> bool:
    resource = resource_of(crd)
    if resource is None:
        return False
    space = install_namespace_of(install_id)
    return any(
        found["metadata"].get("namespace") != space
        if resource.namespaced
        else not is_own(found, install_id)
        for found in client.list_metadata(resource.collection())
    )


def _release_marks(install_id: str) -> dict[str, str]:
    space = install_namespace_of(install_id)
    return {_RELEASE_NAME: space, _RELEASE_NAMESPACE: space}


def _marked(manifest: Object, labels: dict[str, str], annotations: dict[str, str]) -> Object:
    metadata: dict[str, Any] = dict(manifest["metadata"])
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    if annotations:
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations}
    return {**manifest, "metadata": metadata}
