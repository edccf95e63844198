import base64
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

import pytest
from botocore.exceptions import ClientError, HTTPClientError

from domain.cloud import Provider
from infra.local_cloud.boots import NoBoots
from infra.local_cloud.serving import served
from tests.infra.local_cloud.aws.conftest import ACTION_SECONDS, REGION, ZONE, Aws


@contextlib.contextmanager
def refused(code: str) -> Iterator[None]:
    with pytest.raises(ClientError) as caught:
        yield
    assert caught.value.response["Error"]["Code"] == code, caught.value


def test_the_same_client_token_starts_one_server_and_other_parameters_are_refused(
    aws: Aws,
) -> None:
    subnet = aws.subnet()
    first = aws.run(subnet, ClientToken="one", UserData="#cloud-config\n")
    again = aws.run(subnet, ClientToken="one", UserData="#cloud-config\n")
    assert again["InstanceId"] == first["InstanceId"]
    with refused("IdempotentParameterMismatch"):
        aws.run(subnet, ClientToken="one", UserData="#cloud-config\n# other\n")
    assert aws.run(subnet, ClientToken="two")["InstanceId"] != first["InstanceId"]


def test_a_start_whose_answer_is_lost_is_found_again_by_its_token(aws: Aws) -> None:
    subnet = aws.subnet()
    aws.disturb(kind="lost_response", call="POST / RunInstances$", count=1)
    # boto3 asks again by itself, with the same token.
    found = aws.run(subnet, ClientToken="lost")["InstanceId"]
    reservations = aws.client("ec2").describe_instances()["Reservations"]
    assert [r["Instances"][0]["InstanceId"] for r in reservations] == [found]
    aws.disturb(kind="lost_response", call="POST / CreateVpc$", count=1)
    with pytest.raises(HTTPClientError):
        aws.client("ec2").create_vpc(CidrBlock="10.8.0.0/24")
    made = aws.client("ec2").describe_vpcs(Filters=[{"Name": "cidr", "Values": ["10.8.0.0/24"]}])
    assert len(made["Vpcs"]) == 1


def test_what_is_in_use_stays(aws: Aws) -> None:
    ec2 = aws.client("ec2")
    subnet = aws.subnet()
    vpc = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    group = ec2.create_security_group(GroupName="nodes", Description="-", VpcId=vpc)["GroupId"]
    interface = {
        "DeviceIndex": 0,
        "SubnetId": subnet,
        "Groups": [group],
        "AssociatePublicIpAddress": True,
    }
    server = aws.run(subnet, NetworkInterfaces=[interface])["InstanceId"]
    removals: list[Callable[[], object]] = [
        lambda: ec2.delete_security_group(GroupId=group),
        lambda: ec2.delete_subnet(SubnetId=subnet),
        lambda: ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc),
        lambda: ec2.delete_vpc(VpcId=vpc),
    ]
    for remove in removals:
        with refused("DependencyViolation"):
            remove()
    ec2.terminate_instances(InstanceIds=[server])
    with refused("DependencyViolation"):
        ec2.delete_subnet(SubnetId=subnet)
    aws.wait("instance_terminated", server)
    for remove in removals:
        remove()


def test_a_start_is_refused_for_what_aws_refuses_it_for(aws: Aws) -> None:
    subnet = aws.subnet()
    with refused("InvalidAMIID.NotFound"):
        aws.run(subnet, ImageId="ami-0123456789abcdef0")
    with refused("InvalidParameterValue"):
        aws.run(subnet, InstanceType="t9.enormous")
    with refused("InvalidParameterValue"):
        aws.run(subnet, InstanceType="t4g.small")  # another processor than the image's
    with refused("InvalidParameterValue"):
        aws.run(subnet, UserData="x" * 16385)
    aws.disturb(kind="capacity", place=ZONE, instance_type="t3.small")
    with refused("InsufficientInstanceCapacity"):
        aws.run(subnet)
    assert aws.run(subnet, InstanceType="t3.micro")


def test_quotas_end(aws: Aws) -> None:
    small = aws.another(vcpus=2, vpcs=2)
    subnet = small.subnet()
    small.run(subnet)
    with refused("VcpuLimitExceeded"):
        small.run(subnet)
    with refused("VpcLimitExceeded"):
        small.client("ec2").create_vpc(CidrBlock="10.8.0.0/24")
    quotas = small.client("service-quotas")
    answer = quotas.get_service_quota(ServiceCode="ec2", QuotaCode="L-1216C47A")
    assert answer["Quota"]["Value"] == 2


def test_only_keys_of_an_account_are_accepted_and_accounts_see_nothing_of_each_other(
    aws: Aws,
) -> None:
    aws.subnet()
    wrong = Aws(aws.url, {**aws.key, "secret_access_key": "x" * 40})
    nobody = Aws(aws.url, {**aws.key, "access_key_id": "AKIA" + "X" * 16})
    for stranger, code in ((wrong, "SignatureDoesNotMatch"), (nobody, "InvalidClientTokenId")):
        with refused(code):
            stranger.client("sts").get_caller_identity()
        with refused("AuthFailure"):
            stranger.client("ec2").describe_vpcs()
    with refused("AuthFailure"):
        aws.client("ec2", region="ap-south-1").describe_vpcs()
    vpcs = aws.another().client("ec2").describe_vpcs()["Vpcs"]
    assert all(vpc["IsDefault"] for vpc in vpcs)


def second_key(aws: Aws) -> Aws:
    made = aws.client("iam").create_access_key()["AccessKey"]
    key = {"access_key_id": made["AccessKeyId"], "secret_access_key": made["SecretAccessKey"]}
    return Aws(aws.url, key)


def test_a_new_key_and_a_new_profile_take_a_while() -> None:
    # Longer than any test takes.
    with served(Provider.AWS, action_seconds=3600) as url:
        aws = Aws(url, {}).another()
        with refused("InvalidClientTokenId"):
            second_key(aws).client("sts").get_caller_identity()
        aws.client("iam").create_instance_profile(InstanceProfileName="new", Path="/")
        with refused("InvalidParameterValue"):
            aws.run(aws.subnet(), IamInstanceProfile={"Name": "new"})


def test_a_key_that_is_off_is_refused(aws: Aws) -> None:
    iam, second = aws.client("iam"), second_key(aws)
    with refused("LimitExceeded"):
        iam.create_access_key()
    time.sleep(2 * ACTION_SECONDS)
    second.client("sts").get_caller_identity()
    iam.update_access_key(AccessKeyId=second.key["access_key_id"], Status="Inactive")
    with refused("InvalidClientTokenId"):
        second.client("sts").get_caller_identity()


def test_policies_bind_by_action_and_by_the_path_of_a_role(aws: Aws) -> None:
    path = "/bulkhead/ws/"
    bound = aws.another(
        account_id=aws.key["account_id"],
        user_name="bound",
        policy={
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Action": ["ec2:Describe*", "ec2:Run*"], "Resource": "*"},
                {
                    "Effect": "Allow",
                    "Action": "iam:CreateRole",
                    "Resource": "arn:aws:iam::*:role/bulkhead/*",
                },
            ],
        },
    )
    bound.client("ec2").describe_vpcs()
    with refused("DryRunOperation"):
        bound.client("ec2").describe_vpcs(DryRun=True)
    with refused("UnauthorizedOperation"):
        bound.client("ec2").create_vpc(CidrBlock="10.8.0.0/24", DryRun=True)
    iam = bound.client("iam")
    iam.create_role(RoleName="ours", Path=path, AssumeRolePolicyDocument="{}")
    with refused("EntityAlreadyExists"):
        iam.create_role(RoleName="ours", Path=path, AssumeRolePolicyDocument="{}")
    with refused("AccessDenied"):
        iam.create_role(RoleName="theirs", AssumeRolePolicyDocument="{}")
    aws.client("iam").create_instance_profile(InstanceProfileName="ours", Path=path)
    aws.client("iam").add_role_to_instance_profile(InstanceProfileName="ours", RoleName="ours")
    subnet = aws.subnet()
    time.sleep(2 * ACTION_SECONDS)
    image = aws.run(subnet, IamInstanceProfile={"Name": "ours"})["ImageId"]
    with refused("UnauthorizedOperation"):  # it may not pass the role
        bound.client("ec2").run_instances(
            ImageId=image, MinCount=1, MaxCount=1, IamInstanceProfile={"Name": "ours"}
        )


def test_a_storm_is_a_storm_for_every_service(aws: Aws) -> None:
    aws.disturb(kind="rate_limit")
    with refused("RequestLimitExceeded"):
        aws.client("ec2").describe_vpcs()
    with refused("Throttling"):
        aws.client("iam").list_roles()
    with refused("Throttling"):
        aws.client("ssm").get_parameter(Name="x")


class HeldBoots(NoBoots):
    """A record of what was asked, which is done when it is not held."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self._free = threading.Event()
        self._free.set()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def create(self, key: str, *, user_data: str, network_key: str, image: str) -> IPv4Address:
        self._do("create", key, user_data, network_key, image)
        return IPv4Address("10.200.0.17")

    def power_off(self, key: str) -> None:
        self._do("power_off", key)

    def power_on(self, key: str) -> None:
        self._do("power_on", key)

    def snapshot(self, key: str) -> str:
        self._do("snapshot", key)
        return f"disk-of-{key}"

    def remove_snapshot(self, snapshot_key: str) -> None:
        self._do("remove_snapshot", snapshot_key)

    def remove(self, key: str) -> None:
        self._do("remove", key)

    def _do(self, *asked: str) -> None:
        self._free.wait(60)
        self.asked.append(asked)


def test_servers_take_their_time() -> None:
    boots = HeldBoots()
    with served(Provider.AWS, boots=boots) as url:
        aws = Aws(url, {}).another()
        ec2, subnet = aws.client("ec2"), aws.subnet()
        with boots.held():
            server = aws.run(subnet)
            key = server["InstanceId"]
            assert server["State"]["Name"] == aws.state(key) == "pending"
            with refused("IncorrectInstanceState"):
                ec2.stop_instances(InstanceIds=[key])
        aws.wait("instance_running", key)
        with boots.held():
            ec2.stop_instances(InstanceIds=[key])
            assert aws.state(key) == "stopping"
        aws.wait("instance_stopped", key)
        with boots.held():
            ec2.start_instances(InstanceIds=[key])
            assert aws.state(key) == "pending"
        aws.wait("instance_running", key)
        with boots.held():
            ec2.terminate_instances(InstanceIds=[key])
            assert aws.state(key) == "shutting-down"
        aws.wait("instance_terminated", key)


def test_servers_boot_with_their_user_data_and_images_are_their_disks() -> None:
    boots = HeldBoots()
    with served(Provider.AWS, boots=boots) as url:
        aws = Aws(url, {}).another()
        ec2 = aws.client("ec2")
        subnet = aws.subnet()
        server = aws.run(subnet, UserData="#cloud-config\n# first\n")
        key, vpc = server["InstanceId"], server["VpcId"]
        aws.wait("instance_running", key)
        told = ec2.describe_instances(InstanceIds=[key])["Reservations"][0]["Instances"][0]
        assert told["PrivateIpAddress"] == "10.200.0.17"
        assert boots.asked == [("create", key, "#cloud-config\n# first\n", vpc, server["ImageId"])]
        tags = [{"ResourceType": "snapshot", "Tags": [{"Key": "a", "Value": "b"}]}]
        with boots.held():
            image = ec2.create_image(InstanceId=key, Name="kept", TagSpecifications=tags)["ImageId"]
            with refused("InvalidAMIName.Duplicate"):
                ec2.create_image(InstanceId=key, Name="kept")
            with refused("InvalidAMIID.Unavailable"):
                aws.run(subnet, ImageId=image)
        ec2.get_waiter("image_available").wait(
            ImageIds=[image], WaiterConfig={"Delay": 0.05, "MaxAttempts": 400}
        )
        snapshots = ec2.describe_snapshots(Filters=[{"Name": "tag:a", "Values": ["b"]}])
        snapshot = snapshots["Snapshots"][0]["SnapshotId"]
        again = aws.run(subnet, ImageId=image)["InstanceId"]
        aws.wait("instance_running", again)
        assert boots.asked[-1] == ("create", again, "", vpc, f"disk-of-{key}")
        with refused("InvalidSnapshot.InUse"):
            ec2.delete_snapshot(SnapshotId=snapshot)
        ec2.deregister_image(ImageId=image)
        ec2.delete_snapshot(SnapshotId=snapshot)
        ec2.terminate_instances(InstanceIds=[key])
        aws.wait("instance_terminated", key)
        assert boots.asked[-2:] == [("remove_snapshot", f"disk-of-{key}"), ("remove", key)]


def test_an_image_in_the_making_tells_no_snapshot_and_leaves_no_disk_when_it_is_given_up() -> None:
    boots = HeldBoots()
    with served(Provider.AWS, boots=boots) as url:
        aws = Aws(url, {}).another()
        ec2 = aws.client("ec2")
        key = aws.run(aws.subnet())["InstanceId"]
        aws.wait("instance_running", key)
        with boots.held():
            image = ec2.create_image(InstanceId=key, Name="kept")["ImageId"]
            (told,) = ec2.describe_images(ImageIds=[image])["Images"]
            assert told["State"] == "pending"
            assert "SnapshotId" not in told["BlockDeviceMappings"][0]["Ebs"]
            ec2.deregister_image(ImageId=image)
        while boots.asked[-1] != ("remove_snapshot", f"disk-of-{key}"):
            time.sleep(0.05)


def test_zones_sizes_and_user_data_are_told(aws: Aws) -> None:
    ec2 = aws.client("ec2")
    regions = {found["RegionName"] for found in ec2.describe_regions()["Regions"]}
    assert REGION in regions
    assert len(regions) < 10
    offers = ec2.describe_instance_type_offerings(
        LocationType="availability-zone",
        Filters=[
            {"Name": "location", "Values": [ZONE]},
            {"Name": "instance-type", "Values": ["t3.small"]},
        ],
    )
    assert [offer["Location"] for offer in offers["InstanceTypeOfferings"]] == [ZONE]
    server = aws.run(aws.subnet(), UserData="#cloud-config\n")["InstanceId"]
    told = ec2.describe_instance_attribute(InstanceId=server, Attribute="userData")
    assert base64.b64decode(told["UserData"]["Value"]) == b"#cloud-config\n"
