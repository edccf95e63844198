"""How the pods of a workload take Kubernetes Secrets: once when they start, or again and again."""

from collections.abc import Iterator, Mapping
from typing import Any

from domain.live_object import Live, part


def taken_at_start(template: Mapping[str, Any]) -> frozenset[str]:
    """Return the Secrets whose values a pod has until it ends: in its environment, or by subPath.

    Args:
        template: a pod's, with its `spec`.
    """
    spec = part(template, "spec")
    by_volume = dict(_volumes(spec))
    found: set[str] = set()
    for container in _containers(spec):
        for variable in container.get("env") or ():
            found |= _named(part(part(variable, "valueFrom"), "secretKeyRef"))
        for source in container.get("envFrom") or ():
            found |= _named(part(source, "secretRef"))
        for mount in container.get("volumeMounts") or ():
            if mount.get("subPath") or mount.get("subPathExpr"):
                found |= by_volume.get(str(mount.get("name")), frozenset())
    return frozenset(found)


def mounted(template: Mapping[str, Any]) -> frozenset[str]:
    """Return the Secrets that are in a pod's volumes, where kubelets bring them up to date."""
    return frozenset(name for _, names in _volumes(part(template, "spec")) for name in names)


def template_of(workload: Live) -> Mapping[str, Any]:
    """Return the template of a workload's pods."""
    return part(part(workload, "spec"), "template")


def _containers(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from spec.get("initContainers") or ()
    yield from spec.get("containers") or ()


def _volumes(spec: Mapping[str, Any]) -> Iterator[tuple[str, frozenset[str]]]:
    for volume in spec.get("volumes") or ():
        names: set[str] = set()
        secret = part(volume, "secret")
        if secret.get("secretName"):
            names.add(str(secret["secretName"]))
        for source in part(volume, "projected").get("sources") or ():
            names |= _named(part(source, "secret"))
        yield str(volume.get("name")), frozenset(names)


def _named(reference: Mapping[str, Any]) -> frozenset[str]:
    name = reference.get("name")
    return frozenset() if not name else frozenset({str(name)})
