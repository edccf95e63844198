"""What of ours is in a project, by its labels."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from hcloud import Client

from domain.cloud import CloudResource, Provider, Tag

SERVER: Final = "server"
VOLUME: Final = "volume"
PRIMARY_IP: Final = "primary_ip"
SNAPSHOT: Final = "snapshot"
FIREWALL: Final = "firewall"
PLACEMENT_GROUP: Final = "placement_group"
NETWORK: Final = "network"
SUBNET: Final = "subnet"

_COSTS: Final = frozenset({SERVER, VOLUME, PRIMARY_IP, SNAPSHOT})
# The name by which our network program knows its subnet, which itself cannot have labels.
_SUBNET_RESOURCE: Final = "subnet"


def of(client: Client, workspace_id: str, stack_id: str | None) -> list[CloudResource]:
    """Return everything with a workspace's label, in the order in which it can be removed.

    A server's own addresses are without labels; they are made and go with it.
    """
    selector = f"{Tag.WORKSPACE}={workspace_id}"
    if stack_id is not None:
        selector += f",{Tag.STACK}={stack_id}"
    return list(_found(client, selector))


def _found(client: Client, selector: str) -> Iterator[CloudResource]:
    for kind, items in (
        (SERVER, client.servers.get_all(label_selector=selector)),
        (VOLUME, client.volumes.get_all(label_selector=selector)),
        (PRIMARY_IP, client.primary_ips.get_all(label_selector=selector)),
        (SNAPSHOT, client.images.get_all(type=["snapshot"], label_selector=selector)),
        (FIREWALL, client.firewalls.get_all(label_selector=selector)),
        (PLACEMENT_GROUP, client.placement_groups.get_all(label_selector=selector)),
    ):
        for item in items:
            yield _resource(kind, item)
    for network in client.networks.get_all(label_selector=selector):
        found = _resource(NETWORK, network)
        for subnet in network.subnets or []:
            yield CloudResource(
                provider=Provider.HCLOUD,
                kind=SUBNET,
                id=f"{found.id}-{subnet.ip_range}",
                name=f"{found.name} {subnet.ip_range}",
                place=str(subnet.network_zone),
                tags={**found.tags, Tag.RESOURCE: _SUBNET_RESOURCE},
                created_at=found.created_at,
                inherits=True,
            )
        yield found


def _resource(kind: str, item: Any) -> CloudResource:  # noqa: ANN401 - one form of many types
    labels: Mapping[str, str] = item.labels or {}
    created: datetime | None = item.created
    location = getattr(item, "location", None)
    return CloudResource(
        provider=Provider.HCLOUD,
        kind=kind,
        id=str(item.id),
        name=str(item.name or item.description),
        place=str(location.name) if location is not None else "",
        tags=dict(labels),
        created_at=created,
        costs=kind in _COSTS,
    )
