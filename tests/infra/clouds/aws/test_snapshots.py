"""Images of AWS's servers, and the snapshots inside them, which outlive them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from domain.cloud import SNAPSHOT, Provider, Snapshot, Tag
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from infra.clouds.aws.cloud import AwsCloud, open_cloud
from infra.clouds.removal import remove_all
from infra.local_cloud.serving import served
from infra.settings import ProviderSettings
from tests.clouds.aws_case import CASE, new_key
from tests.infra.clouds.copies import HeldDisks, end_of_copy

NAME = "bh-kept"
PLACE, REGION = CASE.place.name, CASE.place.region


@dataclass
class Account:
    """An account with one server that is off."""

    cloud: AwsCloud
    disks: HeldDisks
    workspace_id: str
    stack_id: str
    server_id: str = ""

    @property
    def ec2(self) -> Any:  # noqa: ANN401 - boto3's
        return self.cloud._clients("ec2", REGION)  # noqa: SLF001 - the same client

    @property
    def tags(self) -> dict[str, str]:
        return {Tag.WORKSPACE: self.workspace_id, Tag.STACK: self.stack_id, Tag.RESOURCE: SNAPSHOT}

    def switch_off_a_server(self) -> None:
        vpc = self.ec2.create_vpc(CidrBlock="10.9.0.0/24")["Vpc"]["VpcId"]
        asked = {"VpcId": vpc, "CidrBlock": "10.9.0.0/24", "AvailabilityZone": PLACE}
        subnet = self.ec2.create_subnet(**asked)["Subnet"]["SubnetId"]
        images = self.ec2.describe_images(
            Filters=[
                {"Name": "name", "Values": ["ubuntu/*"]},
                {"Name": "architecture", "Values": ["x86_64"]},
            ]
        )
        made = self.ec2.run_instances(
            ImageId=images["Images"][0]["ImageId"],
            InstanceType=CASE.instance_type,
            MinCount=1,
            MaxCount=1,
            SubnetId=subnet,
        )
        self.server_id = made["Instances"][0]["InstanceId"]
        waits = {"Delay": 0.05, "MaxAttempts": 400}
        running = self.ec2.get_waiter("instance_running")
        running.wait(InstanceIds=[self.server_id], WaiterConfig=waits)
        self.cloud.power_off(self.server_id)

    def keep(self, *, begun: bool = False) -> Snapshot | None:
        return self.cloud.snapshot(self.server_id, NAME, self.tags, PLACE, begun=begun)

    def kinds(self) -> list[str]:
        return [thing.kind for thing in self.cloud.inventory(self.workspace_id)]

    def snapshots(self) -> list[Any]:
        filters = [{"Name": f"tag:{Tag.WORKSPACE}", "Values": [self.workspace_id]}]
        return list(self.ec2.describe_snapshots(Filters=filters)["Snapshots"])


@pytest.fixture
def account() -> Iterator[Account]:
    disks = HeldDisks()
    with served(Provider.AWS, boots=disks) as url:
        cloud = open_cloud(new_key(url), ProviderSettings(aws_endpoint_url=url))
        found = Account(cloud, disks, new_id(Prefix.WORKSPACE), new_id(Prefix.STACK))
        found.switch_off_a_server()
        yield found
        disks.free.set()


def test_an_image_that_is_still_made_goes_with_its_snapshot(account: Account) -> None:
    assert account.keep() is None
    found = account.cloud.inventory(account.workspace_id)
    assert [(thing.kind, thing.resource) for thing in found] == [("image", SNAPSHOT)]
    # It does not say yet of what it is made.
    image = account.ec2.describe_images(ImageIds=[found[0].id])["Images"][0]
    assert [disk["Ebs"].get("SnapshotId") for disk in image["BlockDeviceMappings"]] == [None]
    assert remove_all(account.cloud, found) == []
    assert account.kinds() == []
    assert account.snapshots() == []


def test_a_snapshot_whose_image_is_gone_is_found_and_removed(account: Account) -> None:
    account.disks.free.set()
    assert account.keep() is None
    end_of_copy(account.keep)
    (image,) = account.cloud.inventory(account.workspace_id)
    # A worker dies between the two calls that remove an image.
    account.ec2.deregister_image(ImageId=image.id)
    found = account.cloud.inventory(account.workspace_id)
    assert [thing.kind for thing in found] == ["snapshot"]
    assert remove_all(account.cloud, found) == []
    assert account.snapshots() == []


def test_volumes_of_others_are_no_part_of_a_snapshot(account: Account) -> None:
    volume = account.ec2.create_volume(AvailabilityZone=PLACE, Size=5)["VolumeId"]
    attached = {"VolumeId": volume, "InstanceId": account.server_id, "Device": "/dev/sdf"}
    account.ec2.attach_volume(**attached)
    account.disks.free.set()
    assert account.keep() is None
    kept = end_of_copy(account.keep)
    image = account.ec2.describe_images(ImageIds=[kept.id])["Images"][0]
    devices = [disk["DeviceName"] for disk in image["BlockDeviceMappings"]]
    assert devices == [image["RootDeviceName"]]
    assert len(account.snapshots()) == 1


def test_a_copy_that_failed_is_removed_and_begun_again(account: Account) -> None:
    account.disks.fail_once()
    assert account.keep() is None
    with pytest.raises(BulkheadError) as failed:
        end_of_copy(account.keep)
    assert failed.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert account.keep() is None
    kept = end_of_copy(account.keep)
    assert [(thing.kind, thing.id) for thing in account.cloud.inventory(account.workspace_id)] == [
        ("image", kept.id)
    ]
    assert len(account.snapshots()) == 1
