"""The private network of one place of one customer: a bridge, a gateway, and nothing coming in."""

import hashlib
import ipaddress
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from domain.errors import BulkheadError, Reason
from infra.local_cloud.commands import execute, succeeds
from infra.local_cloud.locks import holding

# Beside the networks of Services (10.96.0.0/16) and pods (10.244.0.0/16) of hosted clusters.
_POOL = IPv4Network("10.77.0.0/16")
BRIDGE_PREFIX = "bh"
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class PrivateNetwork:
    """A bridge on this host with the gateway's address, to which servers are attached.

    Servers reach each other, the host at the gateway's address, and the world through it. Neither
    the world nor another private network can begin anything with them; the host itself can, and
    is kept out by the servers' own firewalls.

    Attributes:
        id: the caller's name of it.
        bridge: the interface's name, derived from the id.
        subnet: the addresses.
    """

    id: str
    bridge: str
    subnet: IPv4Network

    @property
    def gateway(self) -> IPv4Address:
        """The host's address in the network: where servers find the platform's endpoints."""
        return self.subnet[1]

    @property
    def gateway_mac(self) -> str:
        """The hardware address of everything that comes from outside."""
        digest = hashlib.sha256(self.bridge.encode()).digest()
        return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))

    def up(self) -> None:
        """Make the bridge and the host's rules, or what of them is missing.

        Switches IPv4 forwarding on for the whole host, and leaves it on.
        """
        with holding("networks"):
            self._make()

    def _make(self) -> None:
        if not succeeds("ip", "link", "show", self.bridge):
            execute("ip", "link", "add", self.bridge, "address", self.gateway_mac, "type", "bridge")
        _set(f"ipv6/conf/{self.bridge}/disable_ipv6", "1")
        # For `publish`: the chain below drops what would abuse it.
        _set(f"ipv4/conf/{self.bridge}/route_localnet", "1")
        prefix = self.subnet.prefixlen
        execute("ip", "address", "replace", f"{self.gateway}/{prefix}", "dev", self.bridge)
        execute("ip", "link", "set", self.bridge, "up")
        _set("ipv4/ip_forward", "1")
        if not self._has_chain("nat"):
            execute("iptables-restore", "--wait", "--noflush", text=self._rules())
        for table, chain, rule in self._jumps():
            if not succeeds("iptables", "--wait", "-t", table, "-C", chain, *rule):
                execute("iptables", "--wait", "-t", table, "-I", chain, *rule)

    def publish(self, port: int, target_port: int | None = None) -> None:
        """Let servers reach a port of the host's loopback at the gateway's address.

        Lasts as long as the network. Publishing the same again changes nothing.

        Args:
            port: the TCP port at the gateway.
            target_port: the one at 127.0.0.1, by default the same.
        """
        target = f"{_LOOPBACK}:{target_port or port}"
        rule = ("-d", str(self.gateway), "-p", "tcp", "--dport", str(port))
        action = ("-j", "DNAT", "--to-destination", target)
        with holding("networks"):
            if not succeeds("iptables", "--wait", "-t", "nat", "-C", self._chain, *rule, *action):
                execute("iptables", "--wait", "-t", "nat", "-A", self._chain, *rule, *action)

    def remove(self) -> None:
        """Remove the bridge and the rules; servers that are still attached lose their network."""
        with holding("networks"):
            self._remove()

    def _remove(self) -> None:
        for table, chain, rule in self._jumps():
            while succeeds("iptables", "--wait", "-t", table, "-D", chain, *rule):
                pass
        for table in ("filter", "nat"):
            if self._has_chain(table):
                execute("iptables", "--wait", "-t", table, "-F", self._chain)
                execute("iptables", "--wait", "-t", table, "-X", self._chain)
        if succeeds("ip", "link", "show", self.bridge):
            execute("ip", "link", "delete", self.bridge)

    @property
    def _chain(self) -> str:
        return f"BULKHEAD-{self.bridge}"

    def _has_chain(self, table: str) -> bool:
        return succeeds("iptables", "--wait", "-t", table, "-S", self._chain)

    def _rules(self) -> str:
        chain, bridge = self._chain, self.bridge
        return f"""\
*filter
:{chain} - [0:0]
-A {chain} -i {bridge} -o {bridge} -j ACCEPT
-A {chain} -i {bridge} -o {BRIDGE_PREFIX}+ -j DROP
-A {chain} -i {bridge} -j ACCEPT
-A {chain} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A {chain} -j DROP
COMMIT
*nat
:{chain} - [0:0]
COMMIT
"""

    def _jumps(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """Return what leads to the rules: table, chain and rule, inserted in this order."""
        bridge, chain = self.bridge, self._chain
        loopback = ("-i", bridge, "-d", "127.0.0.0/8", "-j", "DROP")
        outward = ("-s", str(self.subnet), "!", "-o", bridge, "-j", "MASQUERADE")
        return [
            ("filter", "FORWARD", ("-i", bridge, "-j", chain)),
            ("filter", "FORWARD", ("-o", bridge, "-j", chain)),
            ("filter", "INPUT", ("-i", bridge, "-j", "ACCEPT")),
            ("raw", "PREROUTING", loopback),
            ("nat", "PREROUTING", ("-i", bridge, "-j", chain)),
            ("nat", "POSTROUTING", outward),
        ]


def free_subnet(seed: str, taken: Iterable[IPv4Network]) -> IPv4Network:
    """Choose a subnet that nothing on this host uses; the same seed tends to get the same one.

    Raises:
        BulkheadError: CAPACITY_UNAVAILABLE, when all are taken.
    """
    used = [*taken, *_routed()]
    candidates = list(_POOL.subnets(new_prefix=24))
    first = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big") % len(candidates)
    for subnet in candidates[first:] + candidates[:first]:
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise BulkheadError(
        Reason.CAPACITY_UNAVAILABLE,
        f"Every private network of {_POOL} is in use on this host; remove some with"
        f" `python -m infra.local_cloud remove`.",
    )


def _routed() -> list[IPv4Network]:
    found = []
    listing = json.loads(execute("ip", "-json", "-4", "route", "show", "table", "all"))
    for route in listing:
        with suppress(ValueError):
            network = ipaddress.ip_network(route.get("dst", ""), strict=False)
            if isinstance(network, IPv4Network) and network.prefixlen > 0:
                found.append(network)
    return found


def _set(setting: str, value: str) -> None:
    file = Path("/proc/sys/net") / setting
    # IPv6 may be off altogether, and then there is nothing to switch off.
    with suppress(FileNotFoundError):
        if file.read_text().strip() != value:
            file.write_text(value)
