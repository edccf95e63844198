"""Instances, as the engine makes them."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from infra.local_cloud.gcp.discovery import Json
from infra.local_cloud.gcp.provider_networks import ComputeResource, path_of
from infra.local_cloud.provider_programs import Found, Properties, ProviderError

# The label that the real program adds to what can have labels.
ATTRIBUTION: Final = {"goog-pulumi-provisioned": "true"}

_BLOCKS: Final = frozenset(
    {"bootDisk", "networkInterfaces", "serviceAccount", "shieldedInstanceConfig"}
)
_SHIELD: Final = ("enableSecureBoot", "enableVtpm", "enableIntegrityMonitoring")


class InstanceResource(ComputeResource):
    """`gcp:compute/instance:Instance`."""

    title = "instance"
    fields: ClassVar[Mapping[str, str]] = {
        "name": "name",
        "description": "description",
        "canIpForward": "canIpForward",
        "deletionProtection": "deletionProtection",
        "hostname": "hostname",
        "minCpuPlatform": "minCpuPlatform",
    }
    replace_on = frozenset(
        {
            *("name", "project", "zone", "description", "canIpForward", "hostname", "bootDisk"),
            *("networkInterfaces", "metadataStartupScript", "guestAccelerators"),
            "confidentialInstanceConfig",
        }
    )
    computed = frozenset(
        {
            *("project", "zone", "description", "canIpForward", "deletionProtection", "labels"),
            *("shieldedInstanceConfig", "serviceAccount", "metadata", "tags", "minCpuPlatform"),
        }
    )
    unreadable = frozenset({"allowStoppingForUpdate", "desiredStatus"})
    secret = frozenset({"effectiveLabels", "pulumiLabels"})

    def collection(self, inputs: Properties) -> str:
        """Instances are in a zone."""
        project = inputs.get("project") or self.client.project
        return f"projects/{project}/zones/{inputs['zone']}/instances"

    def body(self, inputs: Properties) -> Json:
        """Return what is sent to make one."""
        body = super().body(inputs) | {
            "machineType": f"zones/{inputs['zone']}/machineTypes/{inputs['machineType']}",
            "labels": ATTRIBUTION | (inputs.get("labels") or {}),
            "metadata": _metadata(inputs),
            "tags": {"items": inputs.get("tags") or []},
            "disks": [_boot_disk(inputs["zone"], inputs["bootDisk"])],
            "networkInterfaces": [_interface(given) for given in inputs["networkInterfaces"]],
        }
        if inputs.get("serviceAccount"):
            account = inputs["serviceAccount"]
            body["serviceAccounts"] = [
                {"email": account.get("email", "default"), "scopes": account.get("scopes", [])}
            ]
        if inputs.get("shieldedInstanceConfig"):
            shield = inputs["shieldedInstanceConfig"]
            body["shieldedInstanceConfig"] = {n: shield[n] for n in _SHIELD if n in shield}
        return body

    def read(self, resource_id: str, inputs: Properties) -> Found | None:
        """Read one; of its labels, those that the program gives, or at an import all."""
        found = super().read(resource_id, inputs)
        if found is not None:
            wanted = inputs.get("labels") if inputs else None
            labels = found.outputs["effectiveLabels"]
            found.inputs["labels"] = {
                key: value
                for key, value in labels.items()
                if (key in wanted if wanted is not None else key not in ATTRIBUTION)
            }
        return found

    def inputs_of(self, body: Json) -> Properties:
        """Return the inputs that the API tells."""
        shield = body.get("shieldedInstanceConfig", {})
        accounts = body.get("serviceAccounts", [])
        items = body.get("metadata", {}).get("items", [])
        return super().inputs_of(body) | {
            "zone": body["zone"].rpartition("/")[2],
            "machineType": body["machineType"].rpartition("/")[2],
            "tags": body.get("tags", {}).get("items", []),
            "metadata": {item["key"]: item.get("value", "") for item in items},
            "networkInterfaces": [_interface_told(given) for given in body["networkInterfaces"]],
            "bootDisk": self._boot_disk_told(body),
            "serviceAccount": _account_told(accounts[0]) if accounts else None,
            "shieldedInstanceConfig": {n: shield.get(n, False) for n in _SHIELD}
            if shield
            else None,
        }

    def outputs_of(self, body: Json) -> Properties:
        """Return all that the API tells."""
        labels = body.get("labels", {})
        return super().outputs_of(body) | {
            "labels": {k: v for k, v in labels.items() if k not in ATTRIBUTION},
            "effectiveLabels": labels,
            "pulumiLabels": labels,
            "instanceId": body["id"],
            "currentStatus": body["status"],
            "cpuPlatform": body.get("cpuPlatform", ""),
            "labelFingerprint": body.get("labelFingerprint", ""),
            "metadataFingerprint": body["metadata"]["fingerprint"],
            "tagsFingerprint": body["tags"]["fingerprint"],
        }

    def update(
        self, resource_id: str, outputs: Properties, old: Properties, new: Properties
    ) -> Properties:
        """Change what can be changed in place."""

        def differs(name: str) -> bool:
            before, after = old.get(name), new.get(name)
            return (bool(before) or bool(after)) and not self.same(name, before, after)

        for name in ("serviceAccount", "shieldedInstanceConfig", "minCpuPlatform"):
            if differs(name):
                message = f"This provider program does not change `{name}` of an instance."
                raise ProviderError(message)
        if differs("machineType"):
            self._change_machine_type(resource_id, new)
        if differs("labels"):
            self._set_labels(resource_id, old.get("labels") or {}, new.get("labels") or {})
        for name, body in (
            ("metadata", _metadata(new)),
            ("tags", {"items": new.get("tags") or []}),
        ):
            if differs(name):
                now = self.client.compute("GET", resource_id)[name]["fingerprint"]
                path = f"{resource_id}/set{name.capitalize()}"
                self.client.change(f"{name} to update", "POST", path, body | {"fingerprint": now})
        if differs("deletionProtection"):
            wanted = "true" if new.get("deletionProtection") else "false"
            path = f"{resource_id}/setDeletionProtection?deletionProtection={wanted}"
            self.client.change("deletion protection to update", "POST", path)
        return self.outputs_of(self.client.compute("GET", resource_id))

    def delete(self, resource_id: str, outputs: Properties) -> None:
        """Delete one and wait until it is gone."""
        if outputs.get("deletionProtection"):
            message = (
                f"Cannot delete instance {outputs.get('name')}: instance Deletion Protection is "
                "enabled. Set deletion_protection to false for this resource and run the update "
                "before attempting to delete it."
            )
            raise ProviderError(message)
        super().delete(resource_id, outputs)

    def same(self, key: str, old: Any, new: Any) -> bool:
        """Compare blocks by what both sides say of them: the API adds what nobody asked for."""
        if key in _BLOCKS:
            return _agree(key, old, new)
        return super().same(key, old, new)

    def _boot_disk_told(self, body: Json) -> Properties:
        attached = next(disk for disk in body["disks"] if disk.get("boot"))
        disk = self.client.find(path_of(attached["source"])) or {}
        return {
            "autoDelete": attached.get("autoDelete", False),
            "deviceName": attached.get("deviceName", ""),
            "mode": attached.get("mode", ""),
            "source": attached["source"],
            "initializeParams": {
                "image": disk.get("sourceImage", ""),
                "size": int(disk.get("sizeGb", 0)),
                "type": disk.get("type", "").rpartition("/")[2],
                "labels": disk.get("labels", {}),
            },
        }

    def _change_machine_type(self, resource_id: str, new: Properties) -> None:
        if not new.get("allowStoppingForUpdate"):
            message = (
                "Changing the machine_type, min_cpu_platform, service_account, enable_display, "
                "shielded_instance_config, scheduling.node_affinities or network_interface.[#d]."
                "(network/subnetwork/subnetwork_project) or advanced_machine_features on a started "
                "instance requires stopping it. To acknowledge this, please set "
                "allow_stopping_for_update = true in your config."
            )
            raise ProviderError(message)
        running = self.client.compute("GET", resource_id)["status"] == "RUNNING"
        if running:
            self.client.change("stopping instance", "POST", f"{resource_id}/stop")
        size = f"zones/{new['zone']}/machineTypes/{new['machineType']}"
        path = f"{resource_id}/setMachineType"
        self.client.change("updating machinetype", "POST", path, {"machineType": size})
        if running:
            self.client.change("starting instance", "POST", f"{resource_id}/start")

    def _set_labels(self, resource_id: str, old: Mapping[str, str], new: Mapping[str, str]) -> None:
        """Set the program's labels and leave others alone."""
        body = self.client.compute("GET", resource_id)
        kept = {key: value for key, value in body.get("labels", {}).items() if key not in old}
        given = {"labels": kept | dict(new), "labelFingerprint": body["labelFingerprint"]}
        self.client.change("labels to update", "POST", f"{resource_id}/setLabels", given)


def _metadata(inputs: Properties) -> Json:
    items = (inputs.get("metadata") or {}).items()
    return {"items": [{"key": key, "value": value} for key, value in items]}


def _boot_disk(zone: str, given: Properties) -> Json:
    parameters = given.get("initializeParams") or {}
    disk: Json = {"boot": True, "autoDelete": given.get("autoDelete", True)}
    if given.get("source"):
        return disk | {"source": path_of(given["source"])}
    wanted: Json = {"sourceImage": parameters["image"], "labels": parameters.get("labels") or {}}
    if parameters.get("size"):
        wanted["diskSizeGb"] = str(parameters["size"])
    if parameters.get("type"):
        wanted["diskType"] = f"zones/{zone}/diskTypes/{parameters['type']}"
    return disk | {"initializeParams": wanted}


def _interface(given: Properties) -> Json:
    names = {"network": "network", "subnetwork": "subnetwork", "networkIp": "networkIP"}
    interface: Json = {api: path_of(given[name]) for name, api in names.items() if given.get(name)}
    accesses = given.get("accessConfigs") or []
    if accesses:
        interface["accessConfigs"] = [
            {"type": "ONE_TO_ONE_NAT", "networkTier": access.get("networkTier") or "PREMIUM"}
            | ({"natIP": access["natIp"]} if access.get("natIp") else {})
            for access in accesses
        ]
    return interface


def _interface_told(given: Json) -> Properties:
    return {
        "name": given["name"],
        "network": given["network"],
        "subnetwork": given["subnetwork"],
        "networkIp": given["networkIP"],
        "accessConfigs": [
            {"natIp": access.get("natIP", ""), "networkTier": access.get("networkTier", "")}
            for access in given.get("accessConfigs", [])
        ],
    }


def _account_told(given: Json) -> Properties:
    return {"email": given["email"], "scopes": given.get("scopes", [])}


def _agree(key: str, old: Any, new: Any) -> bool:
    if isinstance(old, dict) and isinstance(new, dict):
        # Whether there is a public address is not the API's choice.
        shared = (old.keys() & new.keys()) | ({"accessConfigs"} & (old.keys() | new.keys()))
        return all(_agree(name, old.get(name), new.get(name)) for name in shared)
    if key == "accessConfigs":
        return len(old or []) == len(new or []) and (
            not (old and new) or _agree("accessConfig", old[0], new[0])
        )
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(
            _agree(key, *pair) for pair in zip(old, new, strict=True)
        )
    if key == "image":
        return _same_image(str(old), str(new))
    return path_of(old) == path_of(new) if isinstance(old, str) else bool(old == new)


def _same_image(old: str, new: str) -> bool:
    """Compare images: a family is the same as what it once meant."""
    if "/family/" in old or "/family/" in new:
        return path_of(old).split("/")[:2] == path_of(new).split("/")[:2]
    return path_of(old) == path_of(new)
