"""AWS's programs. Only a runner's process imports them."""

import json
import re
from typing import Final

import pulumi
import pulumi_aws as aws

from domain.cloud import SERVER, Tag, resource_name
from domain.stack import MachineShape, NetworkShape, StackKind, StackProgram
from infra.clouds.aws.images import UBUNTU, ubuntu_parameter

NETWORK: Final = "network"
SUBNET: Final = "subnet"
GATEWAY: Final = "gateway"
ROUTES: Final = "routes"
ASSOCIATION: Final = "association"
NODES: Final = "nodes"
ROLE: Final = "role"
PROFILE: Final = "profile"
# A server's disk is made and removed with it.
_DISK: Final = "disk"

RESOURCES: Final = {
    StackKind.NETWORK: {
        NETWORK: "vpc",
        SUBNET: "subnet",
        GATEWAY: "internet-gateway",
        ROUTES: "route-table",
        ASSOCIATION: "route-table-association",
        NODES: "security-group",
        ROLE: "role",
        PROFILE: "instance-profile",
    },
    StackKind.MACHINE: {SERVER: "instance"},
}

_EVERYWHERE: Final = "0.0.0.0/0"

# The instance types whose processors are Amazon's own: `t4g.small`, `c7gn.large`, `a1.medium`.
_ARM_TYPE: Final = re.compile(r"(a1|[a-z]+[0-9]+g[a-z]*)\.")

# Who may take the role: EC2, for its instances; what these may do with it: nothing.
_TRUST: Final = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}


def network(program: StackProgram, shape: NetworkShape) -> dict[str, pulumi.Output[str]]:
    """Declare what nodes of one zone share.

    The security group lets in what the zone's own nodes send, and nothing else; out everything.
    """
    provider = _provider(shape.region)
    vpc = aws.ec2.Vpc(
        NETWORK,
        cidr_block=shape.cidr,
        enable_dns_support=True,
        enable_dns_hostnames=True,
        tags=_tags(program, NETWORK),
        opts=_options(program, NETWORK, provider),
    )
    subnet = aws.ec2.Subnet(
        SUBNET,
        vpc_id=vpc.id,
        cidr_block=shape.cidr,
        availability_zone=shape.place,
        tags=_tags(program, SUBNET),
        opts=_options(program, SUBNET, provider),
    )
    association = _way_out(program, provider, vpc, subnet)
    nodes = aws.ec2.SecurityGroup(
        NODES,
        name=resource_name(program.stack_id, NODES),
        description="Nodes of one cluster",
        vpc_id=vpc.id,
        ingress=[{"protocol": "-1", "from_port": 0, "to_port": 0, "self": True}],
        egress=[
            {"protocol": "-1", "from_port": 0, "to_port": 0, "cidr_blocks": [_EVERYWHERE]},
        ],
        tags=_tags(program, NODES),
        opts=_options(program, NODES, provider),
    )
    return {
        # By way of the route: a server without it would not get out.
        "subnet_id": pulumi.Output.all(subnet.id, association.id).apply(lambda ids: str(ids[0])),
        "security_group_id": nodes.id,
        "instance_profile": _profile(program, provider),
    }


def machine(
    program: StackProgram, shape: MachineShape, user_data: pulumi.Output[str] | None
) -> dict[str, pulumi.Output[str]]:
    """Declare one server. Its public address is for what it sends; nothing is let in.

    The resource takes no client token: the provider program chooses one for each attempt.
    """
    provider = _provider(shape.region)
    server = aws.ec2.Instance(
        SERVER,
        ami=_image(shape, provider),
        instance_type=shape.instance_type,
        subnet_id=shape.network["subnet_id"],
        vpc_security_group_ids=[shape.network["security_group_id"]],
        associate_public_ip_address=True,
        iam_instance_profile=shape.network["instance_profile"],
        # Only the host itself, with a token: no pod reaches the role, whose packets have one hop
        # more.
        metadata_options={
            "http_endpoint": "enabled",
            "http_tokens": "required",
            "http_put_response_hop_limit": 1,
        },
        root_block_device={
            "volume_type": "gp3",
            "volume_size": shape.disk_gib,
            "encrypted": True,
            "delete_on_termination": True,
            "tags": _tags(program, _DISK),
        },
        user_data=user_data,
        tags=_tags(program, SERVER),
        # A server that is stopped has no public address: no reason to make another.
        opts=_options(program, SERVER, provider, ["userData", "ami", "associatePublicIpAddress"]),
    )
    return {
        "server_id": server.id,
        "private_ip": server.private_ip,
        "public_ip": server.public_ip,
    }


def _way_out(
    program: StackProgram, provider: aws.Provider, vpc: aws.ec2.Vpc, subnet: aws.ec2.Subnet
) -> aws.ec2.RouteTableAssociation:
    gateway = aws.ec2.InternetGateway(
        GATEWAY,
        vpc_id=vpc.id,
        tags=_tags(program, GATEWAY),
        opts=_options(program, GATEWAY, provider),
    )
    routes = aws.ec2.RouteTable(
        ROUTES,
        vpc_id=vpc.id,
        routes=[{"cidr_block": _EVERYWHERE, "gateway_id": gateway.id}],
        tags=_tags(program, ROUTES),
        opts=_options(program, ROUTES, provider),
    )
    return aws.ec2.RouteTableAssociation(
        ASSOCIATION,
        subnet_id=subnet.id,
        route_table_id=routes.id,
        opts=_options(program, ASSOCIATION, provider),
    )


def _profile(program: StackProgram, provider: aws.Provider) -> pulumi.Output[str]:
    """Declare a role without any right; what a cluster's add-ons need is given to it by others."""
    path = f"/bulkhead/{program.workspace_id}/"
    role = aws.iam.Role(
        ROLE,
        name=resource_name(program.stack_id, ROLE),
        path=path,
        assume_role_policy=json.dumps(_TRUST),
        tags=_tags(program, ROLE),
        opts=_options(program, ROLE, provider),
    )
    profile = aws.iam.InstanceProfile(
        PROFILE,
        name=resource_name(program.stack_id, PROFILE),
        path=path,
        role=role.name,
        tags=_tags(program, PROFILE),
        opts=_options(program, PROFILE, provider),
    )
    return profile.name


def _image(shape: MachineShape, provider: aws.Provider) -> pulumi.Input[str]:
    """Return the id of an image: given as such, or `ubuntu-24.04`, as Canonical publishes it."""
    ubuntu = UBUNTU.fullmatch(shape.image)
    if ubuntu is None:
        return shape.image
    architecture = "arm64" if _ARM_TYPE.match(shape.instance_type) else "amd64"
    parameter = ubuntu_parameter(ubuntu[1], architecture)
    options = pulumi.InvokeOutputOptions(provider=provider)
    return aws.ssm.get_parameter_output(name=parameter, opts=options).insecure_value


def _provider(region: str) -> aws.Provider:
    """Return the provider of a region; the state keeps it, without a credential."""
    return aws.Provider("aws", region=region)


def _tags(program: StackProgram, name: str) -> dict[str, str]:
    # `Name` is what AWS's console shows.
    return {
        **program.tags,
        Tag.RESOURCE.value: name,
        "Name": resource_name(program.stack_id, name),
    }


def _options(
    program: StackProgram, name: str, provider: aws.Provider, ignored: list[str] | None = None
) -> pulumi.ResourceOptions:
    return pulumi.ResourceOptions(
        provider=provider, import_=program.adopt.get(name), ignore_changes=ignored
    )
