"""What nodes of one place share, as the engine makes it: network, subnet, firewall, group."""

from contextlib import suppress
from typing import Any

from infra.local_cloud.hcloud.provider_client import NotFoundError, ProviderClient
from infra.local_cloud.provider_programs import (
    Found,
    PartialError,
    Properties,
    ProviderError,
    Resource,
)


class NetworkResource(Resource[ProviderClient]):
    """`hcloud:index/network:Network`."""

    replace_on = frozenset({"ipRange"})
    computed = frozenset({"deleteProtection", "exposeRoutesToVswitch"})

    def create(self, inputs: Properties) -> tuple[str, Properties]:
        """Make it."""
        body = {
            "name": inputs["name"],
            "ip_range": inputs["ipRange"],
            "labels": inputs.get("labels", {}),
        }
        made = self.client.call("POST", "/networks", body)["network"]
        return str(made["id"]), _network(made)

    def read(self, resource_id: str, inputs: Properties) -> Found | None:
        """Read it."""
        found = self.client.find(f"/networks/{resource_id}", "network")
        return None if found is None else Found(resource_id, _network(found), _network(found))

    def update(
        self, resource_id: str, outputs: Properties, old: Properties, new: Properties
    ) -> Properties:
        """Change its name and its labels."""
        return _network(_rename(self.client, f"/networks/{resource_id}", new)["network"])

    def delete(self, resource_id: str, outputs: Properties) -> None:
        """Delete it; servers that are attached are detached."""
        self.client.remove(f"/networks/{resource_id}")


class SubnetResource(Resource[ProviderClient]):
    """`hcloud:index/networkSubnet:NetworkSubnet`, whose id is `<network>-<range>`."""

    replace_on = frozenset({"ipRange", "networkId", "networkZone", "type", "vswitchId"})
    delete_before_replace = True

    def create(self, inputs: Properties) -> tuple[str, Properties]:
        """Make it."""
        body = {
            "type": inputs["type"],
            "network_zone": inputs["networkZone"],
            "ip_range": inputs["ipRange"],
        }
        self.client.act(f"/networks/{inputs['networkId']}/actions/add_subnet", body)
        resource_id = f"{inputs['networkId']}-{inputs['ipRange']}"
        found = self.read(resource_id, inputs)
        if found is None:
            message = f"subnet {resource_id} is not there after it was made"
            raise ProviderError(message)
        return resource_id, found.outputs

    def read(self, resource_id: str, inputs: Properties) -> Found | None:
        """Read it from its network."""
        number, _, ip_range = resource_id.partition("-")
        network = self.client.find(f"/networks/{number}", "network")
        for subnet in network["subnets"] if network else ():
            if subnet["ip_range"] == ip_range:
                told = {
                    "networkId": int(number),
                    "type": subnet["type"],
                    "networkZone": subnet["network_zone"],
                    "ipRange": ip_range,
                }
                return Found(resource_id, {**told, "gateway": subnet["gateway"]}, told)
        return None

    def update(
        self, resource_id: str, outputs: Properties, old: Properties, new: Properties
    ) -> Properties:
        """Change nothing: every input makes another one."""
        return outputs

    def delete(self, resource_id: str, outputs: Properties) -> None:
        """Delete it."""
        number, _, ip_range = resource_id.partition("-")
        with suppress(NotFoundError):
            path = f"/networks/{number}/actions/delete_subnet"
            self.client.act(path, {"ip_range": ip_range})


class FirewallResource(Resource[ProviderClient]):
    """`hcloud:index/firewall:Firewall`."""

    def create(self, inputs: Properties) -> tuple[str, Properties]:
        """Make it and wait until its rules are set."""
        answer = self.client.call(
            "POST",
            "/firewalls",
            {
                "name": inputs["name"],
                "labels": inputs.get("labels", {}),
                "rules": _api_rules(inputs.get("rules", [])),
            },
        )
        made = answer["firewall"]
        try:
            self.client.wait(answer)
        except ProviderError as failure:
            raise PartialError(str(made["id"]), _firewall(made), str(failure)) from failure
        return str(made["id"]), _firewall(made)

    def read(self, resource_id: str, inputs: Properties) -> Found | None:
        """Read it."""
        found = self.client.find(f"/firewalls/{resource_id}", "firewall")
        if found is None:
            return None
        told = _firewall(found)
        return Found(resource_id, told, {key: told[key] for key in ("name", "labels", "rules")})

    def update(
        self, resource_id: str, outputs: Properties, old: Properties, new: Properties
    ) -> Properties:
        """Change its name, its labels and its rules."""
        path = f"/firewalls/{resource_id}"
        _rename(self.client, path, new)
        rules = {"rules": _api_rules(new.get("rules", []))}
        self.client.act(f"{path}/actions/set_rules", rules)
        return _firewall(self.client.call("GET", path)["firewall"])

    def delete(self, resource_id: str, outputs: Properties) -> None:
        """Take it off all servers and delete it, as the real program does."""
        path = f"/firewalls/{resource_id}"
        found = self.client.find(path, "firewall")
        if found is None:
            return
        if found["applied_to"]:
            targets = [
                {key: target[key] for key in ("type", target["type"])}
                for target in found["applied_to"]
            ]
            self.client.act(f"{path}/actions/remove_from_resources", {"remove_from": targets})
        self.client.remove(path)

    def same(self, key: str, old: Any, new: Any) -> bool:
        """Compare rules as a set."""
        if key != "rules":
            return super().same(key, old, new)
        ours, theirs = (sorted(map(_rule_key, rules or [])) for rules in (old, new))
        return ours == theirs


class PlacementGroupResource(Resource[ProviderClient]):
    """`hcloud:index/placementGroup:PlacementGroup`."""

    replace_on = frozenset({"type"})

    def create(self, inputs: Properties) -> tuple[str, Properties]:
        """Make it."""
        body = {
            "name": inputs["name"],
            "type": inputs["type"],
            "labels": inputs.get("labels", {}),
        }
        made = self.client.call("POST", "/placement_groups", body)["placement_group"]
        return str(made["id"]), _group(made)

    def read(self, resource_id: str, inputs: Properties) -> Found | None:
        """Read it."""
        found = self.client.find(f"/placement_groups/{resource_id}", "placement_group")
        if found is None:
            return None
        told = _group(found)
        return Found(resource_id, told, {key: told[key] for key in ("name", "labels", "type")})

    def update(
        self, resource_id: str, outputs: Properties, old: Properties, new: Properties
    ) -> Properties:
        """Change its name and its labels."""
        answer = _rename(self.client, f"/placement_groups/{resource_id}", new)
        return _group(answer["placement_group"])

    def delete(self, resource_id: str, outputs: Properties) -> None:
        """Delete it; refused while servers are in it."""
        self.client.remove(f"/placement_groups/{resource_id}")


def _rename(client: ProviderClient, path: str, new: Properties) -> dict[str, Any]:
    return client.call("PUT", path, {"name": new["name"], "labels": new.get("labels", {})})


def _network(found: dict[str, Any]) -> Properties:
    return {
        "name": found["name"],
        "ipRange": found["ip_range"],
        "labels": found["labels"],
        "deleteProtection": found["protection"]["delete"],
        "exposeRoutesToVswitch": found["expose_routes_to_vswitch"],
    }


def _group(found: dict[str, Any]) -> Properties:
    return {
        "name": found["name"],
        "type": found["type"],
        "labels": found["labels"],
        "servers": found["servers"],
    }


def _firewall(found: dict[str, Any]) -> Properties:
    rules = [
        {
            "direction": rule["direction"],
            "protocol": rule["protocol"],
            **({"port": rule["port"]} if rule["port"] else {}),
            **({"sourceIps": rule["source_ips"]} if rule["source_ips"] else {}),
            **({"destinationIps": rule["destination_ips"]} if rule["destination_ips"] else {}),
            **({"description": rule["description"]} if rule["description"] else {}),
        }
        for rule in found["rules"]
    ]
    return {"name": found["name"], "labels": found["labels"], "rules": rules}


def _api_rules(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "direction": rule["direction"],
            "protocol": rule.get("protocol", "tcp"),
            "port": rule.get("port"),
            "source_ips": rule.get("sourceIps", []),
            "destination_ips": rule.get("destinationIps", []),
            "description": rule.get("description"),
        }
        for rule in rules
    ]


def _rule_key(rule: dict[str, Any]) -> str:
    return repr(sorted((key, value) for key, value in rule.items() if value))
