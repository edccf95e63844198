"""The firewall in front of each server, as a customer has one: nothing comes in from outside.

Outside is whatever the gateway hands over, known by its hardware address: neighbours of the same
private network reach a server directly, also with the addresses of their pods.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from domain.errors import BulkheadError, Reason
from infra.local_cloud.commands import execute

_DROPPED = "bulkhead-dropped-from-outside"
_ACCEPTED = "bulkhead-accepted-from-outside"
_RULES = """\
*filter
:INPUT DROP
:FORWARD ACCEPT
:OUTPUT ACCEPT
-A INPUT ! -i {interface} -j ACCEPT
-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A INPUT {outside} -m comment --comment {dropped} -j DROP
-A INPUT -m mac ! --mac-source {gateway} -j ACCEPT
-A FORWARD {outside} -m conntrack ! --ctstate ESTABLISHED,RELATED {comment_dropped} -j DROP
COMMIT
*security
-A INPUT {outside} -m conntrack ! --ctstate ESTABLISHED,RELATED {comment_accepted}
-A FORWARD {outside} -m conntrack ! --ctstate ESTABLISHED,RELATED {comment_accepted}
COMMIT
"""


@dataclass(frozen=True, slots=True)
class FirewallCounters:
    """Packets that came from outside the private network and answered nothing.

    Attributes:
        dropped: those that the firewall threw away.
        accepted: those that reached the server or its pods all the same; must be 0.
    """

    dropped: int = 0
    accepted: int = 0

    def __add__(self, other: "FirewallCounters") -> "FirewallCounters":
        return FirewallCounters(self.dropped + other.dropped, self.accepted + other.accepted)


def install(namespace: Path, interface: str, gateway: str) -> None:
    """Put the firewall into a network namespace, before its interface is up.

    What is accepted is counted in the security table, which packets see after the filter table:
    so it counts whatever kube-proxy or an operator put in front of these rules.

    Args:
        namespace: the namespace's file.
        interface: the one that leads to the private network.
        gateway: the hardware address of the private network's gateway.
    """
    rules = _RULES.format(
        interface=interface,
        gateway=gateway,
        outside=f"-i {interface} -m mac --mac-source {gateway}",
        dropped=_DROPPED,
        comment_dropped=f"-m comment --comment {_DROPPED}",
        comment_accepted=f"-m comment --comment {_ACCEPTED}",
    )
    execute("nsenter", f"--net={namespace}", "iptables-restore", "--wait", text=rules)


def read(namespace: Path) -> FirewallCounters:
    """Read the counters since the namespace was made.

    Raises:
        BulkheadError: FAILED_PRECONDITION, when somebody removed the rules.
    """
    saved = execute("nsenter", f"--net={namespace}", "iptables-save", "--counters")
    return FirewallCounters(_count(saved, _DROPPED), _count(saved, _ACCEPTED))


def _count(saved: str, comment: str) -> int:
    rule = rf"^\[(\d+):\d+\] -A \w+ .*--comment \"?{comment}\"?"
    counts = re.findall(rule, saved, re.MULTILINE)
    if not counts:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"The firewall rules {comment} of this server are gone: something in it flushed them."
            f" Boot it again to have them back.",
        )
    return sum(map(int, counts))
