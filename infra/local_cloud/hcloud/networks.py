"""Networks, their subnets, and who has which address in them."""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Any, Final

from infra.local_cloud.hcloud import catalogue
from infra.local_cloud.hcloud.errors import ApiError, invalid
from infra.local_cloud.hcloud.project import Item, Project, labels_of

_MAXIMUM_ATTACHED: Final = 100


def create(project: Project, body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer `POST /networks`."""
    named = project.named("networks", body)
    network = {
        **named,
        "ip_range": str(_range(body, "ip_range")),
        "subnets": [],
        "routes": [],
        "servers": [],
        "load_balancers": [],
        "protection": {"delete": False},
        "expose_routes_to_vswitch": bool(body.get("expose_routes_to_vswitch")),
    }
    subnets = [_subnet(network, subnet) for subnet in body.get("subnets") or []]
    network["subnets"] = subnets
    return {"network": project.add("networks", network)}


def change(project: Project, number: int, body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer `PUT /networks/{id}`."""
    network = project.get("networks", number)
    rename(project, "networks", network, body)
    if "expose_routes_to_vswitch" in body:
        network["expose_routes_to_vswitch"] = bool(body["expose_routes_to_vswitch"])
    return {"network": network}


def remove(project: Project, number: int) -> None:
    """Answer `DELETE /networks/{id}`: servers that are attached are detached from it."""
    network = project.get("networks", number)
    if network["protection"]["delete"]:
        raise ApiError("protected", "network is delete protected")
    for server in project.items["servers"].values():
        server["private_net"] = [n for n in server["private_net"] if n["network"] != number]
    del project.items["networks"][number]


def act(project: Project, number: int, action: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer `POST /networks/{id}/actions/{action}`."""
    network = project.get("networks", number)
    match action:
        case "add_subnet":
            network["subnets"] = [*network["subnets"], _subnet(network, body)]
        case "delete_subnet":
            _delete_subnet(project, network, str(body.get("ip_range")))
        case "change_protection":
            network["protection"] = {"delete": bool(body.get("delete"))}
        case _:
            raise ApiError("not_found", f"no such action: {action}")
    return {"action": project.start(action, [("network", number)])}


def rename(project: Project, kind: str, item: Item, body: Mapping[str, Any]) -> None:
    """Change a name and labels, where a request has them."""
    if body.get("name") not in {None, item["name"]}:
        item["name"] = project.named(kind, body)["name"]
    if body.get("labels") is not None:
        item["labels"] = labels_of(body)


def attach(
    project: Project, server: Item, network_id: int, asked: str | None = None
) -> dict[str, Any]:
    """Give a server an address in a network, and return the attachment."""
    network = project.get("networks", network_id)
    if any(net["network"] == network_id for net in server["private_net"]):
        raise ApiError("server_already_attached", "server is already attached to this network")
    if len(network["servers"]) >= _MAXIMUM_ATTACHED:
        raise ApiError("resource_limit_exceeded", "network has too many resources attached")
    address, subnet = _free_address(project, network, server, asked)
    attached = {
        "network": network_id,
        "ip": address,
        # What boots here has another address than the API chose.
        "_subnet": subnet,
        "alias_ips": [],
        "mac_address": f"86:00:00:{server['id'] >> 16 & 255:02x}:{server['id'] >> 8 & 255:02x}"
        f":{server['id'] & 255:02x}",
    }
    server["private_net"].append(attached)
    network["servers"].append(server["id"])
    return attached


def detach(project: Project, server: Item, network_id: int) -> None:
    """Take a server out of a network."""
    network = project.get("networks", network_id)
    server["private_net"] = [n for n in server["private_net"] if n["network"] != network_id]
    network["servers"] = [number for number in network["servers"] if number != server["id"]]


def _range(body: Mapping[str, Any], field: str) -> IPv4Network:
    try:
        found = ip_network(str(body.get(field)))
    except ValueError:
        raise invalid(field, "must be a CIDR of a network") from None
    if not isinstance(found, IPv4Network) or not found.is_private:
        raise invalid(field, "must be a private IPv4 network")
    return found


def _subnet(network: Item, body: Mapping[str, Any]) -> Item:
    zone = body.get("network_zone")
    if zone not in {place["network_zone"] for place in catalogue.LOCATIONS}:
        raise invalid("network_zone", "network zone not found")
    wanted, whole = _range(body, "ip_range"), IPv4Network(network["ip_range"])
    if not wanted.subnet_of(whole):
        raise invalid("ip_range", "is not within the network's ip_range")
    if any(wanted.overlaps(IPv4Network(subnet["ip_range"])) for subnet in network["subnets"]):
        raise ApiError("invalid_input", "overlaps with another subnet")
    return {
        "type": body.get("type", "cloud"),
        "ip_range": str(wanted),
        "network_zone": zone,
        "gateway": str(whole[1]),
        "vswitch_id": None,
    }


def _delete_subnet(project: Project, network: Item, ip_range: str) -> None:
    if all(subnet["ip_range"] != ip_range for subnet in network["subnets"]):
        raise ApiError("not_found", f"subnet {ip_range} not found")
    if any(net["_subnet"] == ip_range for net in _attachments(project, network["id"])):
        raise ApiError("service_error", "cannot remove subnet because servers are attached to it")
    network["subnets"] = [s for s in network["subnets"] if s["ip_range"] != ip_range]


def _attachments(project: Project, network_id: int) -> Iterator[Item]:
    for server in project.items["servers"].values():
        for net in server["private_net"]:
            if net["network"] == network_id:
                yield net


def _free_address(
    project: Project, network: Item, server: Item, asked: str | None
) -> tuple[str, str]:
    """Return an address, and the subnet of the server's zone that it is in."""
    zone = server["location"]["network_zone"]
    taken = {net["ip"] for net in _attachments(project, network["id"])}
    taken |= {subnet["gateway"] for subnet in network["subnets"]}
    for subnet in network["subnets"]:
        hosts = IPv4Network(subnet["ip_range"])
        if subnet["network_zone"] != zone or (asked and ip_address(asked) not in hosts):
            continue
        for host in map(str, [asked] if asked else hosts.hosts()):
            if host not in taken:
                return host, subnet["ip_range"]
    if asked:
        raise ApiError("ip_not_available", "IP not available")
    raise ApiError("no_subnet_available", "network has no subnet with a free IP in this zone")
