"""What the workflow of an operation is given: ids and the caller, and nothing that could age."""

from dataclasses import dataclass
from typing import TypeAlias

from domain.caller import Caller
from domain.cluster import HostedControlPlane
from domain.machine import ClusterMachine, MachineKind
from domain.operation import OperationType


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterOperation:
    """What the workflow of a cluster's operation gets: ids and the caller, nothing else.

    Attributes:
        operation_id: the operation that it carries out.
        control_plane: where the cluster's control plane is or shall be.
        caller: who asked.
        predecessor_operation_id: the operation whose lock this one took over; it must have ended
            before this one has any effect.
        pool_ids: the first pools of a new cluster, whose machines are a part of the operation.
    """

    operation_id: str
    control_plane: HostedControlPlane
    caller: Caller
    predecessor_operation_id: str | None = None
    pool_ids: tuple[str, ...] = ()

    @property
    def workspace_id(self) -> str:
        """The workspace in which the operation runs."""
        return self.control_plane.workspace_id

    @property
    def owner_id(self) -> str:
        """The cluster."""
        return self.control_plane.cluster_id


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretOperation:
    """What the workflow of a secret's operation gets; the fields are those of a cluster's."""

    operation_id: str
    workspace_id: str
    secret_id: str
    caller: Caller
    predecessor_operation_id: str | None = None

    @property
    def owner_id(self) -> str:
        """The secret."""
        return self.secret_id


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineOperation:
    """What the workflow of a machine's operation gets; the fields are those of a cluster's."""

    operation_id: str
    machine: ClusterMachine
    caller: Caller
    predecessor_operation_id: str | None = None

    @property
    def workspace_id(self) -> str:
        """The workspace in which the operation runs."""
        return self.machine.workspace_id

    @property
    def control_plane(self) -> HostedControlPlane:
        """The control plane of the machine's cluster."""
        return self.machine.control_plane

    @property
    def owner_id(self) -> str:
        """The machine."""
        return self.machine.machine_id


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerBootstrapOperation:
    """What the workflow of a worker bootstrap's operation gets; its cluster owns it."""

    operation_id: str
    workspace_id: str
    cluster_id: str
    bootstrap_id: str
    caller: Caller
    predecessor_operation_id: str | None = None

    @property
    def owner_id(self) -> str:
        """The cluster."""
        return self.cluster_id


@dataclass(frozen=True, kw_only=True, slots=True)
class MachinePoolOperation:
    """What the workflow of a pool's operation gets; its cluster owns it.

    The machines and their operations are in the database; their ids follow from the pool's.
    """

    operation_id: str
    pool_id: str
    control_plane: HostedControlPlane
    caller: Caller
    predecessor_operation_id: str | None = None

    @property
    def workspace_id(self) -> str:
        """The workspace in which the operation runs."""
        return self.control_plane.workspace_id

    @property
    def owner_id(self) -> str:
        """The cluster."""
        return self.control_plane.cluster_id


@dataclass(frozen=True, kw_only=True, slots=True)
class InstallOperation:
    """What the workflow of an install's operation gets; its values and renders are in rows."""

    operation_id: str
    install_id: str
    control_plane: HostedControlPlane
    caller: Caller
    predecessor_operation_id: str | None = None

    @property
    def workspace_id(self) -> str:
        """The workspace of the customer, in which the operation runs."""
        return self.control_plane.workspace_id

    @property
    def owner_id(self) -> str:
        """The install."""
        return self.install_id


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageOperation:
    """What the workflow of a package's operation gets."""

    operation_id: str
    workspace_id: str
    package_id: str
    caller: Caller
    predecessor_operation_id: str | None = None

    @property
    def owner_id(self) -> str:
        """The package."""
        return self.package_id


# The input of an operation's workflow, whoever owns the operation. Payloads become the first that
# they fit, and a pool's operation has all that a cluster's has.
OwnedOperation: TypeAlias = (
    MachinePoolOperation
    | InstallOperation
    | PackageOperation
    | ClusterOperation
    | MachineOperation
    | SecretOperation
    | WorkerBootstrapOperation
)


def machine_kind_of(operation: OwnedOperation) -> MachineKind | None:
    """Return the kind of machine that an operation is about; None: it is about no machine."""
    return operation.machine.kind if isinstance(operation, MachineOperation) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class TypedOperation:
    """An operation and its type: what is needed to start, cancel or abandon its workflow."""

    type: OperationType
    operation: OwnedOperation
