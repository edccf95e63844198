"""What an access key must be allowed to do, and how that is found out without doing it."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from botocore.exceptions import ClientError

from domain.errors import BulkheadError, Reason
from infra.clouds.aws.clients import Client, Clients
from infra.clouds.aws.errors import as_error, code_of, reason_of

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
    "delete_route_table": {"RouteTableId": _TABLE},
    "delete_security_group": {"GroupId": _GROUP},
    "delete_snapshot": {"SnapshotId": "snap-0bad0bad0bad0bad0"},
    "delete_subnet": {"SubnetId": _SUBNET},
    "delete_volume": {"VolumeId": "vol-0bad0bad0bad0bad0"},
    "delete_vpc": {"VpcId": _VPC},
    "deregister_image": {"ImageId": _IMAGE},
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
    "run_instances": {"ImageId": _IMAGE, "MinCount": 1, "MaxCount": 1},
    "stop_instances": {"InstanceIds": [_INSTANCE]},
    "terminate_instances": {"InstanceIds": [_INSTANCE]},
}

_IAM_ACTIONS: Final = (
    "iam:AddRoleToInstanceProfile",
    "iam:CreateInstanceProfile",
    "iam:CreateRole",
    "iam:DeleteInstanceProfile",
    "iam:DeleteRole",
    "iam:GetInstanceProfile",
    "iam:GetRole",
    "iam:ListInstanceProfilesForRole",
    "iam:PassRole",
    "iam:RemoveRoleFromInstanceProfile",
    "iam:TagInstanceProfile",
    "iam:TagRole",
)
_AT_ONCE: Final = 8


def check_permissions(clients: Clients) -> None:
    """Prove that the key is accepted and may do what the programs need.

    What EC2 and IAM do not let one find out counts as allowed.

    Raises:
        BulkheadError: CREDENTIAL_REJECTED with `missing` when it may not; whatever else AWS said.
    """
    identity = clients("sts").get_caller_identity()
    ec2 = clients("ec2")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        refused = list(pool.map(lambda name: _is_refused(ec2, name), _CALLS))
    missing = [_action(ec2, name) for name, refuses in zip(_CALLS, refused, strict=True) if refuses]
    missing += _missing_in_iam(clients("iam"), identity["Arn"], identity["Account"])
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


def _missing_in_iam(iam: Client, principal: str, account: str) -> list[str]:
    """Return the actions of IAM that a user may not do; IAM has no `DryRun`, but a simulator."""
    if ":user/" not in principal:
        return []
    partition = principal.split(":")[1]
    try:
        answer = iam.simulate_principal_policy(
            PolicySourceArn=principal,
            ActionNames=list(_IAM_ACTIONS),
            ResourceArns=[f"arn:{partition}:iam::{account}:role{IAM_PATH}check"],
        )
    except ClientError as error:
        if code_of(error) == "AccessDenied":
            return _missing_without_simulator(iam)
        raise
    return [
        str(result["EvalActionName"])
        for result in answer["EvaluationResults"]
        if result["EvalDecision"] != "allowed"
    ]


def _missing_without_simulator(iam: Client) -> list[str]:
    try:
        iam.list_roles(PathPrefix=IAM_PATH, MaxItems=1)
    except ClientError as error:
        if code_of(error) == "AccessDenied":
            return ["iam:ListRoles"]
        raise
    return []
