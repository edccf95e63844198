"""Servers that really boot on this machine, for those who have no cloud account at hand.

Each one is a Debian or Ubuntu with systemd and cloud-init, in namespaces and control groups of its
own, with a disk that outlives power cuts and a firewall that lets nothing in from outside its
private network. What a cloud has and this has not: a kernel and a clock for each server.

`Host` says whether this machine can, `server_image` makes the image, and a `LocalCloud` makes
networks and servers. Everything is synchronous; `python -m infra.local_cloud` is for persons.
"""

from infra.local_cloud.cloud import LocalCloud
from infra.local_cloud.firewall import FirewallCounters
from infra.local_cloud.host import Host
from infra.local_cloud.image import Image, server_image
from infra.local_cloud.network import PrivateNetwork
from infra.local_cloud.servers import LocalServer

__all__ = [
    "FirewallCounters",
    "Host",
    "Image",
    "LocalCloud",
    "LocalServer",
    "PrivateNetwork",
    "server_image",
]
