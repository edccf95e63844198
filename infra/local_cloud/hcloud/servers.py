"""Servers: made, switched on and off, kept as snapshots, and removed."""

import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

from infra.local_cloud.hcloud import catalogue, firewalls, networks
from infra.local_cloud.hcloud.errors import ApiError, invalid
from infra.local_cloud.hcloud.lookup import image_of, place_of, server_type_of
from infra.local_cloud.hcloud.networks import rename
from infra.local_cloud.hcloud.project import Item, Project, labels_of, now

_HOST_NAME: Final = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
_USER_DATA_BYTES: Final = 32 * 1024
_PLACEMENT_GROUP_SERVERS: Final = 10
# What is known of a server and never told: keys that start with `_` stay inside.
_USER_DATA: Final = "_user_data"
_BOOTED: Final = "_booted"


def create(project: Project, body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer `POST /servers`."""
    named = project.named("servers", body)
    if not _HOST_NAME.fullmatch(named["name"]):
        raise invalid("name", "must be a valid hostname")
    kind, place = server_type_of(body), place_of(body)
    image = image_of(project, body, kind["architecture"])
    _check_references(project, body)
    _check_capacity(project, kind, place)
    server = project.add("servers", _new(named, kind, place, image, body))
    server["image"] = {**image}
    _give_public_addresses(project, server, body.get("public_net") or {})
    about = [("server", server["id"])]
    try:
        _attach_all(project, server, body)
    except ApiError:
        _forget(project, server["id"])
        raise
    if body.get("start_after_create", True):
        following = [
            project.start("start_server", about, lambda: _settle(project, server["id"], on=True))
        ]
        action = project.start("create_server", about)
    else:
        following = []
        action = project.start(
            "create_server", about, lambda: _settle(project, server["id"], on=False)
        )
    return {
        "server": seen(project, server),
        "action": action,
        "next_actions": following,
        "root_password": None if body.get("ssh_keys") else secrets.token_urlsafe(15),
    }


def seen(project: Project, server: Item) -> dict[str, Any]:
    """Return a server as the API tells of it."""
    public = {**server["public_net"], "firewalls": firewalls.of_server(project, server)}
    told = {**server, "public_net": public}
    group = server["placement_group"]
    if group is not None:
        told["placement_group"] = group_seen(project, project.get("placement_groups", group))
    return told


def change(project: Project, number: int, body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer `PUT /servers/{id}`."""
    server = project.get("servers", number)
    rename(project, "servers", server, body)
    return {"server": seen(project, server)}


def remove(project: Project, number: int) -> dict[str, Any]:
    """Answer `DELETE /servers/{id}`."""
    server = project.unlocked(number)
    if server["protection"]["delete"]:
        raise ApiError("protected", "server is delete protected")
    server["status"] = "deleting"

    def work() -> None:
        project.boots.remove(server["name"])
        with project.lock:
            _forget(project, number)

    return {"action": project.start("delete_server", [("server", number)], work)}


def act(project: Project, number: int, action: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer `POST /servers/{id}/actions/{action}`."""
    server = project.unlocked(number)
    about = [("server", number)]
    match action:
        case "poweron":
            server["status"] = "starting"
            return {
                "action": project.start(
                    "start_server", about, lambda: _settle(project, number, on=True)
                )
            }
        case "poweroff" | "shutdown":
            return {"action": _switch_off(project, server, action)}
        case "create_image":
            return _create_image(project, server, body)
        case "attach_to_network":
            networks.attach(project, server, int(body["network"]), body.get("ip"))
        case "detach_from_network":
            networks.detach(project, server, int(body["network"]))
        case "change_alias_ips":
            _attachment(server, int(body["network"]))["alias_ips"] = list(body["alias_ips"])
        case "change_protection":
            protection = {key: bool(body.get(key)) for key in ("delete", "rebuild")}
            server["protection"] = protection
        case "add_to_placement_group":
            _check_group(project, int(body["placement_group"]))
            server["placement_group"] = int(body["placement_group"])
        case "remove_from_placement_group":
            server["placement_group"] = None
        case _:
            raise ApiError("not_found", f"no such action: {action}")
    return {"action": project.start(action, about)}


def group_seen(project: Project, group: Item) -> dict[str, Any]:
    """Return a placement group as the API tells of it."""
    number = group["id"]
    members = project.of("servers", lambda server: server["placement_group"] == number)
    return {**group, "servers": [server["id"] for server in members]}


def _new(
    named: Mapping[str, Any], kind: Item, place: Item, image: Item, body: Mapping[str, Any]
) -> Item:
    user_data = body.get("user_data") or ""
    if len(user_data.encode()) > _USER_DATA_BYTES:
        raise invalid("user_data", f"must not be longer than {_USER_DATA_BYTES} bytes")
    return {
        **named,
        "status": "initializing",
        "server_type": kind,
        "location": place,
        "datacenter": next(d for d in catalogue.DATACENTERS if d["location"] == place),
        "image": image,
        "iso": None,
        "rescue_enabled": False,
        "locked": False,
        "backup_window": None,
        "outgoing_traffic": 0,
        "ingoing_traffic": 0,
        "included_traffic": 21990232555520,
        "primary_disk_size": kind["disk"],
        "protection": {"delete": False, "rebuild": False},
        "volumes": [],
        "load_balancers": [],
        "private_net": [],
        "public_net": {"ipv4": None, "ipv6": None, "floating_ips": []},
        "placement_group": body.get("placement_group"),
        _USER_DATA: user_data,
        _BOOTED: False,
    }


def _check_references(project: Project, body: Mapping[str, Any]) -> None:
    for number in body.get("networks") or []:
        project.get("networks", int(number))
    for reference in body.get("firewalls") or []:
        project.get("firewalls", int(reference["firewall"]))
    for key in body.get("ssh_keys") or []:
        if not project.of("ssh_keys", lambda item, key=key: key in {item["id"], item["name"]}):  # type: ignore[misc]
            raise ApiError("not_found", f"SSH key {key} not found")
    if group := body.get("placement_group"):
        _check_group(project, int(group))


def _check_group(project: Project, number: int) -> None:
    group = project.get("placement_groups", number)
    if len(group_seen(project, group)["servers"]) >= _PLACEMENT_GROUP_SERVERS:
        raise ApiError(
            "resource_limit_exceeded",
            f"placement group has already {_PLACEMENT_GROUP_SERVERS} servers",
        )


def _check_capacity(project: Project, kind: Item, place: Item) -> None:
    offered = {location["name"] for location in kind["locations"]}
    if place["name"] not in offered:
        raise invalid("location", f"server type {kind['name']} is not offered in this location")
    if project.faults.lacks_capacity(place["name"], kind["name"]):
        raise ApiError("resource_unavailable", "error during placement")


def _give_public_addresses(project: Project, server: Item, wanted: Mapping[str, Any]) -> None:
    for version, name in ((4, "ipv4"), (6, "ipv6")):
        if not wanted.get(f"enable_{name}", True):
            continue
        number = server["id"]
        address = (
            f"203.0.{number >> 8 & 255}.{number & 255}"
            if version == 4  # noqa: PLR2004 - of the protocol
            else f"2001:db8:{number & 0xFFFF:x}::/64"
        )
        primary = project.add(
            "primary_ips",
            {
                "name": f"primary_ip-{number}-{name}",
                "labels": {},
                "ip": address,
                "type": name,
                "location": server["location"],
                "datacenter": server["datacenter"],
                "dns_ptr": [],
                "assignee_id": number,
                "assignee_type": "server",
                "auto_delete": True,
                "blocked": False,
                "protection": {"delete": False},
            },
        )
        server["public_net"][name] = {
            "id": primary["id"],
            "ip": address,
            "blocked": False,
            "dns_ptr": [] if name == "ipv6" else "",
        }


def _attach_all(project: Project, server: Item, body: Mapping[str, Any]) -> None:
    for number in body.get("networks") or []:
        networks.attach(project, server, int(number))
    for reference in body.get("firewalls") or []:
        target = {"type": "server", "server": {"id": server["id"]}}
        project.get("firewalls", int(reference["firewall"]))["applied_to"].append(target)


def _attachment(server: Item, network: int) -> Item:
    for attached in server["private_net"]:
        if attached["network"] == network:
            return attached  # type: ignore[no-any-return]
    raise ApiError("not_found", "server is not attached to this network")


def _settle(project: Project, number: int, *, on: bool) -> None:
    """Switch a server on, for the first time or again, or leave it off."""
    with project.lock:
        server = project.get("servers", number)
        booted, name = server[_BOOTED], server["name"]
        attached = server["private_net"][0] if server["private_net"] else None
    if not on:
        server["status"] = "off"
        return
    if booted:
        project.boots.power_on(name)
    else:
        address = project.boots.create(
            name,
            user_data=server[_USER_DATA],
            network_key=f"hcloud-{attached['network']}" if attached else "hcloud-public",
            image=server["image"].get("_boots") or str(server["image"]["id"]),
        )
        if address is not None and attached is not None:
            # What runs here has the address that it could get here.
            attached["ip"] = str(address)
    with project.lock:
        server[_BOOTED] = True
        server["status"] = "running"


def _switch_off(project: Project, server: Item, action: str) -> Item:
    server["status"] = "stopping"

    def work() -> None:
        project.boots.power_off(server["name"])
        server["status"] = "off"

    command = "stop_server" if action == "poweroff" else "shutdown_server"
    return project.start(command, [("server", server["id"])], work)


def _create_image(project: Project, server: Item, body: Mapping[str, Any]) -> dict[str, Any]:
    image = project.add(
        "images",
        {
            **catalogue.SYSTEM_IMAGES[0],
            "id": 0,
            "created": now(),
            "type": body.get("type", "snapshot"),
            "status": "creating",
            "name": None,
            "description": body.get("description") or f"snapshot {now()}",
            "labels": labels_of(body),
            "disk_size": server["primary_disk_size"],
            "created_from": {"id": server["id"], "name": server["name"]},
            "os_flavor": server["image"]["os_flavor"],
            "os_version": server["image"]["os_version"],
            "architecture": server["image"]["architecture"],
            "rapid_deploy": False,
        },
    )

    def work() -> None:
        try:
            key = project.boots.snapshot(server["name"])
        except Exception:
            image["status"] = "unavailable"
            raise
        with project.lock:
            image.update(status="available", image_size=1.5, _boots=key)
            is_there = image["id"] in project.items["images"]
        if not is_there:
            # It was deleted meanwhile.
            project.boots.remove_snapshot(key)

    about = [("server", server["id"]), ("image", image["id"])]
    action = project.start("create_image", about, work)
    return {"image": image, "action": action}


def _forget(project: Project, number: int) -> None:
    """Remove a server with all that is only there for it."""
    server = project.items["servers"].pop(number)
    firewalls.forget_server(project, number)
    for attached in list(server["private_net"]):
        networks.detach(project, server, attached["network"])
    for address in project.of("primary_ips", lambda item: item["assignee_id"] == number):
        if address["auto_delete"]:
            del project.items["primary_ips"][address["id"]]
        else:
            address["assignee_id"] = None
    for volume in project.of("volumes", lambda item: item["server"] == number):
        volume["server"] = None
