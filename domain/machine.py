"""A machine: a server of the customer that joined a cluster; its states, stages and health."""

from dataclasses import dataclass
from enum import StrEnum

from domain.cluster import HostedControlPlane


class MachineKind(StrEnum):
    """Who made the server."""

    OWN_SERVER = "own_server"
    CLOUD = "cloud"


class MachineState(StrEnum):
    """The contract's published states. A machine that failed to join leaves no row."""

    PROVISIONING = "PROVISIONING"
    ACTIVE = "ACTIVE"
    SUSPENDING = "SUSPENDING"
    SUSPENDED = "SUSPENDED"
    RESUMING = "RESUMING"
    DELETING = "DELETING"


class MachineStage(StrEnum):
    """How far a machine has come, in the order in which a person sees it."""

    PROVISIONED = "provisioned"
    BOOTSTRAPPED = "bootstrapped"
    JOINED = "joined"
    READY = "ready"


class MachineHealth(StrEnum):
    """What is known of a machine, debounced; the worst that is true counts.

    Attributes:
        UNKNOWN: nothing was seen of it yet.
        HEALTHY: it reports, its node is ready and its tunnel can be used.
        DEGRADED: its node is ready, but something that it needs is not as it should be.
        NOT_READY: its kubelet answers and says that it is not ready.
        UNREACHABLE: nothing was heard of it for longer than every heartbeat.
        CLOCK_OFF: its clock is so far off that certificates do not count on it.
        CERTIFICATE_EXPIRED: it slept past the end of its certificate and has not come back.
    """

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    NOT_READY = "not_ready"
    UNREACHABLE = "unreachable"
    CLOCK_OFF = "clock_off"
    CERTIFICATE_EXPIRED = "certificate_expired"


class Phase(StrEnum):
    """How far a server's own script has come, as it reports it; the last ones are ends."""

    DOWNLOADED = "downloaded"
    KUBELET_STARTED = "kubelet_started"
    RUNNING = "running"
    FAILED = "failed"
    UNINSTALLED = "uninstalled"


class Instruction(StrEnum):
    """What the platform wants a server to do; the answer to its report carries it."""

    NONE = "none"
    RESTART = "restart"
    UNINSTALL = "uninstall"


# The user and the group of a kubelet's certificate, as the Node authorizer expects them.
NODE_USER_PREFIX = "system:node:"
NODES_GROUP = "system:nodes"

# A node's certificate lives this long at most, so that a machine that was revoked is out by then.
NODE_CERTIFICATE_SECONDS = 60 * 60

# The ServiceAccounts in kube-system for which a server gets tokens bound to its Node object.
TUNNEL_SERVICE_ACCOUNT = "konnectivity-agent"
PROXY_SERVICE_ACCOUNT = "kube-proxy"
POD_NETWORK_SERVICE_ACCOUNT = "flannel"
NODE_TOKENS_NAMESPACE = "kube-system"
NODE_TOKEN_SECONDS = 60 * 60

# The audience of a tunnel agent's token; the tunnel server accepts no other.
TUNNEL_AUDIENCE = "system:konnectivity-server"

# The identity with which the platform mints such tokens, and nothing else.
NODE_TOKEN_ISSUER_USER = "bulkhead:node-token-issuer"  # noqa: S105 - the name of a user


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterMachine:
    """A machine and the control plane that it belongs to: all that an activity needs."""

    machine_id: str
    control_plane: HostedControlPlane
    kind: MachineKind = MachineKind.OWN_SERVER

    @property
    def workspace_id(self) -> str:
        """The workspace of machine and cluster."""
        return self.control_plane.workspace_id
