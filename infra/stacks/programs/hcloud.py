"""Hetzner Cloud's programs. Only a runner's process imports them."""

from typing import Final

import pulumi
import pulumi_hcloud as hcloud

from domain.cloud import SERVER, Tag, resource_name
from domain.stack import MachineShape, NetworkShape, StackKind, StackProgram

NETWORK: Final = "network"
SUBNET: Final = "subnet"
FIREWALL: Final = "firewall"
PLACEMENT_GROUP: Final = "placement"

RESOURCES: Final = {
    StackKind.NETWORK: {
        NETWORK: "network",
        SUBNET: "subnet",
        FIREWALL: "firewall",
        PLACEMENT_GROUP: "placement_group",
    },
    StackKind.MACHINE: {SERVER: "server"},
}


def network(program: StackProgram, shape: NetworkShape) -> dict[str, pulumi.Output[str]]:
    """Declare what nodes of one place share.

    The firewall has no rule at all: it lets in nothing, and out everything. It does not filter the
    private network, in which are the cluster's own nodes of the place alone.
    """
    private = hcloud.Network(
        NETWORK,
        name=resource_name(program.stack_id, NETWORK),
        ip_range=shape.cidr,
        labels=_labels(program, NETWORK),
        opts=_options(program, NETWORK),
    )
    number = private.id.apply(int)
    subnet = hcloud.NetworkSubnet(
        SUBNET,
        network_id=number,
        type="cloud",
        network_zone=shape.region,
        ip_range=shape.cidr,
        opts=_options(program, SUBNET),
    )
    firewall = hcloud.Firewall(
        FIREWALL,
        name=resource_name(program.stack_id, FIREWALL),
        labels=_labels(program, FIREWALL),
        opts=_options(program, FIREWALL),
    )
    group = hcloud.PlacementGroup(
        PLACEMENT_GROUP,
        name=resource_name(program.stack_id, PLACEMENT_GROUP),
        type="spread",
        labels=_labels(program, PLACEMENT_GROUP),
        opts=_options(program, PLACEMENT_GROUP),
    )
    return {
        # By way of the subnet: a server can be attached only when that is there.
        "network_id": pulumi.Output.all(private.id, subnet.id).apply(lambda ids: str(ids[0])),
        "firewall_id": firewall.id,
        "placement_group_id": group.id,
    }


def machine(
    program: StackProgram, shape: MachineShape, user_data: pulumi.Output[str] | None
) -> dict[str, pulumi.Output[str]]:
    """Declare one server. Its public addresses are for what it sends; nothing is let in."""
    group = shape.network.get("placement_group_id")
    server = hcloud.Server(
        SERVER,
        name=resource_name(program.stack_id, SERVER),
        server_type=shape.instance_type,
        location=shape.place,
        image=shape.image,
        user_data=user_data,
        firewall_ids=[int(shape.network["firewall_id"])],
        networks=[
            hcloud.ServerNetworkArgs(network_id=int(shape.network["network_id"]), alias_ips=[])
        ],
        # Ten servers at most: whoever knows that a group is full leaves it out.
        placement_group_id=int(group) if group else None,
        public_nets=[hcloud.ServerPublicNetArgs(ipv4_enabled=True, ipv6_enabled=True)],
        labels=_labels(program, SERVER),
        opts=_options(program, SERVER, ["userData", "image", "sshKeys", "publicNets"]),
    )
    return {
        "server_id": server.id,
        "private_ip": server.networks.apply(lambda nets: nets[0].ip or "" if nets else ""),
        "public_ip": server.ipv4_address,
    }


def _labels(program: StackProgram, name: str) -> dict[str, str]:
    return {**program.tags, Tag.RESOURCE.value: name}


def _options(
    program: StackProgram, name: str, ignored: list[str] | None = None
) -> pulumi.ResourceOptions:
    return pulumi.ResourceOptions(import_=program.adopt.get(name), ignore_changes=ignored)
