"""Firewalls: their rules, and the servers that they are applied to."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from infra.local_cloud.hcloud.errors import ApiError, invalid
from infra.local_cloud.hcloud.lookup import selected
from infra.local_cloud.hcloud.networks import rename
from infra.local_cloud.hcloud.project import Item, Project

_PROTOCOLS: Final = frozenset({"tcp", "udp", "icmp", "esp", "gre"})
_WITH_PORTS: Final = frozenset({"tcp", "udp"})
_MAXIMUM_RULES: Final = 50


def create(project: Project, body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer `POST /firewalls`."""
    named = project.named("firewalls", body)
    rules = _rules(body.get("rules") or [])
    targets = list(body.get("apply_to") or [])
    for target in targets:
        _known(project, target)
    firewall = project.add("firewalls", {**named, "rules": rules, "applied_to": targets})
    return {"firewall": firewall, "actions": _applied(project, firewall)}


def change(project: Project, number: int, body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer `PUT /firewalls/{id}`."""
    firewall = project.get("firewalls", number)
    rename(project, "firewalls", firewall, body)
    return {"firewall": firewall}


def remove(project: Project, number: int) -> None:
    """Answer `DELETE /firewalls/{id}`."""
    firewall = project.get("firewalls", number)
    if firewall["applied_to"]:
        raise ApiError("resource_in_use", "firewall is still in use")
    del project.items["firewalls"][number]


def act(project: Project, number: int, action: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer `POST /firewalls/{id}/actions/{action}`."""
    firewall = project.get("firewalls", number)
    match action:
        case "set_rules":
            firewall["rules"] = _rules(body.get("rules") or [])
        case "apply_to_resources":
            for target in body.get("apply_to") or []:
                _known(project, target)
                if target in firewall["applied_to"]:
                    raise ApiError("firewall_already_applied", "firewall is already applied")
                firewall["applied_to"].append(target)
        case "remove_from_resources":
            gone = list(body.get("remove_from") or [])
            kept = [target for target in firewall["applied_to"] if target not in gone]
            firewall["applied_to"] = kept
        case _:
            raise ApiError("not_found", f"no such action: {action}")
    return {"actions": [project.start(f"{action}_firewall", [("firewall", number)])]}


def of_server(project: Project, server: Item) -> list[dict[str, Any]]:
    """Return what a server's public network says of its firewalls."""
    return [
        {"id": firewall["id"], "status": "applied"}
        for firewall in project.items["firewalls"].values()
        if any(_applies(target, server) for target in firewall["applied_to"])
    ]


def forget_server(project: Project, number: int) -> None:
    """Take a server that is gone out of all firewalls."""
    for firewall in project.items["firewalls"].values():
        firewall["applied_to"] = [
            target
            for target in firewall["applied_to"]
            if target.get("type") != "server" or target["server"]["id"] != number
        ]


def _applies(target: Mapping[str, Any], server: Item) -> bool:
    if target["type"] == "server":
        return bool(target["server"]["id"] == server["id"])
    return selected(target["label_selector"]["selector"])(server)


def _known(project: Project, target: Mapping[str, Any]) -> None:
    match target.get("type"):
        case "server":
            project.get("servers", int(target["server"]["id"]))
        case "label_selector":
            selected(target["label_selector"]["selector"])
        case _:
            raise invalid("apply_to", "type must be server or label_selector")


def _applied(project: Project, firewall: Item) -> list[Item]:
    about = [("firewall", firewall["id"])]
    actions = [project.start("set_firewall_rules", about)]
    if firewall["applied_to"]:
        actions.append(project.start("apply_firewall", about))
    return actions


def _rules(rules: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if len(rules) > _MAXIMUM_RULES:
        raise invalid("rules", f"has at most {_MAXIMUM_RULES}")
    for rule in rules:
        if rule.get("direction") not in {"in", "out"} or rule.get("protocol") not in _PROTOCOLS:
            raise invalid("rules", "direction or protocol is not valid")
        if (rule["protocol"] in _WITH_PORTS) != bool(rule.get("port")):
            raise invalid("rules", "port is required for tcp and udp alone")
        ends = "source_ips" if rule["direction"] == "in" else "destination_ips"
        if not rule.get(ends):
            raise invalid("rules", f"{ends} is required")
    return [
        {
            "direction": rule["direction"],
            "protocol": rule["protocol"],
            "port": rule.get("port"),
            "source_ips": list(rule.get("source_ips") or []),
            "destination_ips": list(rule.get("destination_ips") or []),
            "description": rule.get("description"),
        }
        for rule in rules
    ]
