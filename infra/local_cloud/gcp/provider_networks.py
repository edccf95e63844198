"""Networks, subnetworks, firewalls and service accounts, as the engine makes them."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from infra.local_cloud.gcp.discovery import Json
from infra.local_cloud.gcp.provider_client import NotFoundError, ProviderClient
from infra.local_cloud.provider_programs import (
    CheckRefusal,
    Found,
    PartialError,
    Properties,
    ProviderError,
    Resource,
)


def path_of(value: object) -> str:
    """Return `projects/...` of a link, whatever stands before it."""
    text = str(value or "")
    _, found, rest = text.rpartition("/projects/")
    return f"projects/{rest}" if found else text


class ComputeResource(Resource[ProviderClient]):
    """What is the same for most of Compute Engine's resources.

    Attributes:
        title: what the real program calls it.
        fields: its inputs that the API tells, with the API's names for them.
        links: inputs that are links, of which only the end counts.
        changeable: inputs that are changed by `PATCH`.
    """

    title: ClassVar[str]
    fields: ClassVar[Mapping[str, str]]
    links: ClassVar[frozenset[str]] = frozenset()
    changeable: ClassVar[frozenset[str]] = frozenset()
    delete_before_replace = True

    @abstractmethod
    def collection(self, inputs: Properties) -> str:
        """Return the path of the collection in which it is made."""

    def body(self, inputs: Properties) -> Json:
        """Return what is sent to make one."""
        return {
            api: inputs[name] for name, api in self.fields.items() if inputs.get(name) is not None
        }

    def inputs_of(self, body: Json) -> Properties:
        """Return the inputs that the API tells."""
        return {name: body.get(api) for name, api in self.fields.items()}

    def outputs_of(self, body: Json) -> Properties:
        """Return all that the API tells."""
        told = {name: value for name, value in self.inputs_of(body).items() if value is not None}
        return told | {
            "project": self.client.project,
            "selfLink": body["selfLink"],
            "creationTimestamp": body["creationTimestamp"],
        }

    def check(self, inputs: Properties) -> list[CheckRefusal]:
        """Refuse one without a name: the names here are ours, never the engine's."""
        return [] if inputs.get("name") else [CheckRefusal("name", "is required")]

    def create(self, inputs: Properties) -> tuple[str, Properties]:
        """Make one and wait for it; if that fails, the state knows nothing of it."""
        collection = self.collection(inputs)
        path = f"{collection}/{inputs['name']}"
        try:
            self.client.change(f"Creating {self.title}", "POST", collection, self.body(inputs))
        except ProviderError as failure:
            message = f"Error creating {self.title}: {failure}"
            raise ProviderError(message) from failure
        try:
            return path, self.outputs_of(self.client.compute("GET", path))
        except ProviderError as failure:
            message = f"Error reading {self.title}: {failure}"
            raise PartialError(path, {}, message) from failure

    def read(self, resource_id: str, inputs: Properties) -> Found | None:
        """Read one, for a refresh or an import by its path."""
        body = self.client.find(path_of(resource_id))
        if body is None:
            return None
        return Found(path_of(resource_id), self.outputs_of(body), self.inputs_of(body))

    def update(
        self, resource_id: str, outputs: Properties, old: Properties, new: Properties
    ) -> Properties:
        """Change what can be changed."""
        changes = {
            self.fields[name]: new.get(name)
            for name in self.changeable
            if not self.same(name, old.get(name), new.get(name))
        }
        body = self.client.compute("GET", resource_id)
        if changes:
            if "fingerprint" in body:
                changes["fingerprint"] = body["fingerprint"]
            self.client.change(f"Updating {self.title}", "PATCH", resource_id, changes)
            body = self.client.compute("GET", resource_id)
        return self.outputs_of(body)

    def delete(self, resource_id: str, outputs: Properties) -> None:
        """Delete one and wait until it is gone."""
        try:
            self.client.remove(f"Deleting {self.title}", resource_id)
        except ProviderError as failure:
            message = f"Error when reading or editing {self.title}: {failure}"
            raise ProviderError(message) from failure

    def same(self, key: str, old: Any, new: Any) -> bool:
        """Compare links by their ends, and lists without their order."""
        if key in self.links:
            return path_of(old) == path_of(new)
        if isinstance(old, list) and isinstance(new, list):
            return sorted(map(repr, old)) == sorted(map(repr, new))
        return super().same(key, old, new)


class NetworkResource(ComputeResource):
    """`gcp:compute/network:Network`."""

    title = "Network"
    fields: ClassVar[Mapping[str, str]] = {
        "name": "name",
        "description": "description",
        "autoCreateSubnetworks": "autoCreateSubnetworks",
        "mtu": "mtu",
        "enableUlaInternalIpv6": "enableUlaInternalIpv6",
        "networkFirewallPolicyEnforcementOrder": "networkFirewallPolicyEnforcementOrder",
    }
    replace_on = frozenset(
        {"name", "project", "description", "autoCreateSubnetworks", "enableUlaInternalIpv6"}
    )
    computed = frozenset({"mtu", "project", "routingMode"})

    def collection(self, inputs: Properties) -> str:
        """Networks are global."""
        return f"projects/{inputs.get('project') or self.client.project}/global/networks"

    def defaults(self, inputs: Properties) -> Properties:
        """An auto mode network, unless asked otherwise: as the real program."""
        return {"autoCreateSubnetworks": True}

    def body(self, inputs: Properties) -> Json:
        """Return what is sent to make one."""
        body = super().body(inputs)
        if inputs.get("routingMode"):
            body["routingConfig"] = {"routingMode": inputs["routingMode"]}
        return body

    def outputs_of(self, body: Json) -> Properties:
        """Return all that the API tells."""
        return super().outputs_of(body) | {
            "numericId": body["id"],
            "networkId": body["id"],
            "routingMode": body.get("routingConfig", {}).get("routingMode", ""),
            "gatewayIpv4": "",
        }


class SubnetworkResource(ComputeResource):
    """`gcp:compute/subnetwork:Subnetwork`."""

    title = "Subnetwork"
    fields: ClassVar[Mapping[str, str]] = {
        "name": "name",
        "description": "description",
        "network": "network",
        "region": "region",
        "ipCidrRange": "ipCidrRange",
        "privateIpGoogleAccess": "privateIpGoogleAccess",
        "purpose": "purpose",
        "stackType": "stackType",
    }
    links = frozenset({"network"})
    changeable = frozenset({"stackType"})
    replace_on = frozenset(
        {"name", "project", "region", "network", "description", "ipCidrRange", "purpose"}
    )
    computed = frozenset({"project", "region", "purpose", "stackType", "privateIpGoogleAccess"})

    def collection(self, inputs: Properties) -> str:
        """Subnetworks are in a region."""
        project = inputs.get("project") or self.client.project
        return f"projects/{project}/regions/{inputs['region']}/subnetworks"

    def body(self, inputs: Properties) -> Json:
        """Return what is sent to make one."""
        return super().body(inputs) | {"network": path_of(inputs["network"])}

    def inputs_of(self, body: Json) -> Properties:
        """Return the inputs that the API tells; the region by its name."""
        return super().inputs_of(body) | {"region": body["region"].rpartition("/")[2]}

    def outputs_of(self, body: Json) -> Properties:
        """Return all that the API tells."""
        return super().outputs_of(body) | {
            "gatewayAddress": body.get("gatewayAddress", ""),
            "fingerprint": body.get("fingerprint", ""),
        }

    def update(
        self, resource_id: str, outputs: Properties, old: Properties, new: Properties
    ) -> Properties:
        """Change what can be changed; one of it has a method of its own."""
        wanted = bool(new.get("privateIpGoogleAccess"))
        if wanted != bool(old.get("privateIpGoogleAccess")):
            path = f"{resource_id}/setPrivateIpGoogleAccess"
            body = {"privateIpGoogleAccess": wanted}
            self.client.change("Updating Subnetwork", "POST", path, body)
        return super().update(resource_id, outputs, old, new)


class FirewallResource(ComputeResource):
    """`gcp:compute/firewall:Firewall`."""

    title = "Firewall"
    fields: ClassVar[Mapping[str, str]] = {
        "name": "name",
        "description": "description",
        "network": "network",
        "direction": "direction",
        "priority": "priority",
        "disabled": "disabled",
        "allows": "allowed",
        "denies": "denied",
        "sourceRanges": "sourceRanges",
        "destinationRanges": "destinationRanges",
        "sourceTags": "sourceTags",
        "targetTags": "targetTags",
        "sourceServiceAccounts": "sourceServiceAccounts",
        "targetServiceAccounts": "targetServiceAccounts",
    }
    links = frozenset({"network"})
    changeable = frozenset(fields) - {"name", "network", "direction"}
    replace_on = frozenset({"name", "project", "network", "direction"})
    computed = frozenset(
        {"project", "direction", "priority", "sourceRanges", "destinationRanges", "disabled"}
    )

    def collection(self, inputs: Properties) -> str:
        """Firewalls are global."""
        return f"projects/{inputs.get('project') or self.client.project}/global/firewalls"

    def check(self, inputs: Properties) -> list[CheckRefusal]:
        """Refuse an inbound rule that says nothing of whom it lets in, as the real program."""
        sources = ("sourceRanges", "sourceTags", "sourceServiceAccounts")
        outbound = inputs.get("direction") == "EGRESS"
        if not outbound and not any(inputs.get(name) for name in sources):
            reason = "one of source_tags, source_ranges, or source_service_accounts must be defined"
            return [CheckRefusal("direction", reason)]
        return super().check(inputs)

    def body(self, inputs: Properties) -> Json:
        """Return what is sent to make one."""
        body = super().body(inputs) | {"network": path_of(inputs["network"])}
        return body | {
            name: [_rule(rule) for rule in body[name]]
            for name in ("allowed", "denied")
            if name in body
        }

    def inputs_of(self, body: Json) -> Properties:
        """Return the inputs that the API tells."""
        told = super().inputs_of(body)
        for name in ("allows", "denies"):
            told[name] = [
                {
                    "protocol": rule["IPProtocol"],
                    **({"ports": p} if (p := rule.get("ports")) else {}),
                }
                for rule in told[name] or []
            ]
        return told

    def update(
        self, resource_id: str, outputs: Properties, old: Properties, new: Properties
    ) -> Properties:
        """Change it; rules are sent in the API's words."""
        if old == new:
            return super().update(resource_id, outputs, old, new)
        body = self.body(new)
        del body["name"]
        self.client.change("Updating Firewall", "PATCH", resource_id, body)
        return self.outputs_of(self.client.compute("GET", resource_id))


class AccountResource(Resource[ProviderClient]):
    """`gcp:serviceaccount/account:Account`."""

    replace_on = frozenset({"accountId", "project"})
    delete_before_replace = True
    computed = frozenset({"project", "disabled"})
    unreadable = frozenset({"createIgnoreAlreadyExists"})

    def create(self, inputs: Properties) -> tuple[str, Properties]:
        """Make one."""
        project = inputs.get("project") or self.client.project
        body = {
            "accountId": inputs["accountId"],
            "serviceAccount": {
                "displayName": inputs.get("displayName", ""),
                "description": inputs.get("description", ""),
            },
        }
        try:
            made = self.client.iam("POST", f"projects/{project}/serviceAccounts", body)
        except ProviderError as failure:
            message = f"Error creating service account: {failure}"
            raise ProviderError(message) from failure
        return made["name"], self._outputs(made)

    def read(self, resource_id: str, inputs: Properties) -> Found | None:
        """Read one."""
        try:
            found = self.client.iam("GET", resource_id)
        except NotFoundError:
            return None
        told = self._outputs(found)
        names = ("accountId", "displayName", "description", "project", "disabled")
        return Found(found["name"], told, {name: told[name] for name in names})

    def update(
        self, resource_id: str, outputs: Properties, old: Properties, new: Properties
    ) -> Properties:
        """Change how it is called and described."""
        given = {name: new.get(name) or "" for name in ("displayName", "description")}
        if any((old.get(name) or "") != value for name, value in given.items()):
            body = {"serviceAccount": given, "updateMask": "displayName,description"}
            self.client.iam("PATCH", resource_id, body)
        return self._outputs(self.client.iam("GET", resource_id))

    def delete(self, resource_id: str, outputs: Properties) -> None:
        """Delete one."""
        try:
            self.client.iam("DELETE", resource_id)
        except NotFoundError:
            return

    @staticmethod
    def _outputs(found: Json) -> Properties:
        return {
            "accountId": found["email"].partition("@")[0],
            "displayName": found.get("displayName", ""),
            "description": found.get("description", ""),
            "project": found["projectId"],
            "disabled": found.get("disabled", False),
            "email": found["email"],
            "member": f"serviceAccount:{found['email']}",
            "name": found["name"],
            "uniqueId": found["uniqueId"],
        }


def _rule(rule: Properties) -> Json:
    body: Json = {"IPProtocol": rule["protocol"]}
    if rule.get("ports"):
        body["ports"] = rule["ports"]
    return body
