"""The script on servers that really boot, with systemd and cloud-init, and programs that sleep."""

import time
from collections.abc import Iterator

import pytest

from infra.local_cloud import Image, LocalCloud, LocalServer
from infra.node_setup import bootstrap_cloud_init, bootstrap_command
from tests.infra.node_setup.small_platform import SmallPlatform, small_platform
from tests.local_servers import image_or_skip, state_of, temporary_cloud

pytestmark = pytest.mark.full

# What kubelet, kube-proxy and flannel leave behind, made here in their place.
_TRACES = """
iptables -t nat -N KUBE-SERVICES && iptables -t nat -A PREROUTING -j KUBE-SERVICES
iptables -N FLANNEL-FWD && iptables -A FORWARD -j FLANNEL-FWD
iptables -t nat -N CNI-DN-0123456789
iptables -t nat -A CNI-DN-0123456789 -p tcp --dport 80 -j DNAT --to-destination 10.244.7.2:80
iptables -t nat -A CNI-HOSTPORT-DNAT -p tcp --dport 80 -j CNI-DN-0123456789 \
    -m comment --comment 'dnat name: "bulkhead" id: "1"'
ip link add cni0 type bridge
ip netns add cni-1
ip route add 10.244.7.0/24 dev lo
echo 86400 >/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established
echo 3600 >/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait
mkdir -p /var/lib/kubelet/pods/1/volumes/data
mount -t tmpfs tmpfs /var/lib/kubelet/pods/1/volumes/data
"""

# What others have there, of the same programs.
_OF_OTHERS = """
iptables -t nat -N CNI-fedcba9876543210 && iptables -t nat -A POSTROUTING -j CNI-fedcba9876543210
iptables -t nat -N CNI-HOSTPORT-MASQ && iptables -t nat -A POSTROUTING -j CNI-HOSTPORT-MASQ
iptables -t nat -N CNI-HOSTPORT-DNAT && iptables -t nat -A PREROUTING -j CNI-HOSTPORT-DNAT
iptables -t nat -N CNI-DN-9876543210
iptables -t nat -A CNI-HOSTPORT-DNAT -p tcp --dport 81 -j CNI-DN-9876543210 \
    -m comment --comment 'dnat name: "podman" id: "1"'
iptables -A INPUT -s 192.0.2.1 -j ACCEPT -m comment --comment 'not of CNI-, KUBE- or FLANNEL-'
"""


@pytest.fixture(scope="module")
def image() -> Image:
    return image_or_skip()


@pytest.fixture
def cloud(image: Image) -> Iterator[LocalCloud]:
    del image
    with temporary_cloud() as made:
        yield made


@pytest.fixture
def platform(cloud: LocalCloud) -> Iterator[SmallPlatform]:
    network = cloud.network("place")
    with small_platform(str(network.gateway)) as running:
        network.publish(running.server.port)
        yield running


def _booted(cloud: LocalCloud, image: Image, user_data: str = "") -> LocalServer:
    network = cloud.network("place")
    server = cloud.create("one", network=network, image=image, user_data=user_data)
    server.boot()
    server.wait_until_booted()
    return server


def _eventually(server: LocalServer, command: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while server.run(command).status != 0:
        assert time.monotonic() < until, server.run("journalctl -n 50 -u 'bulkhead-*'").output
        time.sleep(0.5)


def test_uninstall_leaves_the_server_as_it_was(
    cloud: LocalCloud, image: Image, platform: SmallPlatform
) -> None:
    server = _booted(cloud, image)
    server.run("cloud-init status --wait")
    assert server.run(f"set -e{_OF_OTHERS}").status == 0
    before = state_of(server)
    command = bootstrap_command(platform.url, platform.authority_sha256, str(platform.token))
    run = server.run(command)
    assert run.status == 0, run
    started = server.run("systemctl show -p InvocationID bulkhead-kubelet bulkhead-containerd")
    again = server.run("bulkhead-node install")
    assert (again.status, "no token is used" in again.output) == (0, True), again
    unchanged = server.run("systemctl show -p InvocationID bulkhead-kubelet bulkhead-containerd")
    assert unchanged.output == started.output
    assert server.run(f"set -e{_TRACES}").status == 0
    removed = server.run("bulkhead-node uninstall")
    assert removed.status == 0, removed
    assert state_of(server) == before
    assert platform.phases()[-1] == "uninstalled"


def test_cloud_init_makes_a_node_through_power_cuts(
    cloud: LocalCloud, image: Image, platform: SmallPlatform
) -> None:
    document = bootstrap_cloud_init(platform.url, platform.authority, str(platform.token))
    server = _booted(cloud, image, document)
    for _ in range(2):
        # Wherever it is: the sandbox's tests cut at each file, these with all that systemd does.
        time.sleep(0.4)
        server.power_cut()
        server.boot()
        server.wait_until_booted()
    _eventually(server, "test -e /var/lib/bulkhead/installed")
    _eventually(server, "systemctl is-active bulkhead-kubelet bulkhead-tunnel bulkhead-flannel")
    assert platform.requests.count(("/v1/nodes", 201)) == 1
    # What cloud-init runs removes itself last of all, after the report that all services run.
    _eventually(server, 'test -z "$(ls /var/lib/cloud/scripts/per-boot)"')
    # What the platform asks for, the timer does: within its 30 seconds.
    platform.instruction = "uninstall"
    _eventually(server, "test ! -e /etc/bulkhead -a ! -e /usr/local/sbin/bulkhead-node")
    assert platform.phases()[-1] == "uninstalled"
    assert server.run("systemctl --failed --no-legend").output == ""
