"""A directory of private networks and servers: what a provider's account is elsewhere."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from domain.errors import BulkheadError, Reason
from infra.local_cloud import cgroups, power
from infra.local_cloud.commands import execute
from infra.local_cloud.host import DEFAULT_DIRECTORY
from infra.local_cloud.image import Image
from infra.local_cloud.locks import REGISTRY, holding
from infra.local_cloud.network import BRIDGE_PREFIX, PrivateNetwork, free_subnet
from infra.local_cloud.servers import LocalServer

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# The first addresses stay free for a gateway and whatever else a place has.
_FIRST_SERVER = 10
_LAST_SERVER = 250


class LocalCloud:
    """All networks and servers below one directory.

    Names on the host are derived from the directory and the caller's ids, so that two clouds never
    meet, and everything is found again by a later process with the same directory.
    """

    def __init__(self, directory: Path = DEFAULT_DIRECTORY) -> None:
        self.directory = directory.resolve()
        # Short, because it is a part of interface names, which have 15 characters.
        self._prefix = BRIDGE_PREFIX + _digest(str(self.directory), 6)

    def network(self, network_id: str) -> PrivateNetwork:
        """Return a private network that is up, making it if it is new.

        Args:
            network_id: any text that names it for the caller.
        """
        with self._changing():
            network = self._networks().get(network_id) or self._new_network(network_id)
            network.up()
        return network

    def networks(self) -> list[PrivateNetwork]:
        """Return all private networks, up or not."""
        return list(self._networks().values())

    def remove_network(self, network_id: str) -> None:
        """Remove a private network; does nothing if there is none.

        Raises:
            BulkheadError: FAILED_PRECONDITION, while it has servers.
        """
        with self._changing():
            network = self._networks().get(network_id)
            if network is None:
                return
            users = [server.name for server in self.servers() if server.network == network]
            if users:
                raise BulkheadError(
                    Reason.FAILED_PRECONDITION,
                    f"{', '.join(users)} are in the private network {network_id}; remove them"
                    f" first.",
                )
            network.remove()
            self._network_file(network_id).unlink(missing_ok=True)

    def create(
        self, name: str, *, network: PrivateNetwork, image: Image, user_data: str = ""
    ) -> LocalServer:
        """Make a server, switched off; one of that name is returned as it is.

        Args:
            name: its host name, unique in this cloud.
            network: what it is attached to.
            image: what its disk has at first.
            user_data: for cloud-init, `#cloud-config` or a script.

        Raises:
            BulkheadError: INVALID_ARGUMENT, when the name is no host name; CAPACITY_UNAVAILABLE,
                when the network is full.
        """
        if not _HOST_NAME.fullmatch(name):
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                f"{name!r} cannot be a server's name; use lower-case letters, digits and hyphens.",
            )
        with self._changing():
            if self._server_directory(name).is_dir():
                return self.server(name)
            return LocalServer.install(
                self._server_directory(name),
                network,
                name=name,
                key=f"{self._prefix}s{_digest(name, 6)}",
                address=self._free_address(network),
                image=image,
                user_data=user_data or "#cloud-config\n{}\n",
            )

    def server(self, name: str) -> LocalServer:
        """Return a server.

        Raises:
            BulkheadError: NOT_FOUND.
        """
        directory = self._server_directory(name)
        with suppress(FileNotFoundError):
            record = json.loads((directory / "server.json").read_text())
            return LocalServer(directory, self._networks()[record["network"]])
        raise BulkheadError(Reason.NOT_FOUND, f"There is no server {name}; create it first.")

    def servers(self) -> list[LocalServer]:
        """Return all servers, running or not, by name."""
        found = []
        for file in sorted(self.directory.glob("servers/[!.]*/server.json")):
            # Another process may be removing it.
            with suppress(BulkheadError):
                found.append(self.server(file.parent.name))
        return found

    def remove(self) -> None:
        """Remove all servers and networks, and what killed processes left of others."""
        for server in self.servers():
            server.remove()
        for network in self.networks():
            self.remove_network(network.id)
        self.sweep()
        for part in ("servers", "networks", "snapshots"):
            shutil.rmtree(self.directory / part, ignore_errors=True)
        (REGISTRY / self._prefix).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what this host has in this cloud's name and its directory does not know of."""
        with self._changing():
            keys = {server.key for server in self.servers()}
            bridges = {network.bridge: network for network in self.networks()}
            namespaces = {file.name for file in power.NAMESPACES.glob(f"{self._prefix}s*")}
            for key in (namespaces | cgroups.named(f"{self._prefix}s")) - keys:
                power.end_processes(key)
                power.remove_network(key)
            for link in json.loads(execute("ip", "-json", "link", "show", "type", "bridge")):
                name = link.get("ifname", "")
                if name.startswith(f"{self._prefix}n") and name not in bridges:
                    _network_of(name).remove()
            for leftover in self.directory.glob("servers/.*"):
                shutil.rmtree(leftover, ignore_errors=True)

    def _networks(self) -> dict[str, PrivateNetwork]:
        found = {}
        for file in sorted(self.directory.glob("networks/*.json")):
            record = json.loads(file.read_text())
            subnet = IPv4Network(record["subnet"])
            found[record["id"]] = PrivateNetwork(record["id"], file.stem, subnet)
        return found

    def _new_network(self, network_id: str) -> PrivateNetwork:
        taken = [network.subnet for network in self.networks()]
        subnet = free_subnet(f"{self.directory}/{network_id}", taken)
        file = self._network_file(network_id)
        network = PrivateNetwork(network_id, file.stem, subnet)
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(".new")
        new.write_text(json.dumps({"id": network_id, "subnet": str(subnet)}))
        new.replace(file)
        return network

    def _network_file(self, network_id: str) -> Path:
        return self.directory / "networks" / f"{self._prefix}n{_digest(network_id, 6)}.json"

    def _server_directory(self, name: str) -> Path:
        return self.directory / "servers" / name

    def _free_address(self, network: PrivateNetwork) -> IPv4Address:
        taken = {server.address for server in self.servers() if server.network == network}
        for number in range(_FIRST_SERVER, _LAST_SERVER + 1):
            if network.subnet[number] not in taken:
                return network.subnet[number]
        raise BulkheadError(
            Reason.CAPACITY_UNAVAILABLE,
            f"The private network {network.id} is full; remove a server or use another network.",
        )

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Be the only one on this host who takes addresses, subnets or names."""
        with holding("clouds"):
            (REGISTRY / self._prefix).write_text(str(self.directory))
            yield


def sweep_lost_clouds() -> list[Path]:
    """Remove what clouds whose directories are gone left on this host; return the directories."""
    lost = []
    for file in REGISTRY.glob("[!.]*"):
        try:
            directory = Path(file.read_text())
        except FileNotFoundError:
            # Another process sweeps as well.
            continue
        if not directory.is_dir():
            LocalCloud(directory).remove()
            lost.append(directory)
    return lost


def _network_of(bridge: str) -> PrivateNetwork:
    """Stand in for a network whose record is lost: its rules name the bridge and its subnet."""
    addresses = json.loads(execute("ip", "-json", "-4", "address", "show", "dev", bridge))
    for info in addresses[0].get("addr_info", []):
        subnet = IPv4Network(f"{info['local']}/{info['prefixlen']}", strict=False)
        return PrivateNetwork(bridge, bridge, subnet)
    return PrivateNetwork(bridge, bridge, IPv4Network("0.0.0.0/32"))


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
