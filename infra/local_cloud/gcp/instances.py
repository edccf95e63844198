"""Compute Engine's instances, and the servers that boot for them."""

import asyncio
import ipaddress
import time
from typing import Final

from infra.local_cloud.boots import Boots
from infra.local_cloud.faults import Faults
from infra.local_cloud.gcp import answers, catalogue
from infra.local_cloud.gcp.calls import Call, location_of
from infra.local_cloud.gcp.compute import Compute
from infra.local_cloud.gcp.discovery import Json
from infra.local_cloud.gcp.disks import Disks
from infra.local_cloud.gcp.identities import Identities
from infra.local_cloud.gcp.kinds import (
    KINDS,
    LINK_BASE,
    fingerprint_of,
    path_of_link,
    without,
)
from infra.local_cloud.gcp.quotas import Quotas, region_of_resource
from infra.local_cloud.gcp.store import Operation, Resource, Store

_EXHAUSTED: Final = "ZONE_RESOURCE_POOL_EXHAUSTED"


class Instances:
    """Answers the methods of instances.

    Args:
        compute: the rest of the API.
        disks: makes the disks that come with an instance.
        quotas: bounds how many there may be.
        identities: knows the service accounts that instances may have.
        boots: boots servers for instances.
        faults: tells where there is no capacity.
    """

    def __init__(
        self,
        compute: Compute,
        disks: Disks,
        quotas: Quotas,
        identities: Identities,
        boots: Boots,
        faults: Faults,
    ) -> None:
        self._compute = compute
        self._disks = disks
        self._quotas = quotas
        self._store: Store = compute.store
        self._identities = identities
        self._boots = boots
        self._faults = faults

    async def answer(self, collection: str, verb: str, call: Call) -> Json:
        """Answer a method."""
        match collection, verb:
            case "instances", "insert":
                return self._insert(call).body()
            case "instances", "delete":
                return self._delete(call).body()
            case "instances", "stop" | "start":
                return self._switch(call, verb).body()
            case "instances", "setMetadata" | "setTags":
                return self._set(call, verb.removeprefix("set").lower()).body()
            case "instances", "setMachineType" | "setDeletionProtection":
                return self._adjust(call, verb).body()
        return await self._compute.answer(collection, verb, call)

    def _insert(self, call: Call) -> Operation:
        project = call.project
        zone = location_of(call).partition("/")[2]
        body = dict(call.body)
        body["machineType"] = self._machine_type(project, zone, body.get("machineType", ""))
        body["networkInterfaces"] = [
            self._interface(project, zone, given, first=index == 0)
            for index, given in enumerate(body.get("networkInterfaces", []))
        ]
        self._check_account(body)
        self._quotas.check_instance(project, zone, body)
        path = self._compute.path_of(call, "instances", body.get("name", ""))
        if path in self._store.resources:
            raise answers.already_exists(path)
        for name in ("tags", "metadata"):
            body[name] = without(body.get(name, {}), "fingerprint")
        disks, body["disks"] = self._disks.of_instance(call, body)
        try:
            operation = self._compute.insert(KINDS["instances"], call, body)
        except answers.ApiError:
            for disk in disks:
                self._store.remove(disk.path)
            raise
        self._begin_boot(self._store.get(path), disks, operation, zone)
        return operation

    def _begin_boot(
        self, instance: Resource, disks: list[Resource], operation: Operation, zone: str
    ) -> None:
        instance.body["status"] = "PROVISIONING"
        instance.body["lastStartTimestamp"] = operation.inserted_at
        size = instance.body["machineType"].rpartition("/")[2]
        if self._faults.lacks_capacity(zone, size):
            place = f"projects/{instance.project}/zones/{zone}"
            message = (
                f"The zone '{place}' does not have enough resources available to fulfill the "
                "request.  Try a different zone, or try again later."
            )
            operation.errors.append((_EXHAUSTED, message))
        else:
            instance.boot = f"gcp-{instance.body['id']}"
            instance.body["status"] = "STAGING"
            operation.work = asyncio.create_task(self._boot(instance, disks, operation))

        def finish(operation: Operation) -> None:
            instance.body["status"] = "RUNNING"
            if operation.errors:
                for resource in (instance, *disks):
                    self._store.remove(resource.path)

        operation.finish = finish

    async def _boot(self, instance: Resource, disks: list[Resource], operation: Operation) -> None:
        metadata = {
            item["key"]: item.get("value", "")
            for item in instance.body["metadata"].get("items", [])
        }
        first = instance.body["networkInterfaces"][0]
        network = self._store.get(path_of_link(first["network"], instance.project, None, None))
        image = next((disk.boot or disk.body.get("sourceImage", "") for disk in disks), "")
        try:
            address = await asyncio.to_thread(
                self._boots.create,
                instance.boot or "",
                user_data=metadata.get("user-data", ""),
                network_key=f"gcp-{network.body['id']}",
                image=image,
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the operation tells it
            operation.errors.append(("INTERNAL_ERROR", f"Internal error: {type(error).__name__}"))
            return
        if address is not None:
            first["networkIP"] = str(address)

    def _delete(self, call: Call) -> Operation:
        instance = self._compute.target(call, "instances")
        if instance.doomed:
            raise answers.not_ready(instance.path)
        if instance.body.get("deletionProtection"):
            raise answers.ApiError(
                400,
                "invalidResourceUsage",
                "Invalid resource usage: 'Resource cannot be deleted if it's protected against "
                "deletion.'.",
            )
        self._store.ready(instance.path)
        instance.body["status"], instance.doomed = "STOPPING", True
        gone = [
            path_of_link(disk["source"], instance.project, None, None)
            for disk in instance.body["disks"]
            if disk.get("autoDelete")
        ]

        def finish(operation: Operation) -> None:
            for path in (instance.path, *gone):
                self._store.remove(path)

        operation = self._compute.begin(instance, "delete", call, finish)
        if instance.boot is not None:
            operation.work = asyncio.create_task(
                asyncio.to_thread(self._boots.remove, instance.boot)
            )
        return operation

    def _switch(self, call: Call, verb: str) -> Operation:
        instance = self._compute.changeable(call, "instances")
        stops = verb == "stop"
        if instance.body["status"] == ("TERMINATED" if stops else "RUNNING"):
            return self._compute.begin(instance, verb, call)
        instance.body["status"] = "STOPPING" if stops else "STAGING"
        act = self._boots.power_off if stops else self._boots.power_on

        def finish(operation: Operation) -> None:
            instance.body["status"] = "TERMINATED" if stops else "RUNNING"
            for interface in instance.body["networkInterfaces"]:
                self._give_public_address(interface, take=stops)

        operation = self._compute.begin(instance, verb, call, finish)
        if instance.boot is not None:
            operation.work = asyncio.create_task(asyncio.to_thread(act, instance.boot))
        return operation

    def _set(self, call: Call, name: str) -> Operation:
        instance = self._compute.changeable(call, "instances")
        given, now = dict(call.body), without(instance.body[name], "fingerprint")
        if given.pop("fingerprint", None) != fingerprint_of(now):
            raise answers.condition_not_met(what=name.capitalize())
        instance.body[name] = given
        return self._compute.begin(instance, f"set{name.capitalize()}", call)

    def _adjust(self, call: Call, verb: str) -> Operation:
        instance = self._compute.changeable(call, "instances")
        if verb == "setDeletionProtection":
            wanted = call.query.get("deletionProtection", "true") == "true"
            instance.body["deletionProtection"] = wanted
        elif instance.body["status"] != "TERMINATED":
            raise answers.ApiError(
                400, "invalid", "Instance must be stopped before its machine type is changed."
            )
        else:
            zone = location_of(call).partition("/")[2]
            instance.body["machineType"] = self._machine_type(
                instance.project, zone, call.body.get("machineType", "")
            )
        return self._compute.begin(instance, verb, call)

    def _machine_type(self, project: str, zone: str, link: str) -> str:
        path = path_of_link(link, project, None, zone)
        name = path.rpartition("/")[2]
        there = {body["name"] for body in catalogue.machine_type_bodies(project, zone)}
        if path != f"projects/{project}/zones/{zone}/machineTypes/{name}" or name not in there:
            raise answers.invalid_field(
                field="resource.machineType",
                value=link,
                why=f"The referenced machine type does not exist in zone '{zone}'.",
            )
        return f"{LINK_BASE}{path}"

    def _interface(self, project: str, zone: str, given: Json, *, first: bool) -> Json:
        region = catalogue.region_of(zone)
        link = given.get("subnetwork")
        if not link:
            raise answers.invalid_field(
                field="resource.networkInterfaces[0]",
                value="",
                why="Networks of custom mode ask for a subnetwork.",
            )
        subnet = self._store.ready(path_of_link(link, project, region, zone))
        if region_of_resource(subnet) != region:
            raise answers.invalid_field(
                field="resource.networkInterfaces[0].subnetwork",
                value=link,
                why=f"The subnetwork is not in region '{region}'.",
            )
        interface = given | {
            "name": "nic0" if first else "nic1",
            "network": subnet.body["network"],
            "subnetwork": f"{LINK_BASE}{subnet.path}",
            "networkIP": given.get("networkIP") or self._free_address(subnet),
            "stackType": "IPV4_ONLY",
        }
        interface["accessConfigs"] = [
            {"kind": "compute#accessConfig", "name": "External NAT", "networkTier": "PREMIUM"}
            | access
            for access in given.get("accessConfigs", [])
        ]
        self._give_public_address(interface, take=False)
        return interface

    def _give_public_address(self, interface: Json, *, take: bool) -> None:
        taken = {
            access.get("natIP")
            for other in self._store.resources.values()
            if other.kind.collection == "instances"
            for nic in other.body["networkInterfaces"]
            for access in nic.get("accessConfigs", [])
        }
        for access in interface.get("accessConfigs", []):
            if take:
                access.pop("natIP", None)
            elif "natIP" not in access:
                network = ipaddress.IPv4Network("198.51.100.0/24")
                access["natIP"] = next(str(a) for a in network.hosts() if str(a) not in taken)

    def _free_address(self, subnet: Resource) -> str:
        taken = {
            nic.get("networkIP")
            for other in self._store.of_kind(subnet.project, "instances")
            for nic in other.body["networkInterfaces"]
        }
        network = ipaddress.IPv4Network(subnet.body["ipCidrRange"])
        # The first is the gateway's.
        hosts = (str(host) for host in list(network.hosts())[1:])
        address = next((host for host in hosts if host not in taken), None)
        if address is None:
            raise answers.ApiError(
                400, "ipSpaceExhausted", f"IP space of '{subnet.path}' is exhausted."
            )
        return address

    def _check_account(self, body: Json) -> None:
        for account in body.get("serviceAccounts", []):
            email = account.get("email", "")
            found = self._identities.accounts.get(email)
            known = time.monotonic() - self._store.operation_seconds
            if found is None or found.made > known:
                raise answers.ApiError(
                    400,
                    "invalid",
                    f"The resource '{email}' of type 'serviceAccount' was not found.",
                )
