import os
from pathlib import Path

import pytest

from domain.errors import BulkheadError, Reason
from infra.embedded import clouds
from infra.embedded.clouds import Clouds, CloudsServer
from infra.embedded.composition import Composition
from infra.embedded.home import Home
from infra.embedded.node_address import NodeAddress
from infra.embedded.ports import Ports
from infra.embedded.server import Part
from infra.settings import EmbeddedSettings

FIRST_PORT = 10240


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def _settings(
    *, local_clouds: bool | None = None, pulumi_home: Path | None = None
) -> EmbeddedSettings:
    return EmbeddedSettings.model_construct(
        home=None, local_clouds=local_clouds, pulumi_home=pulumi_home
    )


def _ports() -> Ports:
    return Ports.model_validate({"control_planes": FIRST_PORT + 16})


def test_a_stack_makes_no_machines_in_clouds_until_that_is_chosen(home: Home) -> None:
    clouds.ensure(home, _settings(), has_address=True)
    assert not home.clouds_file.exists()
    assert not clouds.load(home.clouds_file).are_used


def test_the_home_of_the_providers_programs_is_remembered(home: Home) -> None:
    clouds.ensure(home, _settings(pulumi_home=Path("/opt/pulumi")), has_address=False)
    clouds.ensure(home, _settings(), has_address=True)
    assert clouds.load(home.clouds_file) == Clouds(pulumi_home=Path("/opt/pulumi"))


def test_local_clouds_that_no_server_could_reach_the_stack_from_are_refused(home: Home) -> None:
    with pytest.raises(BulkheadError, match="BULKHEAD_NODE_ADDRESS") as refused:
        clouds.ensure(home, _settings(local_clouds=True), has_address=False)
    assert refused.value.reason is Reason.FAILED_PRECONDITION
    assert not home.clouds_file.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="local clouds take root")
def test_local_clouds_are_remembered_until_they_are_chosen_away(home: Home) -> None:
    clouds.ensure(home, _settings(local_clouds=True), has_address=True)
    clouds.ensure(home, _settings(), has_address=True)
    assert clouds.load(home.clouds_file).local
    clouds.ensure(home, _settings(local_clouds=False), has_address=True)
    assert not home.clouds_file.exists()


def test_api_and_worker_find_local_clouds_and_nothing_else_does_without_them(home: Home) -> None:
    home.ports_file.write_text(_ports().model_dump_json())
    without = Composition(home, _settings())
    assert without.stacks is None
    assert without.providers.hcloud_url == "https://api.hetzner.cloud/v1"

    address = NodeAddress(address="192.0.2.10", made=False)
    home.node_address_file.write_text(address.model_dump_json())
    home.clouds_file.write_text(Clouds(local=True).model_dump_json())
    with_clouds = Composition(home, _settings())
    assert with_clouds.stacks is not None
    assert with_clouds.stacks.pulumi_home == home.pulumi
    assert with_clouds.stacks.node_url == f"https://192.0.2.10:{_ports().api_https}"
    local = f"http://127.0.0.1:{_ports().clouds_hcloud}/v1"
    assert with_clouds.providers.hcloud_url == local
    servers = with_clouds.servers()
    assert Part.CLOUDS in servers
    for part in (Part.API, Part.WORKER):
        variables = servers[part].program().environment
        assert variables["PROVIDERS__HCLOUD_URL"] == local
        assert ("STACKS__DIRECTORY" in variables) == (part is Part.WORKER)
    assert "--hcloud-port" in " ".join(CloudsServer(home, _ports()).program().command)
