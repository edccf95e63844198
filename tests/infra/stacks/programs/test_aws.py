"""What AWS's programs declare."""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from domain.cloud import Provider, Tag
from domain.identifiers import Prefix, new_id
from domain.stack import MachineShape, NetworkShape, StackKind, StackProgram
from tests.infra.stacks.programs.declared import as_request

PLACE, REGION = "eu-central-1a", "eu-central-1"
OUTPUTS = {"subnet_id": "subnet-1", "security_group_id": "sg-1", "instance_profile": "bh-profile"}


def _program(kind: StackKind, shape: NetworkShape | MachineShape) -> StackProgram:
    stack, workspace = new_id(Prefix.STACK), new_id(Prefix.WORKSPACE)
    return StackProgram(
        workspace_id=workspace,
        stack_id=stack,
        kind=kind,
        provider=Provider.AWS,
        shape=shape,
        tags={Tag.WORKSPACE.value: workspace, Tag.STACK.value: stack},
    )


def _machine(instance_type: str, image: str) -> StackProgram:
    shape = MachineShape(
        place=PLACE, region=REGION, instance_type=instance_type, image=image, network=OUTPUTS
    )
    return _program(StackKind.MACHINE, shape)


@dataclass(frozen=True)
class Declared:
    program: StackProgram
    resources: dict[str, dict[str, Any]]
    calls: list[dict[str, Any]]


@pytest.fixture(scope="module")
def declared() -> dict[str, Declared]:
    programs = {
        "network": _program(
            StackKind.NETWORK, NetworkShape(place=PLACE, region=REGION, cidr="10.77.0.0/24")
        ),
        "server": _machine("t3.small", "ami-0123"),
        "ubuntu on amd64": _machine("g4dn.xlarge", "ubuntu-24.04"),
        "ubuntu on arm64": _machine("t4g.small", "ubuntu-24.04"),
    }
    ran = subprocess.run(
        [sys.executable, "-m", "tests.infra.stacks.programs.declared"],
        input=as_request(list(programs.values()), {"insecureValue": "ami-of-canonical"}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=200,
    )
    return {
        name: Declared(program, **found)
        for (name, program), found in zip(programs.items(), json.loads(ran.stdout), strict=True)
    }


def test_the_network_lets_in_its_own_nodes_alone_and_the_role_may_do_nothing(
    declared: dict[str, Declared],
) -> None:
    program, made = declared["network"].program, declared["network"].resources
    assert made["nodes"]["ingress"] == [
        {"protocol": "-1", "fromPort": 0, "toPort": 0, "self": True}
    ]
    assert [rule["cidrBlocks"] for rule in made["nodes"]["egress"]] == [["0.0.0.0/0"]]
    assert made["routes"]["routes"] == [{"cidrBlock": "0.0.0.0/0", "gatewayId": "gateway-id"}]
    assert not made["role"].keys() & {"inlinePolicies", "managedPolicyArns"}
    trust = json.loads(made["role"]["assumeRolePolicy"])["Statement"]
    assert [one["Principal"] for one in trust] == [{"Service": "ec2.amazonaws.com"}]
    assert made["role"]["path"] == f"/bulkhead/{program.workspace_id}/"
    # The provider itself, and what has no tags.
    for name in made.keys() - {"aws", "association"}:
        tags = made[name]["tags"]
        assert tags[Tag.RESOURCE] == name
        assert program.tags.items() <= tags.items()


def test_a_server_has_no_way_in_and_an_encrypted_disk(declared: dict[str, Declared]) -> None:
    server = declared["server"].resources["server"]
    assert server["metadataOptions"] == {
        "httpEndpoint": "enabled",
        "httpTokens": "required",
        "httpPutResponseHopLimit": 1,
    }
    disk = server["rootBlockDevice"]
    assert (disk["encrypted"], disk["deleteOnTermination"], disk["volumeSize"]) == (True, True, 40)
    assert disk["tags"][Tag.WORKSPACE] == server["tags"][Tag.WORKSPACE]
    assert server["vpcSecurityGroupIds"] == ["sg-1"]
    assert server["iamInstanceProfile"] == "bh-profile"
    assert "keyName" not in server
    assert server["ami"] == "ami-0123"
    assert declared["server"].calls == []


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_ubuntu_is_canonicals_newest_for_the_processor(
    declared: dict[str, Declared], architecture: str
) -> None:
    found = declared[f"ubuntu on {architecture}"]
    assert found.resources["server"]["ami"] == "ami-of-canonical"
    asked = found.calls[0]["name"]
    assert asked.startswith("/aws/service/canonical/ubuntu/server/24.04/stable/current/")
    assert f"/{architecture}/" in asked
