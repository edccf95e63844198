"""Which addresses may be reached on behalf of a workspace.

A workspace names hosts; we reach them from inside the operator's network. A name is resolved once,
every address that it has is checked, and the caller connects to a checked address: a second
resolution could answer differently.
"""

import asyncio
import ipaddress
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from domain.errors import BulkheadError, Reason
from infra.settings import OutboundSettings

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_RESOLVES_WITHIN_SECONDS: Final = 5.0

# A name may have any number of addresses of which none answers, and each takes its time.
_MOST_ADDRESSES: Final = 4

# Nobody's target, and the source of machines' own credentials: closed even inside a network that
# the operator allows.
_NEVER: Final[tuple[Network, ...]] = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),
    IPv4Network("168.63.129.16/32"),  # Azure's host agent, an address that counts as public
    IPv4Network("100.100.100.200/32"),  # metadata of Alibaba Cloud
    IPv4Network("192.0.0.192/32"),  # metadata of Oracle Cloud
    IPv4Network("224.0.0.0/4"),
    IPv4Network("240.0.0.0/4"),
    IPv6Network("::/128"),
    IPv6Network("fe80::/10"),
    IPv6Network("fd00:ec2::254/128"),  # metadata of AWS
    IPv6Network("fd20:ce::254/128"),  # metadata of Google Cloud
    IPv6Network("ff00::/8"),
)

# `is_global` is not enough: it is true for multicast, for the relays of 6to4 and for addresses
# that carry a private IPv4 address inside, and what it says differs between releases of Python.
_NOT_PUBLIC: Final[tuple[Network, ...]] = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("100.64.0.0/10"),
    IPv4Network("127.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.0.2.0/24"),
    IPv4Network("192.88.99.0/24"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("198.18.0.0/15"),
    IPv4Network("198.51.100.0/24"),
    IPv4Network("203.0.113.0/24"),
    IPv6Network("2001::/23"),  # Teredo among them
    IPv6Network("2001:db8::/32"),
    IPv6Network("2002::/16"),  # 6to4
    IPv6Network("3fff::/20"),
)
_PUBLIC_IPV6: Final = IPv6Network("2000::/3")

# A network with this prefix alone reaches IPv4 hosts through it; what counts is the host inside.
_NAT64: Final = IPv6Network("64:ff9b::/96")
_IPV4_MASK: Final = 0xFFFF_FFFF

# The middle of an address of ISATAP, whose last 32 bits are an IPv4 address.
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})


class Outbound:
    """The one place that allows a connection to a host that a workspace named."""

    def __init__(self, settings: OutboundSettings) -> None:
        self._allowed = tuple(settings.allowed_networks)

    async def addresses_of(self, host: str, port: int) -> list[str]:
        """Resolve a host and return the first of its addresses; connect to one of these.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the name cannot be resolved;
                FAILED_PRECONDITION when any of its addresses is closed.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_RESOLVES_WITHIN_SECONDS):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError):
            raise BulkheadError(
                Reason.DEPENDENCY_UNAVAILABLE,
                "The host name of the target cannot be resolved. Check the address that was given.",
            ) from None
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        for address in addresses:
            self.check(address)
        return addresses[:_MOST_ADDRESSES]

    def check(self, address: str) -> None:
        """Return when an address may be reached.

        Raises:
            BulkheadError: FAILED_PRECONDITION when it is closed.
        """
        meant = _meant_by(ipaddress.ip_address(address))
        if _is_in(_NEVER, meant) or not (_is_in(self._allowed, meant) or _is_public(meant)):
            # The address itself is not told: it would say what our resolver knows.
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                "The target has an address that is not public. The operator can allow "
                "networks of their own (OUTBOUND__ALLOWED_NETWORKS of the worker, "
                "BULKHEAD_OUTBOUND_NETWORKS of an embedded stack); addresses of metadata services "
                "stay closed.",
            )

    def is_operators_own(self, address: str) -> bool:
        """Tell whether an address is inside a network that the operator allowed."""
        return _is_in(self._allowed, _meant_by(ipaddress.ip_address(address)))


def _meant_by(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address of these two forms stands for."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & _IPV4_MASK)
    return address


def _is_public(address: Address) -> bool:
    if _is_in(_NOT_PUBLIC, address) or not address.is_global:
        return False
    if isinstance(address, IPv4Address):
        return True
    return (
        address in _PUBLIC_IPV6
        and address.scope_id is None
        and int(address) >> 32 & _IPV4_MASK not in _ISATAP
    )


def _is_in(networks: tuple[Network, ...], address: Address) -> bool:
    return any(network.version == address.version and address in network for network in networks)
