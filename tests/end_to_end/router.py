"""A router between two subnets of a customer's private network."""

import contextlib
from collections.abc import Iterator

from infra.local_cloud import LocalServer, PrivateNetwork
from infra.local_cloud.commands import execute


class Router:
    """What passes packets on between subnets, so that their servers are no neighbours.

    To a server's firewall it is a neighbour, not the gateway, through which the world would come.
    """

    def __init__(self, name: str, subnets: tuple[PrivateNetwork, ...]) -> None:
        self._name = name
        self._subnets = subnets

    def plug(self) -> None:
        """Attach it to each subnet, at the address behind the gateway's."""
        execute("ip", "netns", "add", self._name)
        self._execute("sysctl", "--quiet", "--write", "net.ipv4.ip_forward=1")
        for number, subnet in enumerate(self._subnets):
            outside, inside = f"{self._name}{number}", f"eth{number}"
            peer = ("peer", "name", inside, "netns", self._name)
            execute("ip", "link", "add", outside, "type", "veth", *peer)
            execute("ip", "link", "set", outside, "master", subnet.bridge, "up")
            address = f"{self._address(subnet)}/{subnet.subnet.prefixlen}"
            self._execute("ip", "address", "add", address, "dev", inside)
            self._execute("ip", "link", "set", inside, "up")

    def unplug(self) -> None:
        """Remove it; its interfaces go with it."""
        execute("ip", "netns", "delete", self._name)

    def lead(self, server: LocalServer) -> None:
        """Tell a server that has just been switched on the way to the other subnets."""
        for subnet in self._subnets:
            if subnet != server.network:
                way = (str(subnet.subnet), "via", self._address(server.network))
                execute("nsenter", f"--net={server.namespace}", "ip", "route", "add", *way)

    def _address(self, subnet: PrivateNetwork) -> str:
        return str(subnet.subnet[2])

    def _execute(self, *command: str) -> None:
        execute("ip", "netns", "exec", self._name, *command)


@contextlib.contextmanager
def running_router(*subnets: PrivateNetwork) -> Iterator[Router]:
    """Join subnets of one cloud."""
    # Called like a server of the cloud: what a killed run leaves goes with the cloud.
    cloud = subnets[0].bridge.rpartition("n")[0]
    router = Router(f"{cloud}srtr", subnets)
    router.plug()
    try:
        yield router
    finally:
        router.unplug()
