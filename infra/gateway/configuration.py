"""What haproxy reads: which server names there are, and the port behind each."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from domain.names import Listener, api_server_port_of, tunnel_port_of
from infra.supervisor.files import write_atomically

# A host's 100 clusters with 100 servers each, every one with its tunnel, kubelet, kube-proxy and
# flannel, make 40,000 connections; there are two ends of each.
_DESCRIPTORS: Final = 80_000

_CONFIGURATION: Final = """\
global
    default-path config
    log stderr format raw local0 info
    # As many connections as half of the open files that it may have.
    fd-hard-limit {descriptors}
{identity}
defaults
    mode tcp
    log global
    # Normal ends are not worth a line; refusals and failures are.
    option dontlog-normal
    option dontlognull
    # Names of clients go through the log's own escaping.
    log-format "%ci:%cp ended=%ts waited=%Tw/%Tc total=%Tt bytes=%B port=%[var(txn.port)] \
name=%[capture.req.hdr(0)]"
    timeout connect 5s
    timeout client 10s
    timeout server 10s
    # Tunnels and watches are quiet for hours, but konnectivity pings each hour and API servers
    # send a bookmark each minute: a day of silence is a peer that hangs. One that is gone is found
    # by the kernel in two minutes, also behind a NAT that forgets connections.
    timeout tunnel 24h
    timeout client-fin 30s
    timeout server-fin 30s
    option clitcpka
    clitcpka-idle 60s
    clitcpka-intvl 15s
    clitcpka-cnt 4
    option srvtcpka
    srvtcpka-idle 60s
    srvtcpka-intvl 15s
    srvtcpka-cnt 4

frontend gateway
    bind {bind}
    tcp-request inspect-delay 5s
    acl is_client_hello req.ssl_hello_type 1
    acl is_tls_1_2 req.ssl_ver ge 3.3
    acl is_cluster req.ssl_sni,lower -m reg \
^p[0-9]+[.][a-z]+[.][0-9a-f]{{32}}[.]clusters[.]bulkhead[.]internal$
    # The pattern alone would let a line break follow.
    acl is_whole req.ssl_sni,lower -m end .internal
    acl has_port var(txn.port) -m found
    tcp-request content capture req.ssl_sni len 128
    tcp-request content reject if is_client_hello !is_tls_1_2
    # The lists of names are all that leads to a port: what they lack is closed.
    tcp-request content set-var(txn.port) req.ssl_sni,lower,field(1,.,2),map_str_int(clusters.map) \
if is_client_hello is_cluster is_whole
    tcp-request content set-var(txn.port) req.ssl_sni,lower,map_str_int(services.map) \
if is_client_hello !is_cluster
    tcp-request content reject if is_client_hello !has_port
    tcp-request content set-dst-port var(txn.port) if is_client_hello has_port
    tcp-request content accept if is_client_hello has_port
    tcp-request content reject if WAIT_END
    default_backend listeners

backend listeners
    # The address is fixed, the port is the one of the name. No health checks: each connection finds
    # out by itself, and tries for three seconds, in which most restarts are over.
    retries 3
    server host {host}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gateway:
    """One gateway, and the listeners behind it, all on one address.

    Attributes:
        address: the address on which it listens, and on which the listeners are.
        port: where it listens.
        services: the port of each of the platform's own services, by its server name.
        first_port: the port of the first slot of clusters.
        slots: how many slots there are.
        uid: the user and group id that it takes on when it has its port, None to stay who it is.
    """

    address: str
    port: int
    services: Mapping[str, int]
    first_port: int
    slots: int
    uid: int | None = None

    @property
    def cluster_ports(self) -> dict[str, int]:
        """The port of each listener of each slot, by the first two labels of its name."""
        ports: dict[str, int] = {}
        for slot in range(self.slots):
            api_port = api_server_port_of(self.first_port, slot)
            tunnel_port = tunnel_port_of(self.first_port, slot)
            ports[f"p{api_port}.{Listener.API}"] = api_port
            ports[f"p{tunnel_port}.{Listener.TUNNEL}"] = tunnel_port
        return ports


def write_configuration(directory: Path, gateway: Gateway) -> Path:
    """Write what haproxy reads into a directory of its own, and return the file to start it with.

    haproxy reads it at its start only, which must be in this directory.
    """
    write_atomically(directory / "clusters.map", _map(gateway.cluster_ports))
    write_atomically(directory / "services.map", _map(gateway.services))
    host = ipaddress.ip_address(gateway.address)
    # What follows an IPv6 address's last colon would be its port, brackets or not.
    named = f"ipv6@[{host}]" if host.version == 6 else f"ipv4@{host}"  # noqa: PLR2004 - IPv6
    identity = ""
    if gateway.uid is not None:
        # Nothing is opened after the start, so an empty directory is all that it needs to see.
        (directory / "empty").mkdir(mode=0o755, exist_ok=True)
        identity = f"    uid {gateway.uid}\n    gid {gateway.uid}\n    chroot empty\n"
    configuration = directory / "haproxy.cfg"
    text = _CONFIGURATION.format(
        descriptors=_DESCRIPTORS, identity=identity, bind=f"{named}:{gateway.port}", host=named
    )
    write_atomically(configuration, text)
    return configuration


def _map(ports: Mapping[str, int]) -> str:
    return "".join(f"{name} {port}\n" for name, port in ports.items())
