import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from domain.cloud import Allowance, Provider, Tag
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.secret import SecretKind, SecretValue
from infra.clouds.aws.cloud import AwsCloud, open_cloud
from infra.clouds.aws.permissions import IAM_PATH
from infra.clouds.removal import remove_all
from infra.local_cloud.serving import served
from infra.providers.validation import ProviderValidation, ValidationState
from infra.settings import ProviderSettings
from tests.clouds.aws_policy import documented_policy

REGIONS = ("eu-central-1", "us-east-1")


@dataclass(frozen=True)
class Account:
    url: str
    account_id: str
    cloud: AwsCloud

    def user(self, **asked: object) -> AwsCloud:
        """Return the account as another user sees it."""
        return _opened(self.url, account_id=self.account_id, user_name="other", **asked)[1]

    def network(self, region: str, stack_id: str, workspace_id: str, resource: str) -> str:
        ec2 = self.cloud._clients("ec2", region)  # noqa: SLF001 - the same client, to make things
        tags = {Tag.WORKSPACE: workspace_id, Tag.STACK: stack_id, Tag.RESOURCE: resource}
        answer = ec2.create_vpc(
            CidrBlock="10.9.0.0/24",
            TagSpecifications=[
                {
                    "ResourceType": "vpc",
                    "Tags": [{"Key": str(key), "Value": value} for key, value in tags.items()],
                }
            ],
        )
        return str(answer["Vpc"]["VpcId"])


def _opened(url: str, **asked: object) -> tuple[str, AwsCloud]:
    answer = requests.post(f"{url}/_accounts", data=json.dumps(asked), timeout=30)
    answer.raise_for_status()
    value = SecretValue(answer.content)
    cloud = open_cloud(value, ProviderSettings(aws_endpoint_url=url))
    return str(json.loads(answer.content)["account_id"]), cloud


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(Provider.AWS) as found:
        yield found


@pytest.fixture
def account(url: str) -> Account:
    account_id, cloud = _opened(url, vcpus=5)
    return Account(url, account_id, cloud)


def test_what_is_tagged_is_found_in_every_region_and_nothing_else_is(account: Account) -> None:
    workspace, stacks = new_id(Prefix.WORKSPACE), [new_id(Prefix.STACK) for _ in REGIONS]
    made = [
        account.network(region, stack, workspace, "network")
        for region, stack in zip(REGIONS, stacks, strict=True)
    ]
    account.network(REGIONS[0], stacks[0], new_id(Prefix.WORKSPACE), "network")
    found = account.cloud.inventory(workspace)
    assert {(one.id, one.place) for one in found} == set(zip(made, REGIONS, strict=True))
    of_one = account.cloud.inventory(workspace, stacks[1])
    assert [(one.id, one.stack_id, one.resource) for one in of_one] == [
        (made[1], stacks[1], "network")
    ]
    assert remove_all(account.cloud, found) == []
    assert account.cloud.inventory(workspace) == []
    # What is gone already is no failure.
    assert remove_all(account.cloud, found) == []


def test_a_stray_interface_in_our_network_is_found_and_goes_first(account: Account) -> None:
    workspace, stack = new_id(Prefix.WORKSPACE), new_id(Prefix.STACK)
    vpc = account.network(REGIONS[0], stack, workspace, "network")
    ec2 = account.cloud._clients("ec2", REGIONS[0])  # noqa: SLF001 - as above
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.0.0/24")["Subnet"]["SubnetId"]
    tags = [
        {"Key": str(Tag.WORKSPACE), "Value": workspace},
        {"Key": str(Tag.STACK), "Value": stack},
    ]
    ec2.create_tags(Resources=[subnet], Tags=tags)
    ec2.create_network_interface(SubnetId=subnet)
    found = account.cloud.inventory(workspace, stack)
    assert [one.kind for one in found] == ["network-interface", "subnet", "vpc"]
    # It carries no tag itself: as long as the network is wanted, it is its owner's.
    assert [one.inherits for one in found] == [True, False, False]
    with pytest.raises(BulkheadError) as caught:
        account.cloud.remove(found[1])
    assert caught.value.reason is Reason.CONFLICT
    assert remove_all(account.cloud, found) == []


def test_roles_are_found_by_their_path(account: Account) -> None:
    workspace, stack = new_id(Prefix.WORKSPACE), new_id(Prefix.STACK)
    iam = account.cloud._clients("iam")  # noqa: SLF001 - as above
    name = f"bh-{stack.removeprefix('stk_')}-role"
    path = f"{IAM_PATH}{workspace}/"
    iam.create_role(RoleName=name, Path=path, AssumeRolePolicyDocument="{}")
    iam.create_role(RoleName="somebody-elses", AssumeRolePolicyDocument="{}")
    found = account.cloud.inventory(workspace, stack)
    assert [(one.kind, one.id, one.resource) for one in found] == [("role", name, "role")]
    assert remove_all(account.cloud, found) == []
    assert iam.get_role(RoleName="somebody-elses")


def test_the_allowance_is_told_to_those_who_may_see_it(account: Account) -> None:
    assert account.cloud.allowance("eu-central-1a") == Allowance(machines_left=2, cpus_left=5)
    policy = documented_policy()
    for statement in policy["Statement"]:
        statement["Action"] = [
            action for action in statement["Action"] if not action.startswith("servicequotas:")
        ]
    assert account.user(policy=policy).allowance("eu-central-1a") == Allowance()


def test_prices_are_told_where_the_list_has_them(account: Account) -> None:
    sizes = {size.name: size for size in account.cloud.instance_types("eu-central-1a")}
    small = sizes["t3.small"]
    assert (small.price_per_hour, small.currency) == (0.024, "USD")
    assert small.price_unknown is None
    assert sizes["m5.xlarge"].price_per_hour is None
    assert "no such type" in str(sizes["m5.xlarge"].price_unknown)


def test_who_may_not_read_the_price_list_is_told_so(account: Account) -> None:
    policy = documented_policy()
    for statement in policy["Statement"]:
        statement["Action"] = [
            action for action in statement["Action"] if not action.startswith("pricing:")
        ]
    # A region whose list nobody has read.
    sizes = account.user(policy=policy).instance_types("us-east-1a")
    assert {size.price_per_hour for size in sizes} == {None}
    assert all("pricing:GetProducts" in str(size.price_unknown) for size in sizes)


def missing_without(account: Account, policy: dict[str, Any], lost: set[str]) -> set[str]:
    """Return what is named of a user who has a policy less some of its actions."""
    for statement in policy["Statement"]:
        statement["Action"] = [action for action in statement["Action"] if action not in lost]
    policy["Statement"] = [one for one in policy["Statement"] if one["Action"]]
    with pytest.raises(BulkheadError) as caught:
        account.user(policy=policy).check_credential()
    return set(caught.value.metadata["missing"].split(","))


def test_each_missing_permission_of_the_manuals_policy_is_named(account: Account) -> None:
    policy = documented_policy()
    machines, roles, _ = policy["Statement"]
    # Without these a machine is made all the same: what looks is told apart, prices are not needed.
    kept = {"ec2:Describe*", "pricing:GetProducts", "servicequotas:GetServiceQuota"}
    lost = {*machines["Action"], *roles["Action"]} - kept
    assert missing_without(account, policy, lost) == lost


def test_who_may_look_at_nothing_of_ec2_is_told_what_is_looked_at(account: Account) -> None:
    missing = missing_without(account, documented_policy(), {"ec2:Describe*"})
    assert {"ec2:DescribeInstances", "ec2:DescribeTags", "ec2:DescribeAddresses"} <= missing
    assert all(action.startswith("ec2:Describe") for action in missing)


def test_a_permission_is_named_though_the_user_may_not_simulate(account: Account) -> None:
    policy = documented_policy()
    lost = {"iam:ListInstanceProfiles", "ec2:DeleteNetworkInterface", "ssm:GetParameter"}
    missing = missing_without(account, policy, {*lost, "iam:SimulatePrincipalPolicy"})
    assert missing == lost


def test_a_value_that_is_no_key_is_refused_without_being_told() -> None:
    for text in ("canary-secret", '{"access_key_id": "canary-secret"}', "{canary-secret"):
        with pytest.raises(BulkheadError) as caught:
            open_cloud(SecretValue.of_text(text), ProviderSettings())
        assert caught.value.reason is Reason.CREDENTIAL_REJECTED
        assert "canary" not in caught.value.message


async def test_the_platform_validates_a_whole_key_by_a_signature_of_its_own(
    account: Account,
) -> None:
    validation = ProviderValidation(
        ProviderSettings(aws_sts_url=account.url, aws_endpoint_url=account.url)
    )
    whole = {
        "access_key_id": account.cloud.environment()["AWS_ACCESS_KEY_ID"],
        "secret_access_key": account.cloud.environment()["AWS_SECRET_ACCESS_KEY"],
    }
    wrong = {**whole, "secret_access_key": "canary-secret"}
    try:
        for key, state in ((whole, ValidationState.VALID), (wrong, ValidationState.INVALID)):
            value = SecretValue.of_text(json.dumps(key))
            found = await validation.validate(SecretKind.AWS, value, {})
            assert found.state is state, found
    finally:
        await validation.close()
