"""An account of the local AWS, as boto3 sees it: none of our own client code."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
import requests
from botocore.config import Config

from domain.cloud import Provider
from infra.local_cloud.serving import served

# New keys and profiles are known everywhere after twice as long.
ACTION_SECONDS = 1.0
REGION = "eu-central-1"
ZONE = "eu-central-1a"
UBUNTU = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(Provider.AWS, action_seconds=ACTION_SECONDS) as found:
        yield found


@dataclass(frozen=True)
class Aws:
    """One access key."""

    url: str
    key: Mapping[str, str]

    def client(self, service: str, region: str = REGION, attempts: int = 1) -> Any:  # noqa: ANN401
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=region,
            aws_access_key_id=self.key["access_key_id"],
            aws_secret_access_key=self.key["secret_access_key"],
            config=Config(retries={"mode": "standard", "total_max_attempts": attempts}),
        )

    def disturb(self, **fault: object) -> None:
        answer = requests.post(f"{self.url}/_faults", data=json.dumps(fault), timeout=30)
        answer.raise_for_status()

    def another(self, **asked: object) -> "Aws":
        """Return another user of the same account, or another account's."""
        answer = requests.post(f"{self.url}/_accounts", data=json.dumps(asked), timeout=30)
        answer.raise_for_status()
        return Aws(self.url, json.loads(answer.content))

    def subnet(self) -> str:
        ec2 = self.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.9.0.0/24")["Vpc"]["VpcId"]
        answer = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.0.0/24", AvailabilityZone=ZONE)
        return str(answer["Subnet"]["SubnetId"])

    def run(self, subnet: str, **asked: object) -> dict[str, Any]:
        image = self.client("ssm").get_parameter(Name=UBUNTU)["Parameter"]["Value"]
        arguments = {
            "ImageId": image,
            "InstanceType": "t3.small",
            "MinCount": 1,
            "MaxCount": 1,
            "NetworkInterfaces": [
                {"DeviceIndex": 0, "SubnetId": subnet, "AssociatePublicIpAddress": True}
            ],
        }
        answer = self.client("ec2", attempts=2).run_instances(**arguments | asked)
        instance: dict[str, Any] = answer["Instances"][0]
        return instance

    def state(self, instance_id: str) -> str:
        answer = self.client("ec2").describe_instances(InstanceIds=[instance_id])
        return str(answer["Reservations"][0]["Instances"][0]["State"]["Name"])

    def wait(self, waiter: str, instance_id: str) -> None:
        waits = {"Delay": 0.05, "MaxAttempts": 400}
        found = self.client("ec2").get_waiter(waiter)
        found.wait(InstanceIds=[instance_id], WaiterConfig=waits)


@pytest.fixture
def aws(url: str) -> Iterator[Aws]:
    yield Aws(url, {}).another()
    requests.delete(f"{url}/_faults", timeout=30).raise_for_status()
