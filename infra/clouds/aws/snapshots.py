"""Images of an account's servers, in which their disks are kept."""

import math
from collections.abc import Mapping
from typing import Final

from domain.cloud import Snapshot
from domain.errors import BulkheadError, Reason
from infra.clouds.aws.kinds import Found, tags_of

# The EBS price list of most regions for the standard tier, dollars for a GiB in a month.
_SNAPSHOT_DOLLARS: Final = 0.05


def without_attached(server: Found) -> list[dict[str, str]]:
    """Return that an image has no disk but the server's own.

    Of each volume that the cluster's storage driver has attached, AWS would keep a copy, and make a
    volume for every server of the image, which no inventory knows and which outlives it.
    """
    devices = [str(mapping["DeviceName"]) for mapping in server.get("BlockDeviceMappings", [])]
    return [
        {"DeviceName": device, "NoDevice": ""}
        for device in devices
        if device != server["RootDeviceName"]
    ]


def has_failed(image: Found, tags: Mapping[str, str]) -> bool:
    """Tell whether an image is neither whole nor in the making; raises when it is not ours."""
    name, found = str(image["Name"]), tags_of(image)
    if any(found.get(key) != value for key, value in tags.items()):
        raise BulkheadError(
            Reason.CONFLICT,
            f"The account has an image {name} that is not of this server. Remove or rename it.",
        )
    return image["State"] not in {"pending", "transient", "available"}


def snapshot_in(image: Found) -> Snapshot | None:
    """Return what an image keeps; None: it is in the making."""
    if image["State"] != "available":
        return None
    disks = [mapping.get("Ebs", {}) for mapping in image.get("BlockDeviceMappings", [])]
    size = float(sum(disk.get("VolumeSize", 0) for disk in disks))
    cents = math.ceil(size * _SNAPSHOT_DOLLARS * 100)
    return Snapshot(id=str(image["ImageId"]), size_gb=size, monthly_cost_cents=cents)
