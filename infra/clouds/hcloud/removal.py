"""Removes one thing from a project and waits until it is gone."""

import time
from collections.abc import Callable
from typing import Final, NoReturn

from hcloud import APIException, Client
from hcloud.networks import NetworkSubnet

from domain.cloud import CloudResource
from domain.errors import BulkheadError, Reason
from infra.clouds.hcloud import inventory as kinds

_NOT_FOUND: Final = "not_found"
_LOCKED: Final = "locked"
# Hetzner says only that a service failed when a subnet still has servers.
_SUBNET_IN_USE: Final = "service_error"
# Another action has the server: a create that was cut short runs to its end there.
_LOCKED_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.5


def remove(client: Client, resource: CloudResource) -> None:
    """Remove a resource; see `Cloud.remove`."""
    try:
        _ways(client)[resource.kind](resource.id)
    except APIException as refusal:
        if refusal.code != _NOT_FOUND:
            raise


def _ways(client: Client) -> dict[str, Callable[[str], None]]:
    return {
        kinds.SERVER: lambda number: _remove_server(client, int(number)),
        kinds.VOLUME: lambda number: _remove_volume(client, int(number)),
        kinds.PRIMARY_IP: lambda number: _remove_primary_ip(client, int(number)),
        kinds.SNAPSHOT: lambda number: _delete(client, f"/images/{int(number)}"),
        kinds.FIREWALL: lambda number: _delete(client, f"/firewalls/{int(number)}"),
        kinds.PLACEMENT_GROUP: lambda number: _delete(client, f"/placement_groups/{int(number)}"),
        kinds.SUBNET: lambda name: _remove_subnet(client, name),
        kinds.NETWORK: lambda number: _remove_network(client, int(number)),
    }


def _delete(client: Client, path: str) -> None:
    client.request(method="DELETE", url=path)


def _remove_server(client: Client, number: int) -> None:
    server = client.servers.get_by_id(number)
    deadline = time.monotonic() + _LOCKED_SECONDS
    while True:
        try:
            server.delete().wait_until_finished()
        except APIException as refusal:
            if refusal.code != _LOCKED or time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)
        else:
            return


def _remove_volume(client: Client, number: int) -> None:
    volume = client.volumes.get_by_id(number)
    if volume.server is not None:
        volume.detach().wait_until_finished()
    volume.delete()


def _remove_primary_ip(client: Client, number: int) -> None:
    address = client.primary_ips.get_by_id(number)
    if address.assignee_id is not None:
        _refuse(f"The primary IP {address.name} is a server's.")
    address.delete()


def _remove_subnet(client: Client, name: str) -> None:
    number, _, ip_range = name.partition("-")
    network = client.networks.get_by_id(int(number))
    for subnet in network.subnets or []:
        if subnet.ip_range == ip_range:
            try:
                network.delete_subnet(NetworkSubnet(ip_range=ip_range)).wait_until_finished()
            except APIException as refusal:
                if refusal.code != _SUBNET_IN_USE:
                    raise
                _refuse(f"The subnet {ip_range} still has servers.")


def _remove_network(client: Client, number: int) -> None:
    network = client.networks.get_by_id(number)
    if network.servers:
        # Hetzner would cut them off instead of refusing.
        _refuse(f"The network {network.name} still has servers.")
    network.delete()


def _refuse(sentence: str) -> NoReturn:
    raise BulkheadError(Reason.CONFLICT, f"{sentence} Remove them first.")
