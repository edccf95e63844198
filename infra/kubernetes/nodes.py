"""Node objects: what they show, and the little that the platform changes in them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from domain.errors import BulkheadError, Reason
from domain.foreign_text import printable
from infra.kubernetes.client import KubernetesClient, Object, none_if_missing

_NODES: Final = "/api/v1/nodes"
_LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"

_READY: Final = "Ready"

# Root on a server chooses them, and the platform stores and shows them.
_MOST_CONDITIONS: Final = 32

# Whose clock is further off than this reaches no API server at all: it is no time that a kubelet
# writes, and one at either end of the calendar could be stored and not be read again.
_CLOCK_LIMIT: Final = timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeSight:
    """One Node object and its kubelet's lease, as found.

    Attributes:
        name: of the Node object.
        uid: of the Node object; tokens that are bound to it die with it.
        ready: what its Ready condition says; None when the cluster lost touch with the kubelet.
        conditions: each condition's status, reason and message by its type.
        addresses: all that the kubelet gave, names included.
        kubelet_version: as the kubelet says.
        schedulable: whether new pods may be placed on it.
        heard_at: when its kubelet last renewed its lease; the Node's birth before the first time,
            and where the lease has no time that a kubelet would write.
    """

    name: str
    uid: str
    ready: bool | None
    conditions: dict[str, Any]
    addresses: frozenset[str]
    kubelet_version: str
    schedulable: bool
    heard_at: datetime

    @property
    def message(self) -> str:
        """What the Ready condition says in words."""
        return str(self.conditions.get(_READY, {}).get("message", ""))

    @property
    def pressures(self) -> tuple[str, ...]:
        """The conditions that should be false, and are not."""
        return tuple(
            sorted(
                kind
                for kind, condition in self.conditions.items()
                if kind != _READY and condition["status"] == "True"
            )
        )


def path_of(name: str) -> str:
    """Return the path of a Node object."""
    return f"{_NODES}/{name}"


def list_nodes(client: KubernetesClient) -> dict[str, NodeSight]:
    """Return all nodes of a cluster by name."""
    leases = {lease["metadata"]["name"]: lease for lease in client.list_all(_LEASES)}
    nodes = client.list_all(_NODES)
    return {
        node["metadata"]["name"]: _sight_of(node, leases.get(node["metadata"]["name"]))
        for node in nodes
    }


def set_schedulable(client: KubernetesClient, name: str, *, schedulable: bool) -> bool:
    """Let new pods be placed on a node, or none; return whether there is such a node."""
    try:
        client.patch(path_of(name), {"spec": {"unschedulable": None if schedulable else True}})
    except BulkheadError as error:
        if error.reason is Reason.NOT_FOUND:
            return False
        raise
    return True


def remove_node(client: KubernetesClient, name: str) -> bool:
    """Remove a Node object and its lease; return whether there was anything."""
    had_node = _remove(client, path_of(name))
    return _remove(client, f"{_LEASES}/{name}") or had_node


def remains_of(client: KubernetesClient, name: str) -> dict[str, list[str]]:
    """Look for what is left of a node, by kind; every list is empty when nothing is."""
    return {
        "node": [name] if client.find(path_of(name)) is not None else [],
        "lease": [name] if client.find(f"{_LEASES}/{name}") is not None else [],
    }


def _remove(client: KubernetesClient, path: str) -> bool:
    if not client.delete(path):
        return False
    # Root on the server can have given it finalizers, with which it would stay for ever.
    left = client.find(path)
    if left is not None and left["metadata"].get("finalizers"):
        none_if_missing(lambda: client.patch(path, {"metadata": {"finalizers": None}}))
    return True


def _sight_of(node: Object, lease: Object | None) -> NodeSight:
    metadata, status = node["metadata"], node.get("status", {})
    conditions = {
        printable(condition["type"]): {
            "status": printable(condition["status"]),
            "reason": printable(condition.get("reason", "")),
            "message": printable(condition.get("message", "")),
        }
        for condition in status.get("conditions", [])[:_MOST_CONDITIONS]
    }
    ready = conditions.get(_READY, {}).get("status")
    return NodeSight(
        name=metadata["name"],
        uid=metadata["uid"],
        ready={"True": True, "False": False}.get(str(ready)),
        conditions=conditions,
        addresses=frozenset(address["address"] for address in status.get("addresses", [])),
        kubelet_version=printable(status.get("nodeInfo", {}).get("kubeletVersion", "")),
        schedulable=not node.get("spec", {}).get("unschedulable", False),
        heard_at=_heard_at(lease, datetime.fromisoformat(metadata["creationTimestamp"])),
    )


def _heard_at(lease: Object | None, born: datetime) -> datetime:
    """Return when a lease was renewed, as far as that can be: root on its server writes it."""
    try:
        renewed = datetime.fromisoformat((lease or {})["spec"]["renewTime"])
    except (KeyError, TypeError, ValueError):
        return born
    is_likely = born - _CLOCK_LIMIT < renewed < datetime.now(UTC) + _CLOCK_LIMIT
    return renewed if is_likely else born
