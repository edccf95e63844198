"""Servers, as the engine makes them."""

import base64
import uuid
from typing import Any, Final

from botocore.exceptions import WaiterError

from infra.clouds.aws.errors import unless_gone
from infra.clouds.aws.kinds import Found as Item
from infra.local_cloud.aws.provider_client import pairs, patiently, says, told_tags
from infra.local_cloud.aws.provider_networks import Ec2Resource
from infra.local_cloud.provider_programs import (
    CheckRefusal,
    PartialError,
    Properties,
    ProviderError,
)

# The real program waits ten minutes, looking every few seconds.
_WAITS: Final = {"Delay": 1, "MaxAttempts": 600}
_ROOT: Final = "/dev/sda1"


class InstanceResource(Ec2Resource):
    """`aws:ec2/instance:Instance`."""

    kind = "instance"
    told = frozenset(
        {
            *("ami", "instanceType", "subnetId", "vpcSecurityGroupIds", "iamInstanceProfile"),
            *("metadataOptions", "rootBlockDevice", "availabilityZone", "privateIp", "tags"),
            "associatePublicIpAddress",
        }
    )
    replace_on = frozenset(
        {
            *("ami", "associatePublicIpAddress", "availabilityZone", "cpuOptions", "keyName"),
            *("placementGroup", "privateIp", "region", "securityGroups", "subnetId", "tenancy"),
        }
    )
    computed = frozenset(
        {
            *("region", "ami", "availabilityZone", "privateIp", "tenancy", "sourceDestCheck"),
            *("metadataOptions", "rootBlockDevice", "vpcSecurityGroupIds", "subnetId"),
            "associatePublicIpAddress",
        }
    )
    unreadable = frozenset(
        {
            *("userData", "userDataBase64", "userDataReplaceOnChange", "getPasswordData"),
            "volumeTags",
        }
    )

    def check(self, inputs: Properties) -> list[CheckRefusal]:
        """Refuse a server without an image or a size."""
        return [
            CheckRefusal(key, "Missing required argument")
            for key in ("ami", "instanceType")
            if not inputs.get(key)
        ]

    def create(self, inputs: Properties) -> tuple[str, Properties]:
        """Start it and wait until it runs."""
        # One for each attempt, as the real program does: it is for the SDK's own retries alone.
        arguments = {**_arguments(inputs), "ClientToken": uuid.uuid4().hex}
        with says("creating EC2 Instance", "EC2"):
            answer = patiently(
                lambda: self.client.ec2.run_instances(**arguments),
                frozenset({"InvalidParameterValue"}),
                "Invalid IAM Instance Profile",
            )
        instance = answer["Instances"][0]
        found = str(instance["InstanceId"])
        try:
            self._wait(found, "instance_running", "create")
            return found, {**self.known(found), **self._attributes(found)}
        except ProviderError as failure:
            raise PartialError(found, {"ami": instance["ImageId"]}, str(failure)) from failure

    def update(
        self, resource_id: str, outputs: Properties, old: Properties, new: Properties
    ) -> Properties:
        """Change its tags and security groups; wait for one that is not ready."""
        for key in ("instanceType", "iamInstanceProfile", "metadataOptions", "rootBlockDevice"):
            if not self.same(key, old.get(key), new.get(key)):
                message = f"This provider program does not change `{key}` of an instance."
                raise ProviderError(message)
        self.set_tags(resource_id, new)
        groups = new.get("vpcSecurityGroupIds")
        if groups and set(groups) != set(self.known(resource_id)["vpcSecurityGroupIds"]):
            with says(f"updating EC2 Instance ({resource_id})", "EC2"):
                self.client.ec2.modify_instance_attribute(InstanceId=resource_id, Groups=groups)
        if self.known(resource_id)["instanceState"] == "pending":
            self._wait(resource_id, "instance_running", "create")
        return {**self.known(resource_id), **self._attributes(resource_id)}

    def delete(self, resource_id: str, outputs: Properties) -> None:
        """End it and wait until it is gone."""
        with says(f"deleting EC2 Instance ({resource_id})", "EC2"):
            there = unless_gone(self.client.ec2.terminate_instances, InstanceIds=[resource_id])
        if there:
            self._wait(resource_id, "instance_terminated", "delete")

    def same(self, key: str, old: Any, new: Any) -> bool:
        """Compare blocks by what both sides say, and groups as a set."""
        if key in {"metadataOptions", "rootBlockDevice"}:
            if not old or not new:
                return True
            return all(old[name] == new[name] for name in old.keys() & new.keys())
        if key == "vpcSecurityGroupIds":
            return set(old or []) == set(new or [])
        return super().same(key, old, new)

    def tell(self, item: Item) -> Properties:
        """Return all outputs."""
        profile = str(item.get("IamInstanceProfile", {}).get("Arn", "")).rsplit("/", maxsplit=1)[-1]
        options = item.get("MetadataOptions", {})
        return {
            "arn": self.client.arn(f"instance/{item['InstanceId']}"),
            "ami": item["ImageId"],
            "instanceType": item["InstanceType"],
            "instanceState": item["State"]["Name"],
            "subnetId": item.get("SubnetId"),
            "availabilityZone": item["Placement"]["AvailabilityZone"],
            "vpcSecurityGroupIds": [group["GroupId"] for group in item["SecurityGroups"]],
            "iamInstanceProfile": profile or None,
            "associatePublicIpAddress": bool(item.get("PublicIpAddress")),
            "metadataOptions": {
                "httpEndpoint": options.get("HttpEndpoint"),
                "httpTokens": options.get("HttpTokens"),
                "httpPutResponseHopLimit": options.get("HttpPutResponseHopLimit"),
            },
            "rootBlockDevice": self._disk(item),
            "privateIp": item.get("PrivateIpAddress", ""),
            "privateDns": item.get("PrivateDnsName", ""),
            "publicIp": item.get("PublicIpAddress", ""),
            "publicDns": item.get("PublicDnsName", ""),
            **told_tags(item),
        }

    def _attributes(self, found: str) -> Properties:
        """Return what `DescribeInstances` does not tell."""
        ec2 = self.client.ec2
        with says(f"reading EC2 Instance ({found}) attributes", "EC2"):
            ends = ec2.describe_instance_attribute(
                InstanceId=found, Attribute="disableApiTermination"
            )
            stops = ec2.describe_instance_attribute(
                InstanceId=found, Attribute="instanceInitiatedShutdownBehavior"
            )
        return {
            "disableApiTermination": ends["DisableApiTermination"]["Value"],
            "instanceInitiatedShutdownBehavior": stops["InstanceInitiatedShutdownBehavior"][
                "Value"
            ],
        }

    def _disk(self, item: Item) -> Properties | None:
        disks = [disk["Ebs"] for disk in item.get("BlockDeviceMappings", ())]
        if not disks:
            return None
        found = str(disks[0]["VolumeId"])
        with says(f"reading EBS Volume ({found})", "EC2"):
            volume = self.client.ec2.describe_volumes(VolumeIds=[found])["Volumes"][0]
        return {
            "volumeId": found,
            "volumeType": volume["VolumeType"],
            "volumeSize": volume["Size"],
            "encrypted": volume["Encrypted"],
            "deleteOnTermination": disks[0]["DeleteOnTermination"],
            **told_tags(volume),
        }

    def _wait(self, found: str, waiter: str, doing: str) -> None:
        with says(f"waiting for EC2 Instance ({found}) {doing}", "EC2"):
            try:
                self.client.ec2.get_waiter(waiter).wait(InstanceIds=[found], WaiterConfig=_WAITS)
            except WaiterError as failure:
                told = failure.last_response.get("Error", {})
                # As the real program says it when the API refused the question itself.
                said = f"api error {told['Code']}: {told['Message']}" if told else str(failure)
                message = f"waiting for EC2 Instance ({found}) {doing}: {said}"
                raise ProviderError(message) from None


def _arguments(inputs: Properties) -> dict[str, Any]:
    disk: Properties = inputs.get("rootBlockDevice") or {}
    options: Properties = inputs.get("metadataOptions") or {}
    specifications = [
        {"ResourceType": kind, "Tags": pairs(tags)}
        for kind, tags in (("instance", inputs.get("tags")), ("volume", disk.get("tags")))
        if tags
    ]
    interface: dict[str, Any] = {"DeviceIndex": 0, "SubnetId": inputs["subnetId"]}
    if inputs.get("vpcSecurityGroupIds"):
        interface["Groups"] = inputs["vpcSecurityGroupIds"]
    if "associatePublicIpAddress" in inputs:
        interface["AssociatePublicIpAddress"] = inputs["associatePublicIpAddress"]
    arguments: dict[str, Any] = {
        "ImageId": inputs["ami"],
        "InstanceType": inputs["instanceType"],
        "MinCount": 1,
        "MaxCount": 1,
        "NetworkInterfaces": [interface],
        "BlockDeviceMappings": [
            {
                "DeviceName": _ROOT,
                "Ebs": {
                    "VolumeSize": disk.get("volumeSize", 8),
                    "VolumeType": disk.get("volumeType", "gp3"),
                    "Encrypted": disk.get("encrypted", False),
                    "DeleteOnTermination": disk.get("deleteOnTermination", True),
                },
            }
        ],
        "MetadataOptions": {
            "HttpEndpoint": options.get("httpEndpoint", "enabled"),
            "HttpTokens": options.get("httpTokens", "optional"),
            "HttpPutResponseHopLimit": options.get("httpPutResponseHopLimit", 1),
        },
        "TagSpecifications": specifications,
    }
    if inputs.get("iamInstanceProfile"):
        arguments["IamInstanceProfile"] = {"Name": inputs["iamInstanceProfile"]}
    if inputs.get("userData"):
        arguments["UserData"] = inputs["userData"]
    if inputs.get("userDataBase64"):
        arguments["UserData"] = base64.b64decode(inputs["userDataBase64"])
    return arguments
