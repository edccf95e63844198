"""Where a control plane's files, ports and user id are: functions of its ids and its slot."""

import ipaddress
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from domain.cluster import CLUSTER_DOMAIN, SERVICE_NETWORK, HostedControlPlane, Leaf
from domain.identifiers import opaque_part
from domain.names import (
    Listener,
    api_server_port_of,
    control_plane_of,
    server_name_of,
    tunnel_port_of,
)
from infra.openbao.authorities import Authority
from infra.settings import ControlPlaneSettings

LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One control plane on its host.

    Attributes:
        name: of its directory and its group of processes.
        directory: holds every file of it, logs of the processes' output apart.
        programs: the directory of its programs.
        uid: the user and group id of its processes, None when they share ours.
        cluster_id: whose it is.
        api_port: where clients reach the API server.
        etcd_port: where the API server reaches etcd, on loopback.
        etcd_peer_port: where etcd would reach its peers, on loopback.
        tunnel_port: where the tunnel agents of the nodes reach the tunnel server.
        tunnel_status_port: where the tunnel server gives its metrics, on loopback.
        advertise_host: the name or address under which clients reach the API server.
        bind_address: the address on which the API server and the tunnel server listen.
        issuer: the issuer of the cluster's ServiceAccount tokens.
    """

    name: str
    directory: Path
    programs: Path
    uid: int | None
    cluster_id: str
    api_port: int
    etcd_port: int
    etcd_peer_port: int
    tunnel_port: int
    tunnel_status_port: int
    advertise_host: str
    bind_address: str
    issuer: str

    @property
    def pki(self) -> Path:
        """The directory of certificates and keys."""
        return self.directory / "pki"

    @property
    def etcd_data(self) -> Path:
        """The directory of etcd's data."""
        return self.directory / "etcd"

    @property
    def audit(self) -> Path:
        """The directory of the API server's audit log."""
        return self.directory / "audit"

    @property
    def tunnel(self) -> Path:
        """The directory of the socket between API server and tunnel server."""
        return self.directory / "tunnel"

    @property
    def tunnel_socket(self) -> Path:
        """That socket, relative to the directory: an absolute path may be too long for one."""
        return (self.tunnel / "server.sock").relative_to(self.directory)

    @property
    def egress_configuration(self) -> Path:
        """The file that sends the API server's requests to nodes and pods through the tunnel."""
        return self.directory / "egress.yaml"

    @property
    def encryption_configuration(self) -> Path:
        """The file with the key that encrypts Secrets in etcd."""
        return self.directory / "encryption.yaml"

    @property
    def audit_policy(self) -> Path:
        """The file that says what the API server's audit log records."""
        return self.directory / "audit-policy.yaml"

    @property
    def was_ready(self) -> Path:
        """Exists from the first time on that the control plane was ready: etcd's data count."""
        return self.directory / "was-ready"

    @property
    def client_authorities(self) -> Path:
        """Whom the API server takes identities from: the root, and the node signer below it.

        The signer itself must be listed, for the controller manager hands out leaves without it.
        """
        return self.pki / "client-ca.crt"

    @property
    def service_account_key(self) -> Path:
        """The private key of ServiceAccount tokens."""
        return self.pki / "service-account.key"

    @property
    def service_account_public_key(self) -> Path:
        """Its public half."""
        return self.pki / "service-account.pub"

    @property
    def signer_key(self) -> Path:
        """The key with which the controller manager signs node certificates."""
        return self.pki / "node-signer.key"

    @property
    def signer_certificate(self) -> Path:
        """Its certificate."""
        return self.pki / "node-signer.crt"

    @property
    def ports(self) -> dict[str, tuple[str, int]]:
        """Every address that its processes listen on, by what listens there."""
        return {
            "kube-apiserver": (self.bind_address, self.api_port),
            "etcd": (LOOPBACK, self.etcd_port),
            "etcd peers": (LOOPBACK, self.etcd_peer_port),
            "konnectivity-server": (self.bind_address, self.tunnel_port),
            "konnectivity-server metrics": (LOOPBACK, self.tunnel_status_port),
        }

    @property
    def api_server_names(self) -> tuple[str, ...]:
        """Every name under which pods, nodes and clients reach the API server."""
        return (
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            f"kubernetes.default.svc.{CLUSTER_DOMAIN}",
            str(SERVICE_NETWORK[1]),
            *self._names_outside,
            server_name_of(self.cluster_id, Listener.API, self.api_port),
        )

    @property
    def tunnel_server_names(self) -> tuple[str, ...]:
        """Every name under which tunnel agents reach the tunnel server."""
        return (
            *self._names_outside,
            server_name_of(self.cluster_id, Listener.TUNNEL, self.tunnel_port),
        )

    @property
    def _names_outside(self) -> tuple[str, ...]:
        address = ipaddress.ip_address(self.bind_address)
        bound = [] if address.is_unspecified else [str(address)]
        return tuple(dict.fromkeys([LOOPBACK, self.advertise_host, *bound]))

    @property
    def local_api_host(self) -> str:
        """The address under which this host reaches the API server."""
        address = ipaddress.ip_address(self.bind_address)
        if address.is_unspecified:
            return LOOPBACK
        return f"[{address}]" if address.version == 6 else str(address)  # noqa: PLR2004 - IPv6

    @property
    def local_api_url(self) -> str:
        """Where this host reaches the API server."""
        return f"https://{self.local_api_host}:{self.api_port}"

    def certificate(self, leaf: Leaf) -> Path:
        """Return the file of a leaf's certificate."""
        return self.pki / f"{leaf}.crt"

    def key(self, leaf: Leaf) -> Path:
        """Return the file of a leaf's private key."""
        return self.pki / f"{leaf}.key"

    def authority(self, authority: Authority) -> Path:
        """Return the file of a root's certificate."""
        return self.pki / f"{authority}-ca.crt"

    def kubeconfig(self, leaf: Leaf) -> Path:
        """Return the kubeconfig of the component that the leaf identifies."""
        return self.directory / f"{leaf}.kubeconfig"


def layout_of(
    settings: ControlPlaneSettings,
    cluster: HostedControlPlane,
    *,
    own_uid: bool,
) -> Layout:
    """Return where a cluster's control plane is on this host.

    Args:
        settings: the host's.
        cluster: the cluster, with its slot.
        own_uid: whether its processes get a user id of their own.
    """
    name = control_plane_of(cluster.cluster_id)
    first_port = api_server_port_of(settings.first_port, cluster.slot)
    return Layout(
        name=name,
        directory=settings.directory.absolute() / name,
        programs=settings.programs_dir.absolute(),
        uid=settings.first_uid + cluster.slot if own_uid else None,
        cluster_id=cluster.cluster_id,
        api_port=first_port,
        etcd_port=first_port + 1,
        etcd_peer_port=first_port + 2,
        tunnel_port=tunnel_port_of(settings.first_port, cluster.slot),
        tunnel_status_port=first_port + 4,
        advertise_host=settings.advertise_host,
        bind_address=settings.bind_address,
        # Not the address: it must stay the same wherever the control plane moves, and never be
        # another cluster's that gets the same port later.
        issuer=f"https://{opaque_part(cluster.cluster_id)}.clusters.bulkhead.internal",
    )


def is_passable_for_others(directory: Path) -> bool:
    """Tell whether a user that owns none of it may pass the directory, if it exists, and above."""
    directory = directory.absolute()
    return all(
        place.stat().st_mode & stat.S_IXOTH
        for place in (directory, *directory.parents)
        if place.exists()
    )
