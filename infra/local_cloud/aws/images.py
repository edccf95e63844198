"""Images: Canonical's newest, and those of an account's own disks."""

import hashlib
from collections.abc import Iterator
from typing import Any, Final

from moto.ec2.models import EC2Backend
from moto.ec2.models.amis import Ami

# Canonical's account, and its parameter of Systems Manager that names the newest image.
UBUNTU_OWNER: Final = "099720109477"
UBUNTU_PARAMETER: Final = (
    "/aws/service/canonical/ubuntu/server/24.04/stable/current/{}/hvm/ebs-gp3/ami-id"
)
_ARCHITECTURES: Final = {"amd64": "x86_64", "arm64": "arm64"}


def ubuntu_image(region: str, architecture: str) -> str:
    """Return the id of Ubuntu 24.04's image in a region; `architecture`: `amd64` or `arm64`."""
    digest = hashlib.sha256(f"ubuntu-24.04 {region} {architecture}".encode()).hexdigest()
    return f"ami-{digest[:17]}"


class DiskImage(Ami):
    """An image that says how large its disk is."""

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        """Return its one disk; of which snapshot that is, an image in the making does not say."""
        disk = {
            "VolumeSize": self.ebs_snapshot.volume.size,
            "VolumeType": "gp3",
            "Encrypted": self.ebs_snapshot.encrypted,
            "DeleteOnTermination": True,
        }
        if self.state != "pending":
            disk["SnapshotId"] = self.ebs_snapshot.id
        return [{"DeviceName": self.root_device_name, "Ebs": disk}]


def ubuntu_images(ec2: EC2Backend) -> Iterator[DiskImage]:
    """Make Ubuntu's images of a region."""
    for name, architecture in _ARCHITECTURES.items():
        yield DiskImage(
            ec2,
            ubuntu_image(ec2.region_name, name),
            name=f"ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{name}-server",
            owner_id=UBUNTU_OWNER,
            public=True,
            virtualization_type="hvm",
            architecture=architecture,
            root_device_type="ebs",
            region_name=f"{ec2.region_name}a",
        )
