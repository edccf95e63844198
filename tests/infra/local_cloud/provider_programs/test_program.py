"""A provider program as the engine starts it, spoken to in the engine's protocol."""

import importlib.metadata
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest
import requests
from google.protobuf import empty_pb2
from google.protobuf.struct_pb2 import Struct
from google.rpc import status_pb2
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from domain.cloud import Provider
from infra.local_cloud.provider_programs import values
from infra.local_cloud.provider_programs.install import install
from infra.local_cloud.serving import served

_NETWORK = "urn:pulumi:s::bulkhead::hcloud:index/network:Network::network"
_SERVER = "urn:pulumi:s::bulkhead::hcloud:index/server:Server::server"


@dataclass(frozen=True)
class Program:
    url: str
    process: psutil.Process
    stub: provider_pb2_grpc.ResourceProviderStub


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return next(
        program
        for program in install(tmp_path_factory.mktemp("pulumi"))
        if program.name == "pulumi-resource-hcloud"
    )


@pytest.fixture(scope="module")
def program(command: Path) -> Iterator[Program]:
    with served(Provider.HCLOUD) as url:
        token = requests.post(f"{url}/_accounts", json={}, timeout=10).json()["token"]
        environment = {"HCLOUD_TOKEN": token, "HCLOUD_ENDPOINT": f"{url}/v1"}
        with _started([os.fspath(command)], environment) as (process, port):
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = provider_pb2_grpc.ResourceProviderStub(channel)
                stub.Configure(provider_pb2.ConfigureRequest())
                yield Program(url, psutil.Process(process.pid), stub)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0


@contextmanager
def _started(
    arguments: list[str], environment: dict[str, str]
) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, env={**os.environ, **environment}
    ) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def _marked(**inputs: object) -> Struct:
    return values.encode(inputs, ["userData"])


def _server(**inputs: object) -> Struct:
    return _marked(name="one", serverType="cx23", image="debian-12", **inputs)


def test_it_says_that_it_has_the_version_of_its_sdk(program: Program, command: Path) -> None:
    version = importlib.metadata.version("pulumi_hcloud")
    assert program.stub.GetPluginInfo(empty_pb2.Empty()).version == version
    assert command.parent.name == f"resource-hcloud-v{version}"


def test_a_secret_stays_marked_in_inputs_and_outputs(program: Program) -> None:
    inputs = _server(userData="canary")
    checked = program.stub.Check(provider_pb2.CheckRequest(urn=_SERVER, news=inputs))
    assert values.secret_keys(checked.inputs) == {"userData"}
    made = program.stub.Create(provider_pb2.CreateRequest(urn=_SERVER, properties=checked.inputs))
    assert values.secret_keys(made.properties) == {"userData"}
    assert values.decode(made.properties)["status"] == "running"
    program.stub.Delete(
        provider_pb2.DeleteRequest(urn=_SERVER, id=made.id, properties=made.properties)
    )


def test_create_never_takes_over_what_exists(program: Program) -> None:
    request = provider_pb2.CreateRequest(
        urn=_NETWORK, properties=values.encode({"name": "taken", "ipRange": "10.0.0.0/16"})
    )
    program.stub.Create(request)
    with pytest.raises(grpc.RpcError) as caught:
        program.stub.Create(request)
    assert "(uniqueness_error" in str(caught.value)


def test_what_is_half_made_is_told_with_its_id(program: Program) -> None:
    inputs = _server(networks=[{"networkId": 17}])
    with pytest.raises(grpc.RpcError) as caught:
        program.stub.Create(provider_pb2.CreateRequest(urn=_SERVER, properties=inputs))
    trailers = dict(caught.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    half = provider_pb2.ErrorResourceInitFailed()
    assert status.details[0].Unpack(half)
    assert values.decode(half.properties)["name"] == "one"
    found = program.stub.Read(provider_pb2.ReadRequest(urn=_SERVER, id=half.id))
    assert values.decode(found.properties)["status"] == "off"
    program.stub.Delete(provider_pb2.DeleteRequest(urn=_SERVER, id=half.id))
    assert program.stub.Read(provider_pb2.ReadRequest(urn=_SERVER, id=half.id)).id == ""


@pytest.mark.parametrize(
    ("change", "replaces"),
    [
        ({"userData": "other"}, ["userData"]),
        ({"location": "nbg1"}, ["location"]),
        ({"labels": {"a": "b"}}, []),
        ({}, None),
        ({"firewallIds": [2, 1]}, None),
        ({"deleteProtection": False}, None),
    ],
)
def test_what_can_only_be_replaced_is_replaced(
    program: Program, change: dict[str, object], replaces: list[str] | None
) -> None:
    before: dict[str, object] = {"userData": "one", "location": "fsn1", "firewallIds": [1, 2]}
    answer = program.stub.Diff(
        provider_pb2.DiffRequest(
            urn=_SERVER,
            id="1",
            old_inputs=_server(**before),
            news=_server(**{**before, **change}),
        )
    )
    changed = provider_pb2.DiffResponse.DIFF_SOME
    assert (answer.changes == changed) is (replaces is not None)
    assert list(answer.replaces) == (replaces or [])
    assert answer.deleteBeforeReplace is bool(replaces)


def test_what_was_changed_by_hand_is_read_and_what_was_never_given_is_not(
    program: Program,
) -> None:
    inputs = {"name": "mine", "ipRange": "10.9.0.0/16", "labels": {"a": "b"}}
    made = program.stub.Create(
        provider_pb2.CreateRequest(urn=_NETWORK, properties=values.encode(inputs))
    )
    request = provider_pb2.ReadRequest(urn=_NETWORK, id=made.id, inputs=values.encode(inputs))
    assert values.decode(program.stub.Read(request).inputs) == inputs
    program.stub.Update(
        provider_pb2.UpdateRequest(
            urn=_NETWORK, id=made.id, news=values.encode({**inputs, "labels": {"c": "d"}})
        )
    )
    assert values.decode(program.stub.Read(request).inputs)["labels"] == {"c": "d"}


def test_a_preview_makes_nothing(program: Program) -> None:
    properties = values.encode({"name": values.UNKNOWN, "ipRange": "10.0.0.0/16"})
    answer = program.stub.Create(
        provider_pb2.CreateRequest(urn=_NETWORK, properties=properties, preview=True)
    )
    assert answer.id == ""
    assert values.decode(answer.properties)["name"] is values.UNKNOWN


def test_it_ends_when_whoever_started_it_is_killed(command: Path) -> None:
    # A shell of its own between us: it is the one that is killed.
    shell = ["sh", "-c", f"'{command}' & wait"]
    with _started(shell, {}) as (process, _port):
        (child,) = psutil.Process(process.pid).children()
        process.kill()
        process.wait(60)
        deadline = time.monotonic() + 60
        while child.is_running() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not child.is_running()
