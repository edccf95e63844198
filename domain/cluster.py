"""A cluster: its states, what may be asked in each, and the size of its control plane."""

from dataclasses import dataclass
from enum import StrEnum


class ClusterState(StrEnum):
    """The contract's published states."""

    PENDING = "pending"
    PROVISIONING = "provisioning"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETING = "deleting"


class ClusterProvider(StrEnum):
    """Whether Bulkhead hosts the control plane or the customer brought one."""

    MANAGED_KAAS = "managed_kaas"
    IMPORTED_BYOC = "imported_byoc"


class NetworkProfile(StrEnum):
    """Which pod network a cluster's nodes run."""

    LINUX_CILIUM = "linux_cilium"
    MIXED_OS_CALICO = "mixed_os_calico"


class Component(StrEnum):
    """The processes of a hosted control plane, in the order in which they are reported."""

    ETCD = "etcd"
    API_SERVER = "kube-apiserver"
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


# The group whose members administer a hosted cluster. It is bound to cluster-admin by a
# ClusterRoleBinding and not `system:masters`, whose rights no binding can take away.
ADMINISTRATORS_GROUP = "bulkhead:cluster-admins"
ADMINISTRATORS_BINDING = "bulkhead-cluster-admins"

MEBIBYTE = 1024 * 1024

# What a host sets aside for one control plane: resident memory of an idle one, see
# the README's table of figures, with room for a few hundred objects and their watches.
CONTROL_PLANE_MEMORY_BYTES = 640 * MEBIBYTE


@dataclass(frozen=True, kw_only=True, slots=True)
class HostedControlPlane:
    """Where a cluster's control plane is: all that an activity needs to find or make it."""

    workspace_id: str
    cluster_id: str
    host: str
    slot: int

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
