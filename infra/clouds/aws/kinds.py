"""Every kind of thing that the programs can make at AWS: how it is found, and how removed."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from botocore.exceptions import ClientError

from domain.errors import Reason
from infra.clouds.aws.clients import Client
from infra.clouds.aws.errors import code_of, reason_of, unless_gone

Found = Mapping[str, Any]

# Terminating takes AWS a minute or two; a Windows server's shutdown ten.
_WAITS: Final = {"Delay": 2, "MaxAttempts": 450}

# "Created by CreateImage(i-0123) for ami-0123", as EC2 describes the snapshots of an image.
_MADE_FOR: Final = "Created by CreateImage(*for {}*"
_MADE_FOR_IMAGE: Final = re.compile(r"^Created by CreateImage\(.*for (ami-[0-9a-f]+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of resource of EC2.

    Attributes:
        describe: the client's method that finds them.
        by_id: the filter of that method for ids.
        listed_as: in the answer.
        id: the field with the id.
        remove: removes one and waits until it is gone; one that is gone already is no failure.
        created: the field that says when it was made.
        costs: it is billed for while it exists.
        arguments: of the method, beside the filter.
    """

    describe: str
    by_id: str
    listed_as: str
    id: str
    remove: Callable[[Client, str], None]
    created: str = ""
    costs: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def find(self, ec2: Client, filters: Mapping[str, Sequence[str]]) -> list[Found]:
        """Return those that pass all filters; none of them is a mistake."""
        call = getattr(ec2, self.describe)
        wanted = [{"Name": name, "Values": list(values)} for name, values in filters.items()]
        arguments = {"Filters": wanted, **self.arguments}
        if ec2.can_paginate(self.describe):
            pages = list(ec2.get_paginator(self.describe).paginate(**arguments))
        else:
            pages = [call(**arguments)]
        found: list[Found] = [item for page in pages for item in page.get(self.listed_as, [])]
        if self.listed_as == "Reservations":
            found = [instance for reservation in found for instance in reservation["Instances"]]
        return [item for item in found if not _goes_by_itself(item)]

    def created_at(self, item: Found) -> datetime | None:
        """Return when it was made, if AWS keeps that."""
        told = item.get(self.created)
        if isinstance(told, str):
            return datetime.fromisoformat(told)
        return told


def tags_of(item: Found) -> dict[str, str]:
    """Return the tags of a resource of EC2."""
    pairs = item.get("Tags") or item.get("TagSet") or []
    return {str(pair["Key"]): str(pair["Value"]) for pair in pairs}


def is_inside(snapshot: Found, images: Sequence[Found]) -> bool:
    """Tell whether a snapshot is a part of an image; an image in the making does not say so yet."""
    made_for = _MADE_FOR_IMAGE.search(str(snapshot.get("Description", "")))
    return any(
        snapshot["SnapshotId"] in _snapshots_of(image)
        or (made_for is not None and made_for[1] == image["ImageId"])
        for image in images
    )


def _goes_by_itself(item: Found) -> bool:
    """Tell whether something is as good as gone, or goes with the server that it is attached to."""
    if item.get("State") in ({"Code": 48, "Name": "terminated"}, "deleted", "deleting"):
        return True
    attachment: Found = item.get("Attachment") or next(iter(item.get("Attachments") or [{}]), {})
    return bool(attachment.get("InstanceId") and attachment.get("DeleteOnTermination"))


def _snapshots_of(image: Found) -> list[str]:
    disks = [mapping.get("Ebs", {}) for mapping in image.get("BlockDeviceMappings", [])]
    return [str(disk["SnapshotId"]) for disk in disks if disk.get("SnapshotId")]


def _remove_instance(ec2: Client, found: str) -> None:
    if unless_gone(ec2.terminate_instances, InstanceIds=[found]):
        waiter = ec2.get_waiter("instance_terminated")
        waiter.wait(InstanceIds=[found], WaiterConfig=_WAITS)


def _remove_image(ec2: Client, found: str) -> None:
    images = KINDS["image"].find(ec2, {"image-id": [found]})
    inside = {snapshot for image in images for snapshot in _snapshots_of(image)}
    # An image in the making does not tell them.
    made_for = KINDS["snapshot"].find(ec2, {"description": [_MADE_FOR.format(found)]})
    inside |= {str(snapshot["SnapshotId"]) for snapshot in made_for}
    unless_gone(ec2.deregister_image, ImageId=found)
    for snapshot in sorted(inside):
        _remove_snapshot(ec2, snapshot)


def _remove_volume(ec2: Client, found: str) -> None:
    if unless_gone(ec2.delete_volume, VolumeId=found):
        ec2.get_waiter("volume_deleted").wait(VolumeIds=[found], WaiterConfig=_WAITS)


def _remove_internet_gateway(ec2: Client, found: str) -> None:
    for gateway in KINDS["internet-gateway"].find(ec2, {"internet-gateway-id": [found]}):
        for attachment in gateway.get("Attachments", []):
            arguments = {"InternetGatewayId": found, "VpcId": attachment["VpcId"]}
            unless_gone(ec2.detach_internet_gateway, **arguments)
    unless_gone(ec2.delete_internet_gateway, InternetGatewayId=found)


def _remove_route_table(ec2: Client, found: str) -> None:
    for table in KINDS["route-table"].find(ec2, {"route-table-id": [found]}):
        for association in table.get("Associations", []):
            if not association.get("Main"):
                associated = association["RouteTableAssociationId"]
                unless_gone(ec2.disassociate_route_table, AssociationId=associated)
    unless_gone(ec2.delete_route_table, RouteTableId=found)


def _remove_by(method: str, argument: str) -> Callable[[Client, str], None]:
    def remove(ec2: Client, found: str) -> None:
        unless_gone(getattr(ec2, method), **{argument: found})

    return remove


_remove_snapshot: Final = _remove_by("delete_snapshot", "SnapshotId")

# The words are EC2's own, by which `DescribeTags` tells what something is.
KINDS: Final[dict[str, Kind]] = {
    "instance": Kind(
        describe="describe_instances",
        by_id="instance-id",
        listed_as="Reservations",
        id="InstanceId",
        remove=_remove_instance,
        created="LaunchTime",
        costs=True,
    ),
    "image": Kind(
        describe="describe_images",
        by_id="image-id",
        listed_as="Images",
        id="ImageId",
        remove=_remove_image,
        created="CreationDate",
        # Its snapshots are.
        costs=True,
        arguments={"Owners": ["self"]},
    ),
    "snapshot": Kind(
        describe="describe_snapshots",
        by_id="snapshot-id",
        listed_as="Snapshots",
        id="SnapshotId",
        remove=_remove_snapshot,
        created="StartTime",
        costs=True,
        arguments={"OwnerIds": ["self"]},
    ),
    "volume": Kind(
        describe="describe_volumes",
        by_id="volume-id",
        listed_as="Volumes",
        id="VolumeId",
        remove=_remove_volume,
        created="CreateTime",
        costs=True,
    ),
    "elastic-ip": Kind(
        describe="describe_addresses",
        by_id="allocation-id",
        listed_as="Addresses",
        id="AllocationId",
        remove=_remove_by("release_address", "AllocationId"),
        costs=True,
    ),
    "network-interface": Kind(
        describe="describe_network_interfaces",
        by_id="network-interface-id",
        listed_as="NetworkInterfaces",
        id="NetworkInterfaceId",
        remove=_remove_by("delete_network_interface", "NetworkInterfaceId"),
    ),
    "security-group": Kind(
        describe="describe_security_groups",
        by_id="group-id",
        listed_as="SecurityGroups",
        id="GroupId",
        remove=_remove_by("delete_security_group", "GroupId"),
    ),
    "route-table": Kind(
        describe="describe_route_tables",
        by_id="route-table-id",
        listed_as="RouteTables",
        id="RouteTableId",
        remove=_remove_route_table,
    ),
    "subnet": Kind(
        describe="describe_subnets",
        by_id="subnet-id",
        listed_as="Subnets",
        id="SubnetId",
        remove=_remove_by("delete_subnet", "SubnetId"),
    ),
    "internet-gateway": Kind(
        describe="describe_internet_gateways",
        by_id="internet-gateway-id",
        listed_as="InternetGateways",
        id="InternetGatewayId",
        remove=_remove_internet_gateway,
    ),
    "vpc": Kind(
        describe="describe_vpcs",
        by_id="vpc-id",
        listed_as="Vpcs",
        id="VpcId",
        remove=_remove_by("delete_vpc", "VpcId"),
    ),
}


def remove_role(iam: Client, name: str) -> None:
    """Remove a role, with what is inside it."""
    try:
        profiles = iam.list_instance_profiles_for_role(RoleName=name)["InstanceProfiles"]
    except ClientError as error:
        if reason_of(code_of(error)) is Reason.NOT_FOUND:
            return
        raise
    for profile in profiles:
        arguments = {"InstanceProfileName": profile["InstanceProfileName"], "RoleName": name}
        unless_gone(iam.remove_role_from_instance_profile, **arguments)
    unless_gone(iam.delete_role, RoleName=name)


def remove_instance_profile(iam: Client, name: str) -> None:
    """Remove an instance profile; its role stays."""
    try:
        profile = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    except ClientError as error:
        if reason_of(code_of(error)) is Reason.NOT_FOUND:
            return
        raise
    for role in profile["Roles"]:
        arguments = {"InstanceProfileName": name, "RoleName": role["RoleName"]}
        unless_gone(iam.remove_role_from_instance_profile, **arguments)
    unless_gone(iam.delete_instance_profile, InstanceProfileName=name)
