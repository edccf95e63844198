"""Servers, as the engine makes them."""

from typing import Any

from infra.local_cloud.hcloud.provider_client import ProviderClient
from infra.local_cloud.provider_programs import (
    CheckRefusal,
    Found,
    PartialError,
    Properties,
    ProviderError,
    Resource,
)


class ServerResource(Resource[ProviderClient]):
    """`hcloud:index/server:Server`.

    As the real program does, it makes a server that is to be in networks switched off, attaches
    it, and then switches it on: what fails in between leaves a server.
    """

    replace_on = frozenset({"datacenter", "image", "location", "sshKeys", "userData"})
    delete_before_replace = True
    computed = frozenset(
        {"datacenter", "location", "deleteProtection", "rebuildProtection", "publicNets", "image"}
    )
    unreadable = frozenset(
        {
            *("userData", "sshKeys", "publicNets", "keepDisk", "allowDeprecatedImages"),
            *("shutdownBeforeDeletion", "ignoreRemoteFirewallIds"),
        }
    )
    secret = frozenset({"userData"})

    def check(self, inputs: Properties) -> list[CheckRefusal]:
        """Refuse a server without a size."""
        return [] if inputs.get("serverType") else [CheckRefusal("serverType", "is required")]

    def create(self, inputs: Properties) -> tuple[str, Properties]:
        """Make it and wait until it runs."""
        answer = self.client.call("POST", "/servers", _body(inputs))
        number = answer["server"]["id"]
        try:
            self.client.wait(answer)
            self._finish(number, inputs)
        except ProviderError as failure:
            raise PartialError(str(number), _told(answer["server"]), str(failure)) from failure
        return str(number), _told(self._get(number))

    def read(self, resource_id: str, inputs: Properties) -> Found | None:
        """Read it."""
        found = self.client.find(f"/servers/{resource_id}", "server")
        if found is None:
            return None
        told = _told(found)
        names = (
            *("name", "serverType", "image", "location", "labels", "firewallIds", "networks"),
            *("placementGroupId", "deleteProtection", "rebuildProtection"),
        )
        return Found(resource_id, told, {name: told[name] for name in names})

    def update(
        self, resource_id: str, outputs: Properties, old: Properties, new: Properties
    ) -> Properties:
        """Change its name, labels, firewalls and networks; finish one that is half made.

        The real program does more in place, for which the server must be off.
        """
        for key in ("serverType", "placementGroupId", "backups"):
            if old.get(key) != new.get(key):
                message = f"This provider program does not change {key} of a server in place."
                raise ProviderError(message)
        path = f"/servers/{resource_id}"
        self.client.call("PUT", path, {"name": new["name"], "labels": new.get("labels", {})})
        server = self._get(int(resource_id))
        self._set_firewalls(server, new.get("firewallIds") or [])
        wanted = {net["networkId"] for net in new.get("networks") or []}
        for attached in server["private_net"]:
            if attached["network"] not in wanted:
                body = {"network": attached["network"]}
                self.client.act(f"{path}/actions/detach_from_network", body)
        self._finish(int(resource_id), new)
        return _told(self._get(int(resource_id)))

    def delete(self, resource_id: str, outputs: Properties) -> None:
        """Delete it and wait until it is gone."""
        path = f"/servers/{resource_id}"
        if outputs.get("shutdownBeforeDeletion") and self.client.find(path, "server"):
            self.client.act(f"{path}/actions/shutdown")
        self.client.remove(path)

    def same(self, key: str, old: Any, new: Any) -> bool:
        """Compare networks by what the program says of them, and firewalls as a set."""
        if key == "networks":
            return _networks_key(old, new) == _networks_key(new, old)
        if key == "firewallIds":
            return set(old or []) == set(new or [])
        return super().same(key, old, new)

    def _get(self, number: int) -> dict[str, Any]:
        return dict(self.client.call("GET", f"/servers/{number}")["server"])

    def _finish(self, number: int, inputs: Properties) -> None:
        """Attach a server to what it is not attached to yet, and switch it on."""
        path, server = f"/servers/{number}", self._get(number)
        attached = {net["network"] for net in server["private_net"]}
        for net in inputs.get("networks") or []:
            if net["networkId"] not in attached:
                body = {"network": net["networkId"], "alias_ips": net.get("aliasIps") or []}
                if net.get("ip"):
                    body["ip"] = net["ip"]
                self.client.act(f"{path}/actions/attach_to_network", body)
        if server["status"] == "off":
            self.client.act(f"{path}/actions/poweron")
        if inputs.get("deleteProtection") and not server["protection"]["delete"]:
            body = {"delete": True, "rebuild": bool(inputs.get("rebuildProtection"))}
            self.client.act(f"{path}/actions/change_protection", body)

    def _set_firewalls(self, server: dict[str, Any], wanted: list[int]) -> None:
        applied = {firewall["id"] for firewall in server["public_net"]["firewalls"]}
        target = [{"type": "server", "server": {"id": server["id"]}}]
        for number in set(wanted) - applied:
            path = f"/firewalls/{number}/actions/apply_to_resources"
            self.client.act(path, {"apply_to": target})
        for number in applied - set(wanted):
            path = f"/firewalls/{number}/actions/remove_from_resources"
            self.client.act(path, {"remove_from": target})


def _body(inputs: Properties) -> dict[str, Any]:
    public: Properties = next(iter(inputs.get("publicNets") or []), {})
    body = {
        "name": inputs["name"],
        "server_type": inputs["serverType"],
        "image": inputs["image"],
        "labels": inputs.get("labels", {}),
        "user_data": inputs.get("userData", ""),
        "ssh_keys": inputs.get("sshKeys", []),
        "firewalls": [{"firewall": number} for number in inputs.get("firewallIds") or []],
        "public_net": {
            "enable_ipv4": public.get("ipv4Enabled", True),
            "enable_ipv6": public.get("ipv6Enabled", True),
        },
        "start_after_create": not inputs.get("networks"),
    }
    for key, name in (
        ("location", "location"),
        ("datacenter", "datacenter"),
        ("placementGroupId", "placement_group"),
    ):
        if inputs.get(key):
            body[name] = inputs[key]
    return body


def _told(server: dict[str, Any]) -> Properties:
    image, public = server["image"], server["public_net"]
    group = server.get("placement_group")
    return {
        "name": server["name"],
        "status": server["status"],
        "serverType": server["server_type"]["name"],
        "image": (image["name"] or str(image["id"])) if image else None,
        "location": server["location"]["name"],
        "labels": server["labels"],
        "primaryDiskSize": server["primary_disk_size"],
        "ipv4Address": public["ipv4"]["ip"] if public["ipv4"] else "",
        "ipv6Network": public["ipv6"]["ip"] if public["ipv6"] else "",
        "firewallIds": [firewall["id"] for firewall in public["firewalls"]],
        "placementGroupId": group["id"] if group else None,
        "deleteProtection": server["protection"]["delete"],
        "rebuildProtection": server["protection"]["rebuild"],
        "backups": False,
        "networks": [
            {
                "networkId": net["network"],
                "ip": net["ip"],
                "aliasIps": net["alias_ips"],
                "macAddress": net["mac_address"],
            }
            for net in server["private_net"]
        ],
    }


def _networks_key(networks: Any, others: Any) -> list[tuple[int, str, tuple[str, ...]]]:
    """Return what can be compared: an address only where both sides have one."""
    told = {net["networkId"] for net in others or [] if net.get("ip")}
    return sorted(
        (
            net["networkId"],
            (net.get("ip") or "") if net["networkId"] in told else "",
            tuple(net.get("aliasIps") or []),
        )
        for net in networks or []
    )
