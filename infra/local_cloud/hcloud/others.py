"""What needs little: placement groups, images, SSH keys, volumes and primary IPs."""

import hashlib
from collections.abc import Mapping
from typing import Any

from infra.local_cloud.hcloud.errors import ApiError, invalid
from infra.local_cloud.hcloud.lookup import place_of
from infra.local_cloud.hcloud.networks import rename
from infra.local_cloud.hcloud.project import KINDS, Project
from infra.local_cloud.hcloud.servers import group_seen


def create(project: Project, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer `POST` of a kind."""
    named = project.named(kind, body)
    match kind:
        case "placement_groups":
            if body.get("type") != "spread":
                raise invalid("type", "must be spread")
            group = project.add(kind, {**named, "type": "spread"})
            return {"placement_group": group_seen(project, group), "action": None}
        case "ssh_keys":
            key = str(body.get("public_key", ""))
            digest = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
            mark = ":".join(digest[i : i + 2] for i in range(0, 32, 2))
            item = {**named, "public_key": key, "fingerprint": mark}
            return {"ssh_key": project.add(kind, item)}
        case "volumes":
            return _create_volume(project, named, body)
        case "primary_ips":
            return _create_primary_ip(project, named, body)
        case _:
            raise ApiError("not_found", f"{kind} cannot be created")


def change(project: Project, kind: str, number: int, body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer `PUT` of a kind."""
    item = project.get(kind, number)
    rename(project, kind, item, body)
    if kind == "images" and body.get("description"):
        item["description"] = body["description"]
    if kind == "primary_ips" and "auto_delete" in body:
        item["auto_delete"] = bool(body["auto_delete"])
    if kind == "placement_groups":
        item = group_seen(project, item)
    return {KINDS[kind]: item}


def remove(project: Project, kind: str, number: int) -> None:
    """Answer `DELETE` of a kind."""
    item = project.get(kind, number)
    if item.get("protection", {}).get("delete"):
        raise ApiError("protected", f"{KINDS[kind]} is delete protected")
    if kind == "placement_groups" and group_seen(project, item)["servers"]:
        raise ApiError("resource_in_use", "placement group has servers")
    if kind == "volumes" and item["server"] is not None:
        raise ApiError("resource_in_use", "volume is attached to a server")
    if kind == "primary_ips" and item["assignee_id"] is not None:
        raise ApiError("resource_in_use", "primary IP is assigned to a server")
    if kind == "images":
        project.boots.remove_snapshot(item.get("_boots", ""))
    del project.items[kind][number]


def act(
    project: Project, kind: str, number: int, action: str, body: Mapping[str, Any]
) -> dict[str, Any]:
    """Answer an action of a kind."""
    item = project.get(kind, number)
    match kind, action:
        case _, "change_protection" if "protection" in item:
            item["protection"] = {"delete": bool(body.get("delete"))}
        case "volumes", "attach":
            item["server"] = project.get("servers", int(body["server"]))["id"]
        case "volumes", "detach":
            item["server"] = None
        case "primary_ips", "unassign":
            item["assignee_id"] = None
        case _:
            raise ApiError("not_found", f"no such action: {action}")
    return {"action": project.start(action, [(KINDS[kind], number)])}


def _create_volume(
    project: Project, named: Mapping[str, Any], body: Mapping[str, Any]
) -> dict[str, Any]:
    volume = project.add(
        "volumes",
        {
            **named,
            "size": int(body.get("size", 10)),
            "server": body.get("server"),
            "location": place_of(body),
            "format": body.get("format"),
            "status": "available",
            "linux_device": "/dev/disk/by-id/scsi-0HC_Volume",
            "protection": {"delete": False},
        },
    )
    action = project.start("create_volume", [("volume", volume["id"])])
    return {"volume": volume, "action": action, "next_actions": []}


def _create_primary_ip(
    project: Project, named: Mapping[str, Any], body: Mapping[str, Any]
) -> dict[str, Any]:
    place = place_of(body)
    address = project.add(
        "primary_ips",
        {
            **named,
            "type": body.get("type", "ipv4"),
            "location": place,
            "dns_ptr": [],
            "assignee_id": body.get("assignee_id"),
            "assignee_type": body.get("assignee_type", "server"),
            "auto_delete": bool(body.get("auto_delete")),
            "blocked": False,
            "protection": {"delete": False},
        },
    )
    number = address["id"]
    address["ip"] = f"203.0.{number >> 8 & 255}.{number & 255}"
    return {"primary_ip": address, "action": None}
