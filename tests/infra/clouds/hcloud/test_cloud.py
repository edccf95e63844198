"""A project at the local Hetzner cloud, beyond what every provider's account must do."""

import secrets
from collections.abc import Iterator

import pytest
import requests
from hcloud import Client
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.networks import NetworkSubnet
from hcloud.server_types import ServerType

from domain.cloud import CloudResource, Provider
from domain.errors import BulkheadError, Reason
from domain.secret import SecretValue
from infra.clouds.hcloud.cloud import HetznerCloud, open_cloud
from infra.clouds.removal import remove_all
from infra.local_cloud.serving import served
from infra.settings import ProviderSettings

_OURS = {"bulkhead-workspace": "ws_1", "bulkhead-stack": "stk_1", "bulkhead-resource": "x"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(Provider.HCLOUD, action_seconds=0.3) as found:
        yield found


@pytest.fixture
def token(url: str) -> str:
    body = {"project": secrets.token_hex(8)}
    return str(requests.post(f"{url}/_accounts", json=body, timeout=10).json()["token"])


@pytest.fixture
def cloud(url: str, token: str) -> HetznerCloud:
    return open_cloud(SecretValue.of_text(token), ProviderSettings(hcloud_url=f"{url}/v1"))


@pytest.fixture
def console(url: str, token: str) -> Iterator[Client]:
    made = Client(token, f"{url}/v1", poll_interval=0.05)
    yield made
    made._client._session.close()  # noqa: SLF001 - it has no other end


def _fill(console: Client) -> None:
    """Make one of everything that can carry our labels, and something of somebody else."""
    subnet = NetworkSubnet("10.3.1.0/24", type="cloud", network_zone="eu-central")
    network = console.networks.create("net", "10.3.0.0/16", subnets=[subnet], labels=_OURS)
    for name, labels in (("wall", _OURS), ("strange", {"bulkhead-workspace": "ws_2"})):
        console.firewalls.create(name).firewall.update(labels=labels)
    console.placement_groups.create("group", "spread", labels=_OURS)
    location = Location(name="fsn1")
    console.volumes.create(10, "disk", location=location).volume.update(labels=_OURS)
    console.primary_ips.create("ipv4", "address", labels=_OURS, assignee_type="server")
    begun = console.servers.create(
        "one",
        ServerType(name="cx23"),
        Image(name="debian-12"),
        networks=[network],
        labels=_OURS,
    )
    for action in (begun.action, *begun.next_actions):
        action.wait_until_finished()
    begun.server.create_image(description="kept", labels=_OURS).action.wait_until_finished()


def test_everything_of_a_workspace_is_found_and_removed_and_nothing_else(
    cloud: HetznerCloud, console: Client
) -> None:
    _fill(console)
    found = cloud.inventory("ws_1")
    kinds = sorted(resource.kind for resource in found)
    assert kinds == sorted(
        (
            *("server", "volume", "primary_ip", "snapshot"),
            *("firewall", "placement_group", "subnet", "network"),
        )
    )
    assert {resource.kind for resource in found if resource.costs} == {
        *("server", "volume", "primary_ip", "snapshot"),
    }
    assert cloud.inventory("ws_1", "stk_1") == found
    assert cloud.inventory("ws_1", "stk_2") == []
    assert remove_all(cloud, found) == []
    assert [firewall.name for firewall in console.firewalls.get_all()] == ["strange"]
    assert console.primary_ips.get_all() == []


def test_a_network_in_use_is_not_pulled_from_under_its_servers(
    cloud: HetznerCloud, console: Client
) -> None:
    _fill(console)
    network, subnet = (
        next(one for one in cloud.inventory("ws_1") if one.kind == kind)
        for kind in ("network", "subnet")
    )
    for resource in (network, subnet):
        with pytest.raises(BulkheadError) as caught:
            cloud.remove(resource)
        assert caught.value.reason is Reason.CONFLICT


def test_a_server_that_is_still_being_made_is_removed_when_it_is_made(
    cloud: HetznerCloud, console: Client
) -> None:
    console.servers.create("one", ServerType(name="cx23"), Image(name="debian-12"), labels=_OURS)
    (server,) = cloud.inventory("ws_1")
    cloud.remove(server)
    assert cloud.inventory("ws_1") == []


def test_what_is_gone_is_no_failure(cloud: HetznerCloud) -> None:
    for kind in ("server", "volume", "primary_ip", "snapshot", "firewall", "network"):
        cloud.remove(CloudResource(provider=Provider.HCLOUD, kind=kind, id="17", name="gone"))
    subnet = CloudResource(
        provider=Provider.HCLOUD, kind="subnet", id="17-10.0.0.0/24", name="gone"
    )
    cloud.remove(subnet)
    assert cloud.describe("17") is None


def test_a_value_that_is_no_token_is_not_sent_anywhere() -> None:
    with pytest.raises(BulkheadError) as caught:
        open_cloud(SecretValue.of_text("{}"), ProviderSettings(hcloud_url="http://[::1]:1/v1"))
    assert caught.value.reason is Reason.CREDENTIAL_REJECTED
