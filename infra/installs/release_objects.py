"""Removes what of an install's release helm does not: what is in the way, and what a failure left.

Only what is the release's own goes. Customers, operators and controllers have objects in the same
namespace, which may have the names of a chart's.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from domain.names import install_namespace_of
from infra.helm.manifest import HOOK, hooks_of, is_kept, key_of
from infra.installs.applier import IN_BACKGROUND, await_gone
from infra.installs.ownership import is_of_release
from infra.installs.planner import conflicts
from infra.kubernetes.client import KubernetesClient, Object
from infra.kubernetes.discovery import Discovery

# What customers' data are in.
_CLAIM: Final = "PersistentVolumeClaim"
# Hooks that go on for as long as they are there.
_RUNNING: Final = frozenset({"Job", "Pod"})
_NOT_CONTENT: Final = frozenset({"metadata", "status"})
# At which points an upgrade runs hooks.
_OF_UPGRADES: Final = frozenset({"pre-upgrade", "post-upgrade"})


def make_way(
    client: KubernetesClient,
    install_id: str,
    manifests: Sequence[Object],
    replaced: Collection[str],
) -> list[Object]:
    """Remove what keeps helm from bringing a release back; return it as it can be had.

    What is to be kept, or is not the release's any more, stays as it is. So does a claim that was
    not replaced, for it has what customers stored: one that grew, say, never shrinks.

    Args:
        client: as the install's deployer.
        install_id: which.
        manifests: the release that shall be there again.
        replaced: keys of what was approved to go, and so is not what it was.

    Raises:
        BulkheadError: as `conflicts` and `remove_release_objects`.
    """
    discovery = Discovery(client)
    stays: dict[str, Object] = {}
    going = []
    for found in conflicts(client, install_id, manifests):
        path = discovery.path_of(found, install_namespace_of(install_id))
        live = None if path is None else client.find(path)
        is_data = found["kind"] == _CLAIM and key_of(found) not in replaced
        is_lasting = is_data or (live is not None and is_kept(live))
        if live is not None and (is_lasting or not is_of_release(live, install_id)):
            content = {name: held for name, held in live.items() if name not in _NOT_CONTENT}
            stays[key_of(found)] = {**content, "metadata": found["metadata"]}
        else:
            going.append(found)
    remove_release_objects(client, install_id, going)
    return [stays.get(key_of(found), found) for found in manifests]


def remove_release_objects(
    client: KubernetesClient, install_id: str, manifests: Iterable[Object]
) -> None:
    """Remove what of these objects is the release's, and wait until it is gone.

    Whatever else has such a name in the namespace is somebody's, and stays.

    Raises:
        BulkheadError: CONFLICT, worth another try, while one of them ends; as `KubernetesClient`.
    """

    def is_of_it(manifest: Object, live: Object) -> bool:
        is_hook = bool(hooks_of(manifest)) and HOOK in (live["metadata"].get("annotations") or {})
        return is_hook or is_of_release(live, install_id)

    _remove(client, install_id, manifests, is_of_it)


def remove_replaced(
    client: KubernetesClient, install_id: str, manifests: Iterable[Object], uids: Mapping[str, str]
) -> None:
    """Remove the very objects that a plan showed as replaced; what came after them stays.

    Args:
        client: as the install's deployer.
        install_id: which.
        manifests: what shall be there.
        uids: of what was live when it was planned, by key.

    Raises:
        BulkheadError: as `remove_release_objects`.
    """
    going = [found for found in manifests if key_of(found) in uids and not hooks_of(found)]
    _remove(
        client,
        install_id,
        going,
        lambda manifest, live: bool(live["metadata"]["uid"] == uids[key_of(manifest)]),
    )


def added_by(
    failed: Sequence[Object], added: Collection[str], good: Sequence[Object]
) -> list[Object]:
    """Return what a failed render brought to the namespace, and what is deployed does not have.

    Args:
        failed: its objects.
        added: keys of what was not there when it was planned.
        good: the objects of what is deployed.
    """
    has = {key_of(found) for found in good if not hooks_of(found)}
    had = {key_of(found) for found in good}

    def goes(found: Object) -> bool:
        if hooks_of(found):
            # What its hook left in place of one of the good render's may be needed.
            ran = bool(hooks_of(found) & _OF_UPGRADES)
            return ran and (found["kind"] in _RUNNING or key_of(found) not in had)
        return key_of(found) in added and not is_kept(found)

    return [
        found
        for found in failed
        if found["metadata"].get("namespace") and key_of(found) not in has and goes(found)
    ]


def _remove(
    client: KubernetesClient,
    install_id: str,
    manifests: Iterable[Object],
    may_go: Callable[[Object, Object], bool],
) -> None:
    space = install_namespace_of(install_id)
    discovery = Discovery(client)
    going = []
    for manifest in manifests:
        path = discovery.path_of(manifest, space)
        live = None if path is None else client.find(path)
        if path is not None and live is not None and may_go(manifest, live):
            client.delete(path, uid=live["metadata"]["uid"], propagation=IN_BACKGROUND)
            going.append(path)
    await_gone(client, going)
