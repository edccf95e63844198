"""CustomResourceDefinitions of installs: the kinds that they bring, and versions that stay."""

import time
from collections.abc import Iterable
from typing import Any, Final

from domain.errors import BulkheadError, Reason
from infra.kubernetes.client import KubernetesClient, Object
from infra.kubernetes.discovery import ApiResource

CRD: Final = "CustomResourceDefinition"

# CRDs answer within a second; an API server under load takes longer.
_ESTABLISHED_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.2


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


def resource_of(crd: Object) -> ApiResource | None:
    """Return the kind that a live CRD brings, in a version that is served; None: in none."""
    spec, served = crd["spec"], _served(crd)
    if not served:
        return None
    names = spec["names"]
    return ApiResource(
        f"{spec['group']}/{served[0]}",
        names["kind"],
        names["plural"],
        spec["scope"] == "Namespaced",
    )


def is_served_to(live: Object, wanted: Object) -> bool:
    """Tell whether a live CRD brings the kind of a wanted one, in all versions that it serves."""
    same = ("kind", "plural")
    mine, theirs = live["spec"], wanted["spec"]
    return (
        mine["scope"] == theirs["scope"]
        and all(mine["names"][name] == theirs["names"][name] for name in same)
        and set(_served(wanted)) <= set(_served(live))
    )


def with_stored_versions(wanted: Object, live: Object | None) -> Object:
    """Return a CRD with the versions in which objects may be stored, which must never go from it.

    They are served no more, and objects that are written are stored in a version of the CRD's own.
    """
    kept = stored_versions_kept(wanted, live)
    if not kept:
        return wanted
    spec = wanted["spec"]
    return {**wanted, "spec": {**spec, "versions": [*spec["versions"], *kept]}}


def stored_versions_kept(wanted: Object, live: Object | None) -> list[dict[str, Any]]:
    """Return the versions that stay in a live CRD although the wanted one has them no more."""
    if live is None or wanted["kind"] != CRD:
        return []
    stored = (live.get("status") or {}).get("storedVersions") or []
    has = {version["name"] for version in wanted["spec"]["versions"]}
    return [
        {**version, "served": False, "storage": False}
        for version in live["spec"]["versions"]
        if version["name"] in stored and version["name"] not in has
    ]


def await_established(client: KubernetesClient, path: str) -> None:
    """Wait until a CRD's kinds are served.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when that takes too long; as `KubernetesClient`.
    """
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


def _served(crd: Object) -> list[str]:
    return [version["name"] for version in crd["spec"]["versions"] if version.get("served")]
