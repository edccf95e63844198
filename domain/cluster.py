"""A cluster: its states, what may be asked in each, and the size of its control plane."""

import ipaddress
from dataclasses import dataclass
from enum import StrEnum


class ClusterState(StrEnum):
    """The contract's published states."""

    PENDING = "pending"
    PROVISIONING = "provisioning"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETING = "deleting"


def wait_for_api(state: ClusterState | None, cluster_id: str, operation_id: str) -> str:
    """Return what an operation waits for while its cluster's API server does not answer.

    Args:
        state: of the cluster; None: it is gone.
        cluster_id: the cluster, which a person may resume.
        operation_id: the operation, which a person may cancel.
    """
    waited = "the API server of the cluster to answer"
    match state:
        case ClusterState.ACTIVE:
            return waited
        case ClusterState.SUSPENDED:
            return f"{waited}; it is suspended: `bulkhead clusters resume {cluster_id}`"
        case ClusterState.DELETING | None:
            return f"{waited}; it is deleted: `bulkhead operations cancel {operation_id}`"
        case _:
            return f"{waited}; it is {state}, wait until it is active"


class ClusterProvider(StrEnum):
    """Whether Bulkhead hosts the control plane or the customer brought one."""

    MANAGED_KAAS = "managed_kaas"
    IMPORTED_BYOC = "imported_byoc"


class NetworkProfile(StrEnum):
    """Which pod network a cluster's nodes run."""

    LINUX_CILIUM = "linux_cilium"
    LINUX_BRIDGE = "linux_bridge"
    MIXED_OS_CALICO = "mixed_os_calico"


class Component(StrEnum):
    """The processes of a hosted control plane, in the order in which they are reported."""

    ETCD = "etcd"
    API_SERVER = "kube-apiserver"
    TUNNEL_SERVER = "konnectivity-server"
    CONTROLLER_MANAGER = "kube-controller-manager"
    SCHEDULER = "kube-scheduler"


class Leaf(StrEnum):
    """The leaf certificates of a control plane; the file names and the keys of their expiries."""

    API_SERVER = "apiserver"
    KUBELET_CLIENT = "kubelet-client"
    FRONT_PROXY_CLIENT = "front-proxy-client"
    ETCD_SERVER = "etcd-server"
    ETCD_PEER = "etcd-peer"
    ETCD_CLIENT = "etcd-client"
    CONTROLLER_MANAGER = "controller-manager"
    SCHEDULER = "scheduler"
    TUNNEL_SERVER = "tunnel-server"
    TUNNEL_CLIENT = "tunnel-client"


# The group whose members administer a hosted cluster. It is bound to cluster-admin by a
# ClusterRoleBinding and not `system:masters`, whose rights no binding can take away.
ADMINISTRATORS_GROUP = "bulkhead:cluster-admins"
ADMINISTRATORS_BINDING = "bulkhead-cluster-admins"

# The user that the API server is for kubelets, and the one that the tunnel server is when it asks
# the API server about an agent's token. ClusterRoleBindings of ours give them their rights.
KUBELET_CLIENT_USER = "bulkhead:kube-apiserver-kubelet-client"
TUNNEL_SERVER_USER = "bulkhead:konnectivity-server"

# The same in every cluster: nothing routes between clusters.
SERVICE_NETWORK = ipaddress.ip_network("10.96.0.0/16")
POD_NETWORK = ipaddress.ip_network("10.244.0.0/16")
CLUSTER_DNS = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"

MEBIBYTE = 1024 * 1024

# What a host sets aside for one control plane: resident memory of an idle one (530 to 540 MiB, of
# which the tunnel server has 34), with room for a few hundred objects and their watches.
CONTROL_PLANE_MEMORY_BYTES = 704 * MEBIBYTE


@dataclass(frozen=True, kw_only=True, slots=True)
class HostedControlPlane:
    """Where a cluster's control plane is: all that an activity needs to find or make it.

    The network profile decides what the platform keeps in the cluster. Operations that were
    planned before there was one carry none; they are of the only profile that there was.
    """

    workspace_id: str
    cluster_id: str
    host: str
    slot: int
    network_profile: NetworkProfile = NetworkProfile.LINUX_CILIUM

    @property
    def owner_id(self) -> str:
        """The cluster, which owns the operations on its control plane."""
        return self.cluster_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Validity:
    """How long a control plane's leaf certificates last, in Unix seconds.

    Attributes:
        renew_after: when the first of them should be replaced.
        expire_at: when the first of them ends.
    """

    renew_after: int
    expire_at: int


def can_be_endpoint(host: str) -> bool:
    """Whether pods reach an API server at a host by way of the `kubernetes` Service.

    Only an address that is not loopback can be an endpoint. Without one the Service has none, and
    pods reach the API server only where the nodes bring them there.
    """
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
