"""Why AWS would not start an instance."""

import base64
from collections.abc import Mapping
from typing import Any, Final

from moto.core.types import Base64EncodedString
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend
from moto.ec2.models.instance_types import INSTANCE_TYPES

from infra.local_cloud.aws.accounts import Account

_LARGEST_USER_DATA: Final = 16384
_INVALID: Final = "InvalidParameterValue"
_NO_IMAGE: Final = "InvalidAMIID.NotFound"
_IMAGE_NOT_READY: Final = "InvalidAMIID.Unavailable"
_NOT_OFFERED: Final = "Unsupported"
_QUOTA: Final = "VcpuLimitExceeded"
_CAPACITY: Final = "InsufficientInstanceCapacity"


def refuse_start(
    ec2: EC2Backend,
    account: Account,
    image_id: str,
    count: int,
    user_data: Base64EncodedString | None,
    asked: Mapping[str, Any],
) -> None:
    """Raise what AWS would answer instead of starting instances.

    Args:
        ec2: where.
        account: whose.
        image_id: what they boot.
        count: how many.
        user_data: as the request has it.
        asked: everything else, in moto's words.
    """
    instance_type = asked["instance_type"]
    if instance_type not in INSTANCE_TYPES:
        raise EC2ClientError(_INVALID, f"Invalid value '{instance_type}' for InstanceType.")
    _refuse_image(ec2, image_id, instance_type)
    if user_data is not None and len(base64.b64decode(str(user_data))) > _LARGEST_USER_DATA:
        raise EC2ClientError(_INVALID, f"User data is limited to {_LARGEST_USER_DATA} bytes")
    profile = asked.get("iam_instance_profile_name")
    if profile and not account.is_known(profile):
        raise EC2ClientError(
            _INVALID,
            f"Value ({profile}) for parameter iamInstanceProfile.name is invalid. Invalid IAM "
            "Instance Profile name",
        )
    _refuse_for_lack(ec2, account, _zone(ec2, asked), instance_type, count)


def vcpus_of(instance_type: str) -> int:
    """Return how many virtual CPUs count against the quota."""
    return int(INSTANCE_TYPES[instance_type]["VCpuInfo"]["DefaultVCpus"])


def _zone(ec2: EC2Backend, asked: Mapping[str, Any]) -> str:
    subnets = [nic["SubnetId"] for nic in asked.get("nics") or () if "SubnetId" in nic]
    subnet = asked.get("subnet_id") or next(iter(subnets), None)
    if subnet:
        return str(ec2.get_subnet(subnet).availability_zone)
    return str(asked.get("placement") or f"{ec2.region_name}a")


def _refuse_image(ec2: EC2Backend, image_id: str, instance_type: str) -> None:
    image = ec2.amis.get(image_id)
    if image is None:
        raise EC2ClientError(_NO_IMAGE, f"The image id '[{image_id}]' does not exist")
    if image.state != "available":
        raise EC2ClientError(_IMAGE_NOT_READY, f"The image ID '{image_id}' is not available")
    supported = INSTANCE_TYPES[instance_type]["ProcessorInfo"]["SupportedArchitectures"]
    if (image.architecture or "x86_64") not in supported:
        raise EC2ClientError(
            _INVALID,
            f"The architecture '{supported[0]}' of the specified instance type ({instance_type}) "
            f"does not match the architecture '{image.architecture}' of the specified AMI.",
        )


def _refuse_for_lack(
    ec2: EC2Backend, account: Account, zone: str, instance_type: str, count: int
) -> None:
    wanted = {"location": [zone], "instance-type": [instance_type]}
    if not ec2.describe_instance_type_offerings("availability-zone", wanted):
        raise EC2ClientError(
            _NOT_OFFERED,
            f"Your requested instance type ({instance_type}) is not supported in your requested "
            f"Availability Zone ({zone}).",
        )
    used = sum(
        vcpus_of(instance.instance_type)
        for instance in ec2.all_instances()
        if instance.state in {"pending", "running"}
    )
    if used + count * vcpus_of(instance_type) > account.vcpus:
        raise EC2ClientError(
            _QUOTA,
            f"You have requested more vCPU capacity than your current vCPU limit of "
            f"{account.vcpus} allows for the instance bucket that the specified instance type "
            "belongs to.",
        )
    if account.faults.lacks_capacity(zone, instance_type):
        raise EC2ClientError(
            _CAPACITY,
            f"We currently do not have sufficient {instance_type} capacity in the Availability "
            f"Zone you requested ({zone}). Our system will be working on provisioning additional "
            "capacity.",
        )
