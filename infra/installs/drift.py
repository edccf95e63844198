"""Compares live objects with a render: dry runs of server-side apply, and digests for Secrets.

What others added to an object, such as a label or a sidecar, is no drift: applying the render again
would leave it.
"""

import base64
import binascii
from collections.abc import Iterable, Sequence
from typing import Any, Final

from domain.errors import BulkheadError
from domain.install_drift import ObjectDrift
from domain.names import install_namespace_of
from infra.helm.manifest import datum_digest, hooks_of, is_secret, key_of
from infra.installs.crds import with_stored_versions
from infra.installs.object_diff import HIDDEN, differences
from infra.installs.ownership import RELEASE_MANAGER, as_cluster_object, as_release, is_shared
from infra.kubernetes.client import FIELD_MANAGER, KubernetesClient, Object
from infra.kubernetes.discovery import Discovery

# Owns nothing: what a Secret's render leaves out here stays as it is.
_OBSERVER: Final = "bulkhead-drift"

_SECRET_FIELDS: Final = ("data", "stringData")
_PRESENT: Final = "(as rendered)"

# Of one object: a person reads the object itself for more.
_MOST_DIFFERENCES: Final = 50

_UNPROCESSABLE: Final = "422"


def find_drift(
    client: KubernetesClient, install_id: str, manifest: Sequence[Object], render_key: bytes
) -> list[ObjectDrift]:
    """Return the objects that are not as they were rendered. Nothing is changed.

    What an admission webhook refuses cannot be compared, and is left out.

    Args:
        client: of the cluster; it may see and apply everything.
        install_id: whose objects these are.
        manifest: of the render that is on the cluster, with digests for Secrets' data.
        render_key: with which these were made.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when the API server does not answer.
    """
    discovery = Discovery(client)
    found = []
    for wanted in manifest:
        if hooks_of(wanted):
            continue
        delta = _delta(client, discovery, install_id, wanted, render_key)
        if delta:
            found.append(ObjectDrift(key=key_of(wanted), delta=tuple(delta[:_MOST_DIFFERENCES])))
    return found


def _delta(
    client: KubernetesClient,
    discovery: Discovery,
    install_id: str,
    wanted: Object,
    render_key: bytes,
) -> list[dict[str, Any]]:
    path = discovery.path_of(wanted, install_namespace_of(install_id))
    live = None if path is None else client.find(path)
    if path is None or live is None:
        return [{"path": "", "before": None, "after": _PRESENT}]
    if is_secret(wanted):
        bare = {name: value for name, value in wanted.items() if name not in _SECRET_FIELDS}
        marked = as_release(bare, install_id)
        # A label or an annotation may say of it what nobody should know.
        shown = [_hidden(one) for one in _compare(client, path, live, marked, _OBSERVER)]
        return [*shown, *_changed_data(wanted, live, render_key)]
    if wanted["metadata"].get("namespace"):
        marked, manager = as_release(wanted, install_id), RELEASE_MANAGER
    elif is_shared(live, install_id):
        return []
    else:
        as_it_may_be = with_stored_versions(wanted, live)
        marked, manager = as_cluster_object(as_it_may_be, install_id), FIELD_MANAGER
    return list(_compare(client, path, live, marked, manager))


def _compare(
    client: KubernetesClient, path: str, live: Object, marked: Object, manager: str
) -> Iterable[dict[str, Any]]:
    try:
        applied = client.apply(path, marked, manager=manager, dry_run=True)
    except BulkheadError as error:
        if error.retryable or "status" not in error.metadata:
            raise
        if error.metadata["status"] == _UNPROCESSABLE:
            # Somebody made it anew, with another value in a field that never changes.
            return differences(live, marked, only_wanted=True)
        return ()
    return differences(live, applied)


def _changed_data(wanted: Object, live: Object, render_key: bytes) -> list[dict[str, Any]]:
    held = live.get("data") or {}
    rendered = {
        name: digest
        for field in _SECRET_FIELDS
        for name, digest in (wanted.get(field) or {}).items()
    }
    key = key_of(wanted)
    return [
        {"path": f"data.{name}", "before": HIDDEN if name in held else None, "after": HIDDEN}
        for name, digest in sorted(rendered.items())
        if name not in held or datum_digest(render_key, key, name, _decoded(held[name])) != digest
    ]


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value)
    except binascii.Error:
        return value.encode()


def _hidden(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "path": found["path"],
        "before": None if found["before"] is None else HIDDEN,
        "after": None if found["after"] is None else HIDDEN,
    }
