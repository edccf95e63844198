"""Images: Canonical's newest, and those of an account's own disks."""

import hashlib
from collections.abc import Collection, Iterator
from typing import Any, Final

from moto.core.responses import ActionResult
from moto.ec2.models import EC2Backend
from moto.ec2.models.amis import Ami
from moto.ec2.models.elastic_block_store import Snapshot
from moto.ec2.responses import EC2Response

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


class ImageRequests(EC2Response):
    """EC2's requests, of which moto does not read which disks an image shall be without."""

    def create_image(self) -> ActionResult:
        """Answer `CreateImage`."""
        mappings = self._get_param("BlockDeviceMappings", [])
        left_out = {each["DeviceName"] for each in mappings if each.get("NoDevice") == ""}
        before = set(self.ec2_backend.amis)
        answer: ActionResult = super().create_image()
        for image_id in set(self.ec2_backend.amis) - before:
            self.ec2_backend.amis[image_id].add_attached(left_out)
        return answer


class DiskImage(Ami):
    """An image that says how large its disks are."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # By device: what was attached to its server beside the root disk.
        self._attached: dict[str, tuple[Snapshot, bool]] = {}

    def add_attached(self, left_out: Collection[str]) -> None:
        """Have a snapshot of each other volume of the image's server, as AWS does unasked."""
        for device, disk in self.instance.block_device_mapping.items():
            if device in {self.instance.root_device_name, *left_out}:
                continue
            snapshot = self.ec2_backend.create_snapshot(
                disk.volume_id, self.ebs_snapshot.description, from_ami=self.id
            )
            snapshot.add_tags({tag["key"]: tag["value"] for tag in self.ebs_snapshot.get_tags()})
            self._attached[device] = (snapshot, disk.delete_on_termination)

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        """Return its disks; of which snapshots they are, an image in the making does not say."""
        disks = {self.root_device_name: (self.ebs_snapshot, True), **self._attached}
        return [
            {"DeviceName": device, "Ebs": self._disk(snapshot, goes_with_it)}
            for device, (snapshot, goes_with_it) in disks.items()
        ]

    def _disk(self, snapshot: Snapshot, goes_with_it: bool) -> dict[str, Any]:  # noqa: FBT001
        disk = {
            "VolumeSize": snapshot.volume.size,
            "VolumeType": "gp3",
            "Encrypted": snapshot.encrypted,
            "DeleteOnTermination": goes_with_it,
        }
        if self.state != "pending":
            disk["SnapshotId"] = snapshot.id
        return disk


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
