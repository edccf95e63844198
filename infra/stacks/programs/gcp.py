"""Google Cloud's programs. Only a runner's process imports them."""

import re
from typing import Final

import pulumi
from pulumi_gcp import compute, serviceaccount

from domain.cloud import SERVER, Tag, resource_name
from domain.stack import MachineShape, NetworkShape, StackKind, StackProgram
from infra.clouds.gcp.names import description_of, image_path, service_account_id

NETWORK: Final = "network"
SUBNETWORK: Final = "subnetwork"
FIREWALL: Final = "firewall"
ACCOUNT: Final = "account"
# A server's disk is made and removed with it.
_DISK: Final = "disk"

RESOURCES: Final = {
    StackKind.NETWORK: {
        NETWORK: "network",
        SUBNETWORK: "subnetwork",
        FIREWALL: "firewall",
        ACCOUNT: "service_account",
    },
    StackKind.MACHINE: {SERVER: "instance"},
}

# All that a server's token could be used for, if its account had a role: it has none.
_SCOPES: Final = ["https://www.googleapis.com/auth/logging.write"]

# The machine types whose processors are Arm's: `t2a-standard-2`, `c4a-standard-2`, `n4a-...`.
_ARM_TYPE: Final = re.compile(r"(t2a|[a-z]\d+a)-")


def network(program: StackProgram, shape: NetworkShape) -> dict[str, pulumi.Output[str]]:
    """Declare what nodes of one zone share.

    The one rule lets in what servers with the zone's own service account send; without others,
    Google lets in nothing more, and out everything.
    """
    own = compute.Network(
        NETWORK,
        name=resource_name(program.stack_id, NETWORK),
        description=_description(program, NETWORK),
        auto_create_subnetworks=False,
        opts=_options(program, NETWORK),
    )
    subnetwork = compute.Subnetwork(
        SUBNETWORK,
        name=resource_name(program.stack_id, SUBNETWORK),
        description=_description(program, SUBNETWORK),
        network=own.id,
        region=shape.region,
        ip_cidr_range=shape.cidr,
        opts=_options(program, SUBNETWORK),
    )
    account = serviceaccount.Account(
        ACCOUNT,
        account_id=service_account_id(program.stack_id),
        display_name="Nodes of one Bulkhead cluster",
        description=_description(program, ACCOUNT),
        opts=_options(program, ACCOUNT),
    )
    firewall = compute.Firewall(
        FIREWALL,
        name=resource_name(program.stack_id, FIREWALL),
        description=_description(program, FIREWALL),
        network=own.id,
        direction="INGRESS",
        # Not by tags: whoever may edit any instance of the project could give it one.
        source_service_accounts=[account.email],
        target_service_accounts=[account.email],
        allows=[{"protocol": "all"}],
        opts=_options(program, FIREWALL),
    )
    return {
        # By way of the rule: nodes without it would not reach each other.
        "subnetwork": pulumi.Output.all(subnetwork.id, firewall.id).apply(lambda ids: str(ids[0])),
        "service_account": account.email,
    }


def machine(
    program: StackProgram, shape: MachineShape, user_data: pulumi.Output[str] | None
) -> dict[str, pulumi.Output[str]]:
    """Declare one server. Its public address is for what it sends; nothing is let in."""
    metadata: dict[str, pulumi.Input[str]] = {
        # The keys of people who may edit the project's metadata do not open a node.
        "block-project-ssh-keys": "true",
        "serial-port-enable": "false",
    }
    if user_data is not None:
        metadata["user-data"] = user_data
    server = compute.Instance(
        SERVER,
        name=resource_name(program.stack_id, SERVER),
        zone=shape.place,
        machine_type=shape.instance_type,
        boot_disk={
            "auto_delete": True,
            "initialize_params": {
                "image": _image(shape),
                "size": shape.disk_gib,
                "type": "pd-balanced",
                "labels": _labels(program, _DISK),
            },
        },
        network_interfaces=[
            {"subnetwork": shape.network["subnetwork"], "access_configs": [{}]},
        ],
        service_account={"email": shape.network["service_account"], "scopes": _SCOPES},
        shielded_instance_config={
            "enable_secure_boot": True,
            "enable_vtpm": True,
            "enable_integrity_monitoring": True,
        },
        metadata=metadata,
        labels=_labels(program, SERVER),
        opts=_options(program, SERVER, ["metadata", "bootDisk.initializeParams.image"]),
    )
    first = server.network_interfaces.apply(lambda interfaces: interfaces[0])
    return {
        "server_id": server.id,
        "private_ip": first.apply(lambda interface: interface.network_ip or ""),
        "public_ip": first.apply(_public_address),
    }


def _public_address(interface: compute.outputs.InstanceNetworkInterface) -> str:
    accesses = interface.access_configs or []
    return (accesses[0].nat_ip or "") if accesses else ""


def _image(shape: MachineShape) -> str:
    architecture = "arm64" if _ARM_TYPE.match(shape.instance_type) else "amd64"
    return image_path(shape.image, architecture)


def _labels(program: StackProgram, name: str) -> dict[str, str]:
    return {**program.tags, Tag.RESOURCE.value: name}


def _description(program: StackProgram, name: str) -> str:
    return description_of(_labels(program, name))


def _options(
    program: StackProgram, name: str, ignored: list[str] | None = None
) -> pulumi.ResourceOptions:
    return pulumi.ResourceOptions(import_=program.adopt.get(name), ignore_changes=ignored)
