"""The local API of Hetzner Cloud, asked by Hetzner's own client library."""

import threading
import time
from typing import Any

import pytest
import requests
from hcloud import APIException, Client
from hcloud.actions import ActionFailedException
from hcloud.firewalls import (
    FirewallResource,
    FirewallResourceLabelSelector,
    FirewallRule,
)
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.networks import BoundNetwork, NetworkSubnet
from hcloud.placement_groups import PlacementGroup
from hcloud.server_types import ServerType
from hcloud.servers import BoundServer, CreateServerResponse

from domain.cloud import Provider
from infra.local_cloud.boots import NoBoots
from infra.local_cloud.serving import served
from tests.infra.local_cloud.hcloud.conftest import Hetzner

_SUBNET = NetworkSubnet("10.3.1.0/24", type="cloud", network_zone="eu-central")


def _network(client: Client, name: str = "net") -> BoundNetwork:
    return client.networks.create(name, "10.3.0.0/16", subnets=[_SUBNET])


def _begin(client: Client, name: str = "one", **options: object) -> CreateServerResponse:
    choices = {
        "server_type": ServerType(name="cx23"),
        "image": Image(name="debian-12"),
        "location": Location(name="fsn1"),
        **options,
    }
    return client.servers.create(name, **choices)  # type: ignore[arg-type]


def _server(client: Client, name: str = "one", **options: object) -> BoundServer:
    begun = _begin(client, name, **options)
    for action in (begun.action, *begun.next_actions):
        action.wait_until_finished()
    begun.server.reload()
    return begun.server


def _walls(server: BoundServer) -> list[int | None]:
    assert server.public_net is not None
    return [found.firewall.id for found in server.public_net.firewalls or []]


def _code(caught: pytest.ExceptionInfo[APIException]) -> str:
    return str(caught.value.code)


def test_a_server_is_made_by_actions_that_take_time(client: Client) -> None:
    network = _network(client)
    firewall = client.firewalls.create("wall").firewall
    begun = _begin(
        client, networks=[network], firewalls=[firewall], labels={"a": "b"}, user_data="#!/bin/sh"
    )
    assert begun.action.status == "running"
    assert begun.server.status == "initializing"
    for action in (begun.action, *begun.next_actions):
        action.wait_until_finished()
    begun.server.reload()
    assert begun.server.status == "running"
    assert [net.ip for net in begun.server.private_net or []] == ["10.3.1.1"]
    assert _walls(begun.server) == [firewall.id]
    assert begun.server.labels == {"a": "b"}
    assert not hasattr(begun.server, "user_data")
    network.reload()
    assert [server.id for server in network.servers or []] == [begun.server.id]


class _SlowHost(NoBoots):
    def __init__(self) -> None:
        self.may_boot = threading.Event()

    def create(self, *_: object, **_options: object) -> None:
        self.may_boot.wait(60)


def test_a_server_that_an_action_works_on_is_locked() -> None:
    host = _SlowHost()
    with served(Provider.HCLOUD, boots=host) as url:
        hetzner = Hetzner(url)
        begun = _begin(hetzner.client())
        with pytest.raises(APIException) as caught:
            begun.server.delete()
        assert _code(caught) == "locked"
        host.may_boot.set()
        hetzner.heal()


def test_names_are_taken_once(client: Client) -> None:
    _network(client)
    with pytest.raises(APIException) as caught:
        _network(client)
    assert _code(caught) == "uniqueness_error"


def test_a_server_goes_with_the_addresses_that_were_made_for_it(client: Client) -> None:
    server = _server(client)
    assert len(client.primary_ips.get_all()) == 2
    server.delete().wait_until_finished()
    assert client.servers.get_all() == []
    assert client.primary_ips.get_all() == []


def test_what_is_in_use_is_not_deleted(client: Client) -> None:
    network = _network(client)
    firewall = client.firewalls.create("wall").firewall
    group = client.placement_groups.create("group", PlacementGroup.TYPE_SPREAD).placement_group
    server = _server(client, networks=[network], firewalls=[firewall], placement_group=group)
    for delete in (firewall.delete, group.delete):
        with pytest.raises(APIException) as caught:
            delete()
        assert _code(caught) == "resource_in_use"
    with pytest.raises(APIException) as caught:
        network.delete_subnet(_SUBNET)
    assert _code(caught) == "service_error"
    server.delete().wait_until_finished()
    network.delete_subnet(_SUBNET).wait_until_finished()
    assert all([network.delete(), firewall.delete(), group.delete()])


def test_a_protected_server_stays(client: Client) -> None:
    server = _server(client)
    server.change_protection(delete=True, rebuild=True).wait_until_finished()
    with pytest.raises(APIException) as caught:
        server.delete()
    assert _code(caught) == "protected"


def test_a_group_that_spreads_has_ten_servers_at_most(client: Client) -> None:
    group = client.placement_groups.create("group", PlacementGroup.TYPE_SPREAD).placement_group
    for number in range(10):
        _begin(client, f"one-{number}", placement_group=group)
    with pytest.raises(APIException) as caught:
        _begin(client, "eleventh", placement_group=group)
    assert _code(caught) == "resource_limit_exceeded"


def test_a_snapshot_outlives_its_server_and_another_is_made_of_it(client: Client) -> None:
    server = _server(client)
    made = server.create_image(description="kept", labels={"k": "v"})
    assert made.image.status == "creating"
    made.action.wait_until_finished()
    server.delete().wait_until_finished()
    (image,) = client.images.get_all(type=["snapshot"], label_selector="k=v")
    assert image.image_size
    again = _server(client, image=image)
    assert again.image is not None
    assert again.image.id == image.id


def test_lists_come_in_pages_and_by_labels(client: Client) -> None:
    for number in range(28):
        labels = {"even": str(number % 2 == 0).lower(), "n": str(number)}
        client.placement_groups.create(f"group-{number}", "spread", labels=labels)
    page = client.placement_groups.get_list(page=2, per_page=25)
    assert len(page.placement_groups) == 3
    assert page.meta.pagination is not None
    assert page.meta.pagination.last_page == 2
    for selector, count in (
        ("even=true", 14),
        ("even!=true", 14),
        ("n in (1, 2)", 2),
        ("n notin (1,2),even", 26),
        ("!even", 0),
        ("n=3,even=false", 1),
    ):
        assert len(client.placement_groups.get_all(label_selector=selector)) == count, selector


def test_a_firewall_that_was_applied_by_a_label_protects_what_has_it(client: Client) -> None:
    rule = FirewallRule("in", "tcp", ["0.0.0.0/0"], port="22")
    selector = FirewallResource(
        "label_selector", label_selector=FirewallResourceLabelSelector("role=worker")
    )
    firewall = client.firewalls.create("wall", rules=[rule], resources=[selector]).firewall
    has_it = _server(client, labels={"role": "worker"})
    has_not = _server(client, "two")
    assert _walls(has_it) == [firewall.id]
    assert _walls(has_not) == []


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"location": Location(name="nowhere")}, "invalid_input"),
        ({"location": Location(name="ash")}, "invalid_input"),
        ({"server_type": ServerType(name="cx99")}, "invalid_input"),
        ({"image": Image(name="windows")}, "invalid_input"),
        ({"user_data": "x" * 40000}, "invalid_input"),
    ],
)
def test_what_cannot_be_is_refused_and_makes_nothing(
    client: Client, options: dict[str, Any], code: str
) -> None:
    with pytest.raises(APIException) as caught:
        _begin(client, **options)
    assert _code(caught) == code
    assert client.servers.get_all() == []


def test_a_project_has_limits(hetzner: Hetzner) -> None:
    client = hetzner.client(hetzner.token(limits={"servers": 1}))
    _begin(client)
    with pytest.raises(APIException) as caught:
        _begin(client, "two")
    assert _code(caught) == "resource_limit_exceeded"


def test_a_token_that_may_read_only_is_told_so(hetzner: Hetzner) -> None:
    client = hetzner.client(hetzner.token(read_only=True))
    assert client.locations.get_all()
    with pytest.raises(APIException) as caught:
        _network(client)
    assert _code(caught) == "token_readonly"


def test_an_unknown_token_is_not_let_in(hetzner: Hetzner) -> None:
    with pytest.raises(APIException) as caught:
        hetzner.client("x" * 64).locations.get_all()
    assert _code(caught) == "unauthorized"


def test_too_many_requests_are_refused_and_headers_say_how_many_are_left(
    hetzner: Hetzner,
) -> None:
    token = hetzner.token(requests_per_hour=2)
    headers = {"authorization": f"Bearer {token}"}
    answers = [
        requests.get(f"{hetzner.url}/v1/locations", headers=headers, timeout=10) for _ in range(3)
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["RateLimit-Remaining"] == "1"
    assert answers[2].json()["error"]["code"] == "rate_limit_exceeded"


def test_a_lost_response_had_its_effect(hetzner: Hetzner, client: Client) -> None:
    hetzner.disturb(kind="lost_response", call="POST /v1/networks$", count=1)
    with pytest.raises(requests.ConnectionError):
        _network(client)
    assert client.networks.get_by_name("net") is not None


def test_a_place_can_be_without_capacity(hetzner: Hetzner, client: Client) -> None:
    hetzner.disturb(kind="capacity", place="fsn1", instance_type="cx23")
    with pytest.raises(APIException) as caught:
        _begin(client)
    assert _code(caught) == "resource_unavailable"
    assert _begin(client, location=Location(name="nbg1")).server.name == "one"


def test_answers_can_be_slow(hetzner: Hetzner, client: Client) -> None:
    hetzner.disturb(kind="slow", delay_seconds=1, count=1)
    began = time.monotonic()
    client.locations.get_all()
    assert time.monotonic() - began >= 1


class _BrokenHost(NoBoots):
    def create(self, *_: object, **_options: object) -> None:
        message = "there is no room on this host"
        raise OSError(message)


def test_a_server_that_does_not_boot_is_an_action_that_failed() -> None:
    with served(Provider.HCLOUD, boots=_BrokenHost()) as url:
        hetzner = Hetzner(url)
        begun = _begin(hetzner.client())
        with pytest.raises(ActionFailedException, match="no room on this host"):
            begun.next_actions[0].wait_until_finished()
        hetzner.heal()
