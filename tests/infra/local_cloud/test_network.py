import contextlib
import http.server
import random
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import NamedTuple

import pytest

from infra.local_cloud import Image, LocalCloud, LocalServer


class World(NamedTuple):
    """Another machine behind the host: what runs a command on it, and its address."""

    inside: str
    address: str


@pytest.fixture
def web_on_loopback() -> Iterator[int]:
    """Answer on a port of the host's loopback only."""
    handler = http.server.SimpleHTTPRequestHandler
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def world() -> Iterator[World]:
    """Be the internet: another machine behind the host, that knows no private network."""
    # Of its own in each process, and beside whatever a killed one left.
    name = f"world-{secrets.token_hex(4)}"
    subnet = f"198.18.{random.randrange(80, 250)}"
    _do(f"ip netns add {name}")
    try:
        _do(f"ip link add {name} type veth peer name eth0 netns {name}")
        _do(f"ip address add {subnet}.1/24 dev {name}")
        _do(f"ip link set {name} up")
        inside = f"nsenter --net=/run/netns/{name}"
        _do(f"{inside} ip address add {subnet}.2/24 dev eth0")
        _do(f"{inside} ip link set eth0 up")
        # It has a way to the private network, and must not get anywhere by it.
        _do(f"{inside} ip route add 10.0.0.0/8 via {subnet}.1")
        with subprocess.Popen(
            [*inside.split(), "python3", "-m", "http.server", "80"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as web:
            try:
                yield World(inside, f"{subnet}.2")
            finally:
                web.terminate()
    finally:
        _do(f"ip netns delete {name}")
        with contextlib.suppress(subprocess.CalledProcessError):
            _do(f"ip link delete {name}")


def _do(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True)


def _fetch(server: LocalServer, address: str) -> bool:
    """Whether a server gets an answer from a web server, which may only just begin."""
    options = "--fail --silent --max-time 2 --retry-all-errors --retry-delay 1"
    options += " --retry 30 --retry-max-time 40"
    return server.run(f"curl {options} --output /dev/null http://{address}/").status == 0


def _reaches(address: IPv4Address, port: int = 8080) -> bool:
    """Whether the host, which is outside, can connect to a server."""
    try:
        socket.create_connection((str(address), port), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_server_takes_connections_from_its_neighbours_and_from_nobody_outside(
    pair: tuple[LocalServer, LocalServer], world: World
) -> None:
    one, two = pair
    before = one.firewall_counters()
    assert _fetch(two, f"{one.address}:8080")
    assert one.firewall_counters().dropped == before.dropped
    assert not _reaches(one.address)
    after = one.firewall_counters()
    assert after.dropped > before.dropped
    assert after.accepted == before.accepted == 0
    # Further away, the gateway itself lets nothing in.
    command = [
        *world.inside.split(),
        "curl",
        "--silent",
        "--max-time",
        "1",
        f"http://{one.address}:8080/",
    ]
    assert subprocess.run(command, check=False).returncode != 0
    assert one.firewall_counters() == after


def test_pods_are_reached_by_routes_between_neighbours_and_not_from_outside(
    pair: tuple[LocalServer, LocalServer],
) -> None:
    one, two = pair
    pod_network, pod = "198.18.78.0/24", IPv4Address("198.18.78.2")
    made = one.run(
        f"""set -e
        ip netns add pod
        ip link add pod type veth peer name eth0 netns pod
        ip address add 198.18.78.1/24 dev pod
        ip link set pod up
        nsenter --net=/run/netns/pod sh -ec '
            ip address add {pod}/24 dev eth0
            ip link set eth0 up
            ip route add default via 198.18.78.1'
        systemd-run --unit=pod nsenter --net=/run/netns/pod python3 -m http.server 8080"""
    )
    assert made.status == 0, made
    before = one.firewall_counters()
    try:
        two.run(f"ip route add {pod_network} via {one.address}")
        assert _fetch(two, f"{pod}:8080")
        _do(f"ip route add {pod_network} via {one.address}")
        assert not _reaches(pod)
    finally:
        one.run("systemctl stop pod; ip netns delete pod")
        two.run(f"ip route delete {pod_network}")
        with contextlib.suppress(subprocess.CalledProcessError):
            _do(f"ip route delete {pod_network}")
    after = one.firewall_counters()
    assert after.dropped > before.dropped
    assert after.accepted == 0


def test_a_hole_that_somebody_makes_in_the_firewall_shows_and_is_remembered(
    cloud: LocalCloud, image: Image
) -> None:
    server = cloud.create("hole", network=cloud.network("customer/place"), image=image)
    server.boot()
    server.wait_until_booted()
    server.run("iptables -I INPUT -p tcp --dport 8080 -j ACCEPT")
    # Refused is an answer too: the packet was let in.
    assert not _reaches(server.address)
    assert server.firewall_counters().accepted > 0
    server.power_cut()
    server.boot()
    assert server.firewall_counters().accepted > 0
    assert not _reaches(server.address)
    server.remove()


def test_a_server_reaches_the_world_and_published_ports_of_the_hosts_loopback(
    pair: tuple[LocalServer, LocalServer], world: World, web_on_loopback: int
) -> None:
    server = pair[0]
    gateway = server.network.gateway
    assert _fetch(server, world.address)
    assert server.run(f"curl --silent http://{gateway}:{web_on_loopback}/").status != 0
    server.network.publish(web_on_loopback)
    server.network.publish(web_on_loopback)
    assert _fetch(server, f"{gateway}:{web_on_loopback}")


def test_private_networks_are_closed_to_each_other(
    cloud: LocalCloud, image: Image, pair: tuple[LocalServer, LocalServer]
) -> None:
    network = cloud.network("another customer/place")
    assert not network.subnet.overlaps(pair[0].network.subnet)
    stranger = cloud.create("stranger", network=network, image=image)
    stranger.boot()
    before = pair[0].firewall_counters()
    command = ["nsenter", f"--net={stranger.namespace}", "curl", "--silent", "--max-time", "1"]
    command.append(f"http://{pair[0].address}:8080/")
    assert subprocess.run(command, check=False).returncode != 0
    assert pair[0].firewall_counters() == before
    stranger.remove()
    cloud.remove_network(network.id)


def test_a_cut_network_swallows_everything_until_it_is_restored(
    pair: tuple[LocalServer, LocalServer],
) -> None:
    one, two = pair
    two.cut_network()
    try:
        assert two.run(f"ping -c 1 -W 1 {one.address}").status != 0
    finally:
        two.restore_network()
    assert two.run(f"ping -c 3 -W 1 {one.address}").status == 0


def test_a_network_made_again_is_the_same_and_is_complete(cloud: LocalCloud) -> None:
    first = cloud.network("again")
    _do(f"ip link delete {first.bridge}")  # as after a restart of the host
    assert cloud.network("again") == first
    first.remove()
    first.remove()
    first.up()
    cloud.remove_network("again")
    cloud.remove_network("again")
