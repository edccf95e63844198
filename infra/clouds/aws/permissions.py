"""What an access key must be allowed to do, and how that is found out without doing it."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from botocore.exceptions import ClientError

from domain.errors import BulkheadError, Reason
from infra.clouds.aws.clients import Client, Clients
from infra.clouds.aws.errors import as_error, code_of, reason_of
from infra.clouds.aws.images import ubuntu_parameter

# The path of every role and instance profile of ours, so that a policy can be held to it.
IAM_PATH: Final = "/bulkhead/"

# Ids that exist nowhere.
_VPC, _SUBNET, _GATEWAY = "vpc-0bad0bad0bad0bad0", "subnet-0bad0bad0bad0bad0", "igw-0bad0bad0bad0ba"
_TABLE, _GROUP = "rtb-0bad0bad0bad0bad0", "sg-0bad0bad0bad0bad0"
_INSTANCE, _IMAGE = "i-0bad0bad0bad0bad0", "ami-0bad0bad0bad0bad0"
_RULE: Final = {
    "GroupId": _GROUP,
    "IpPermissions": [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": _GROUP}]}],
}

# What is asked with EC2's `DryRun`, which does nothing and tells whether it would be allowed.
_CALLS: Final[Mapping[str, Mapping[str, Any]]] = {
    "associate_route_table": {"RouteTableId": _TABLE, "SubnetId": _SUBNET},
    "attach_internet_gateway": {"InternetGatewayId": _GATEWAY, "VpcId": _VPC},
    "authorize_security_group_egress": _RULE,
    "authorize_security_group_ingress": _RULE,
    "create_image": {"InstanceId": _INSTANCE, "Name": "bulkhead-check"},
    "create_internet_gateway": {},
    "create_route": {"RouteTableId": _TABLE, "DestinationCidrBlock": "0.0.0.0/0"},
    "create_route_table": {"VpcId": _VPC},
    "create_security_group": {"GroupName": "bulkhead-check", "Description": "-", "VpcId": _VPC},
    "create_subnet": {"VpcId": _VPC, "CidrBlock": "10.0.0.0/24"},
    "create_tags": {"Resources": [_VPC], "Tags": [{"Key": "bulkhead-check", "Value": ""}]},
    "create_vpc": {"CidrBlock": "10.0.0.0/24"},
    "delete_internet_gateway": {"InternetGatewayId": _GATEWAY},
    "delete_network_interface": {"NetworkInterfaceId": "eni-0bad0bad0bad0bad0"},
    "delete_route": {"RouteTableId": _TABLE, "DestinationCidrBlock": "0.0.0.0/0"},
    "delete_route_table": {"RouteTableId": _TABLE},
    "delete_security_group": {"GroupId": _GROUP},
    "delete_snapshot": {"SnapshotId": "snap-0bad0bad0bad0bad0"},
    "delete_subnet": {"SubnetId": _SUBNET},
    "delete_tags": {"Resources": [_VPC], "Tags": [{"Key": "bulkhead-check"}]},
    "delete_volume": {"VolumeId": "vol-0bad0bad0bad0bad0"},
    "delete_vpc": {"VpcId": _VPC},
    "deregister_image": {"ImageId": _IMAGE},
    "describe_addresses": {},
    "describe_availability_zones": {},
    "describe_images": {},
    "describe_instance_type_offerings": {},
    "describe_instance_types": {},
    "describe_instances": {},
    "describe_internet_gateways": {},
    "describe_network_interfaces": {},
    "describe_regions": {},
    "describe_route_tables": {},
    "describe_security_groups": {},
    "describe_snapshots": {},
    "describe_subnets": {},
    "describe_tags": {},
    "describe_volumes": {},
    "describe_vpcs": {},
    "detach_internet_gateway": {"InternetGatewayId": _GATEWAY, "VpcId": _VPC},
    "disassociate_route_table": {"AssociationId": "rtbassoc-0bad0bad0bad0bad0"},
    "modify_instance_attribute": {"InstanceId": _INSTANCE, "Groups": [_GROUP]},
    "modify_instance_metadata_options": {"InstanceId": _INSTANCE, "HttpTokens": "required"},
    "release_address": {"AllocationId": "eipalloc-0bad0bad0bad0bad0"},
    "revoke_security_group_egress": _RULE,
    "revoke_security_group_ingress": _RULE,
    "run_instances": {"ImageId": _IMAGE, "MinCount": 1, "MaxCount": 1},
    "start_instances": {"InstanceIds": [_INSTANCE]},
    "stop_instances": {"InstanceIds": [_INSTANCE]},
    "terminate_instances": {"InstanceIds": [_INSTANCE]},
}

# What only the simulator tells: what has no `DryRun`, of any resource, and below our path.
_ACTIONS: Final = ("ec2:ModifyVpcAttribute",)
_IAM_ACTIONS: Final = (
    "iam:AddRoleToInstanceProfile",
    "iam:CreateInstanceProfile",
    "iam:CreateRole",
    "iam:DeleteInstanceProfile",
    "iam:DeleteRole",
    "iam:GetInstanceProfile",
    "iam:GetRole",
    "iam:ListAttachedRolePolicies",
    "iam:ListInstanceProfilesForRole",
    "iam:ListRolePolicies",
    "iam:PassRole",
    "iam:RemoveRoleFromInstanceProfile",
    "iam:TagInstanceProfile",
    "iam:TagRole",
    "iam:UntagInstanceProfile",
    "iam:UntagRole",
    "iam:UpdateAssumeRolePolicy",
)
_ONE_OF_OURS: Final = {"PathPrefix": IAM_PATH, "MaxItems": 1}
_DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException"})
_AT_ONCE: Final = 8


def check_permissions(clients: Clients) -> None:
    """Prove that the key is accepted and may do what the programs need.

    What a user who may not simulate cannot be told counts as allowed: to change a VPC's attributes,
    and roles and profiles. Prices and quotas are not needed; who asks for them says what is missing
    then.

    Raises:
        BulkheadError: CREDENTIAL_REJECTED with `missing` when it may not; whatever else AWS said.
    """
    identity = clients("sts").get_caller_identity()
    ec2 = clients("ec2")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        refused = list(pool.map(lambda name: _is_refused(ec2, name), _CALLS))
    missing = [_action(ec2, name) for name, refuses in zip(_CALLS, refused, strict=True) if refuses]
    missing += [action for action, ask in _readings(clients) if _is_denied(ask)]
    missing += _missing_by_simulator(clients("iam"), identity["Arn"], identity["Account"])
    if missing:
        raise BulkheadError(
            Reason.CREDENTIAL_REJECTED,
            f"The access key is accepted by AWS, but its user may not: {', '.join(missing)}. "
            "Attach the policy of our manual to it.",
            metadata={"missing": ",".join(missing)},
        )


def _action(ec2: Client, method: str) -> str:
    return f"ec2:{ec2.meta.method_to_api_mapping[method]}"


def _is_refused(ec2: Client, method: str) -> bool:
    try:
        getattr(ec2, method)(DryRun=True, **_CALLS[method])
    except ClientError as error:
        code = code_of(error)
        if code == "UnauthorizedOperation":
            return True
        # Any word on the ids means that the key was let through.
        if code != "DryRunOperation" and reason_of(code) in {
            Reason.CREDENTIAL_REJECTED,
            Reason.DEPENDENCY_UNAVAILABLE,
            Reason.RATE_LIMITED,
        }:
            raise as_error(error) from None
    return False


def _readings(clients: Clients) -> Sequence[tuple[str, Callable[[], object]]]:
    """Return what is found out by doing it, since it changes nothing."""
    iam, ssm = clients("iam"), clients("ssm")
    parameter = ubuntu_parameter("24.04", "amd64")
    return (
        ("iam:ListInstanceProfiles", partial(iam.list_instance_profiles, **_ONE_OF_OURS)),
        ("iam:ListRoles", partial(iam.list_roles, **_ONE_OF_OURS)),
        ("ssm:GetParameter", partial(ssm.get_parameter, Name=parameter)),
    )


def _is_denied(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except ClientError as error:
        code = code_of(error)
        if code in _DENIED:
            return True
        if code != "ParameterNotFound":
            raise
    return False


def _missing_by_simulator(iam: Client, principal: str, account: str) -> list[str]:
    """Return what a user may not do and neither `DryRun` nor a reading tells."""
    if ":user/" not in principal:
        return []
    partition = principal.split(":")[1]
    ours = f"arn:{partition}:iam::{account}:role{IAM_PATH}check"
    missing: list[str] = []
    try:
        for actions, resource in ((_ACTIONS, "*"), (_IAM_ACTIONS, ours)):
            answer = iam.simulate_principal_policy(
                PolicySourceArn=principal, ActionNames=list(actions), ResourceArns=[resource]
            )
            missing += [
                str(result["EvalActionName"])
                for result in answer["EvaluationResults"]
                if result["EvalDecision"] != "allowed"
            ]
    except ClientError as error:
        if code_of(error) not in _DENIED:
            raise
    return missing
