"""Operations: what a 202 answers with; their types, steps, states and typed ends."""

from dataclasses import dataclass
from enum import StrEnum

from domain.machine import MachineKind


class OperationType(StrEnum):
    """The published types that exist so far, and ours.

    Ours are `cluster.certificates.renew`, `secret.rotate`, a machine's `cordon`, `uncordon`,
    `repair` and `replace`, `machine_pool.create`, which makes several machines at once, and an
    install's `restore` and `secrets.sync`.
    """

    CLUSTER_CREATE = "cluster.create"
    CLUSTER_DELETE = "cluster.delete"
    CLUSTER_SUSPEND = "cluster.suspend"
    CLUSTER_RESUME = "cluster.resume"
    CLUSTER_RENEW_CERTIFICATES = "cluster.certificates.renew"
    CLUSTER_WORKER_BOOTSTRAP_REVOKE = "cluster.worker_bootstrap.revoke"
    MACHINE_CREATE = "machine.create"
    MACHINE_DELETE = "machine.delete"
    MACHINE_CORDON = "machine.cordon"
    MACHINE_UNCORDON = "machine.uncordon"
    MACHINE_REPAIR = "machine.repair"
    MACHINE_SUSPEND = "machine.suspend"
    MACHINE_RESUME = "machine.resume"
    MACHINE_REPLACE = "machine.replace"
    MACHINE_POOL_CREATE = "machine_pool.create"
    SECRET_ROTATE = "secret.rotate"  # noqa: S105 - the name of a type
    PACKAGE_CREATE = "package.create"
    INSTALL_CREATE = "install.create"
    INSTALL_RENDER = "install.render"
    INSTALL_RESTORE = "install.restore"
    INSTALL_DELETE = "install.delete"
    INSTALL_SYNC_SECRETS = "install.secrets.sync"


class OperationState(StrEnum):
    """The contract's published states."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class StepStatus(StrEnum):
    """The contract's published step states."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"


class OwnerType(StrEnum):
    """The kinds of resource that own operations."""

    CLUSTER = "cluster"
    INSTALL = "install"
    MACHINE = "machine"
    PACKAGE = "package"
    SECRET = "secret"  # noqa: S105 - the name of a kind
    WORKSPACE = "workspace"


class Step(StrEnum):
    """Every step a person sees. A step is one activity, and its name is the activity's id."""

    ENSURE_SECRET_SPACE = "ensure_secret_space"  # noqa: S105 - the name of a step
    ENSURE_AUTHORITIES = "ensure_authorities"
    ENSURE_CREDENTIALS = "ensure_credentials"
    START_COMPONENTS = "start_components"
    WAIT_UNTIL_READY = "wait_until_ready"
    AWAIT_PREDECESSOR = "await_predecessor"
    STOP_COMPONENTS = "stop_components"
    REMOVE_DIRECTORY = "remove_directory"
    REMOVE_AUTHORITIES = "remove_authorities"
    VERIFY_REMOVED = "verify_removed"
    RENEW_LEAVES = "renew_leaves"
    RELOAD_COMPONENTS = "reload_components"
    BEGIN_ROTATION = "begin_rotation"
    CREATE_VALUE = "create_value"
    SET_VALUE = "set_value"
    TEST_VALUE = "test_value"
    FINISH_ROTATION = "finish_rotation"
    DRAIN_CONSUMERS = "drain_consumers"
    RETIRE_VERSION = "retire_version"
    PROVISIONED = "provisioned"
    BOOTSTRAPPED = "bootstrapped"
    JOINED = "joined"
    READY = "ready"
    CORDON_NODE = "cordon_node"
    UNCORDON_NODE = "uncordon_node"
    DRAIN_NODE = "drain_node"
    DETACH_VOLUMES = "detach_volumes"
    UNINSTALL_SERVER = "uninstall_server"
    REMOVE_NODE = "remove_node"
    REVOKE_CREDENTIALS = "revoke_credentials"
    RESTART_SERVER = "restart_server"
    REVOKE_BOOTSTRAP = "revoke_bootstrap"
    CHECK_CREDENTIAL = "check_credential"
    ENSURE_NETWORK = "ensure_network"
    CREATE_SERVER = "create_server"
    STOP_SERVER = "stop_server"
    TAKE_SNAPSHOT = "take_snapshot"
    REMOVE_SERVER = "remove_server"
    REMOVE_SNAPSHOT = "remove_snapshot"
    RELEASE_NETWORK = "release_network"
    TAKE_INVENTORY = "take_inventory"
    CREATE_MACHINES = "create_machines"
    CREATE_REPLACEMENT = "create_replacement"
    DELETE_REPLACED = "delete_replaced"
    RESOLVE_CHART = "resolve_chart"
    PREPARE_NAMESPACE = "prepare_namespace"
    RENDER_CHART = "render_chart"
    PLAN_CHANGES = "plan_changes"
    AWAIT_APPROVAL = "await_approval"
    SYNC_SECRETS = "sync_secrets"
    APPLY_CLUSTER_OBJECTS = "apply_cluster_objects"
    APPLY_RELEASE = "apply_release"
    WAIT_UNTIL_HEALTHY = "wait_until_healthy"
    AWAIT_CONSUMERS = "await_consumers"
    UNINSTALL_RELEASE = "uninstall_release"
    REMOVE_CLUSTER_OBJECTS = "remove_cluster_objects"
    REMOVE_NAMESPACE = "remove_namespace"


# Steps that look and wait: an emergency stop lets them go on, so that what runs comes to rest.
STEPS_WITHOUT_EFFECT = frozenset(
    {
        Step.AWAIT_PREDECESSOR,
        Step.AWAIT_APPROVAL,
        Step.CHECK_CREDENTIAL,
        Step.DRAIN_CONSUMERS,
        Step.VERIFY_REMOVED,
        Step.WAIT_UNTIL_HEALTHY,
        Step.WAIT_UNTIL_READY,
    }
)

# Activities that only write rows carry ids with this prefix; the contract hides them.
BOOKKEEPING_PREFIX = "record_"

# The signal with which a consumer's acknowledgement wakes the rotation that waits for it.
ROTATION_ACKNOWLEDGED = "acknowledged"

# The signal that wakes a workflow that waits for another credential, and what it then waits for.
CREDENTIAL_CHANGED = "credential_changed"
WAITING_FOR_CREDENTIAL = "credential"

# What a rotation waits for whose new value only a person can make. The signal is the same.
WAITING_FOR_NEW_VALUE = "new_value"

# The signal that wakes a workflow that waits for a person's approval, and what it then waits for.
APPROVAL_GIVEN = "approval_given"
WAITING_FOR_APPROVAL = "approval"

# What an operation waits for while an emergency stop covers it.
WAITING_FOR_EMERGENCY_STOP = "emergency_stop"

# The id of an undo is this prefix and the step that it takes back.
UNDO_PREFIX = "undo_"


@dataclass(frozen=True, slots=True)
class OperationFacts:
    """What is fixed about a type of operation.

    Attributes:
        workflow: the name of the workflow that carries it out.
        verb: the segment of the workflow id.
        owner_type: the kind of resource that it belongs to.
        steps: the planned steps, in order.
        forward_only: after its first effect it can only be finished, not cancelled.
        cloud: the workflow and steps for a machine that the platform makes in a cloud, where they
            are others than for a server of one's own.
    """

    workflow: str
    verb: str
    owner_type: OwnerType
    steps: tuple[Step, ...]
    forward_only: bool = False
    cloud: tuple[str, tuple[Step, ...]] | None = None

    def workflow_for(self, kind: MachineKind | None) -> str:
        """Return the workflow for a kind of machine; None: for what is no machine."""
        return self.cloud[0] if self.cloud and kind is MachineKind.CLOUD else self.workflow

    def steps_for(self, kind: MachineKind | None) -> tuple[Step, ...]:
        """Return the planned steps for a kind of machine; None: for what is no machine."""
        return self.cloud[1] if self.cloud and kind is MachineKind.CLOUD else self.steps


_DEPLOYMENT = (
    Step.RENDER_CHART,
    Step.PLAN_CHANGES,
    Step.AWAIT_APPROVAL,
    Step.SYNC_SECRETS,
    Step.APPLY_CLUSTER_OBJECTS,
    Step.APPLY_RELEASE,
    Step.WAIT_UNTIL_HEALTHY,
)

OPERATIONS: dict[OperationType, OperationFacts] = {
    OperationType.CLUSTER_CREATE: OperationFacts(
        "CreateCluster",
        "create",
        OwnerType.CLUSTER,
        (
            Step.ENSURE_SECRET_SPACE,
            Step.ENSURE_AUTHORITIES,
            Step.ENSURE_CREDENTIALS,
            Step.START_COMPONENTS,
            Step.WAIT_UNTIL_READY,
        ),
    ),
    OperationType.CLUSTER_DELETE: OperationFacts(
        "DeleteCluster",
        "delete",
        OwnerType.CLUSTER,
        (
            Step.AWAIT_PREDECESSOR,
            Step.STOP_COMPONENTS,
            Step.REMOVE_DIRECTORY,
            Step.REMOVE_AUTHORITIES,
            Step.VERIFY_REMOVED,
        ),
        forward_only=True,
    ),
    OperationType.CLUSTER_SUSPEND: OperationFacts(
        "SuspendCluster", "suspend", OwnerType.CLUSTER, (Step.STOP_COMPONENTS,)
    ),
    OperationType.CLUSTER_RESUME: OperationFacts(
        "ResumeCluster",
        "resume",
        OwnerType.CLUSTER,
        (Step.ENSURE_CREDENTIALS, Step.START_COMPONENTS, Step.WAIT_UNTIL_READY),
    ),
    OperationType.CLUSTER_RENEW_CERTIFICATES: OperationFacts(
        "RenewCertificates",
        "renew-certificates",
        OwnerType.CLUSTER,
        (Step.RENEW_LEAVES, Step.RELOAD_COMPONENTS, Step.WAIT_UNTIL_READY),
    ),
    OperationType.SECRET_ROTATE: OperationFacts(
        "RotateSecret",
        "rotate",
        OwnerType.SECRET,
        (
            Step.BEGIN_ROTATION,
            Step.CREATE_VALUE,
            Step.SET_VALUE,
            Step.TEST_VALUE,
            Step.FINISH_ROTATION,
            Step.DRAIN_CONSUMERS,
            Step.RETIRE_VERSION,
        ),
    ),
    OperationType.CLUSTER_WORKER_BOOTSTRAP_REVOKE: OperationFacts(
        "RevokeWorkerBootstrap",
        "revoke-worker-bootstrap",
        OwnerType.CLUSTER,
        (Step.REVOKE_BOOTSTRAP,),
        forward_only=True,
    ),
    OperationType.MACHINE_CREATE: OperationFacts(
        "BootstrapMachine",
        "bootstrap",
        OwnerType.MACHINE,
        (Step.PROVISIONED, Step.BOOTSTRAPPED, Step.JOINED, Step.READY),
        cloud=(
            "CreateMachine",
            (
                Step.CHECK_CREDENTIAL,
                Step.ENSURE_NETWORK,
                Step.CREATE_SERVER,
                Step.TAKE_INVENTORY,
                Step.PROVISIONED,
                Step.BOOTSTRAPPED,
                Step.JOINED,
                Step.READY,
            ),
        ),
    ),
    OperationType.MACHINE_DELETE: OperationFacts(
        "DeleteMachine",
        "delete",
        OwnerType.MACHINE,
        (
            Step.AWAIT_PREDECESSOR,
            Step.CORDON_NODE,
            Step.DRAIN_NODE,
            Step.DETACH_VOLUMES,
            Step.UNINSTALL_SERVER,
            Step.REMOVE_NODE,
            Step.REVOKE_CREDENTIALS,
            Step.VERIFY_REMOVED,
        ),
        forward_only=True,
        cloud=(
            "DeleteCloudMachine",
            (
                Step.AWAIT_PREDECESSOR,
                Step.CORDON_NODE,
                Step.DRAIN_NODE,
                Step.DETACH_VOLUMES,
                Step.REMOVE_SERVER,
                Step.REMOVE_SNAPSHOT,
                Step.RELEASE_NETWORK,
                Step.TAKE_INVENTORY,
                Step.REMOVE_NODE,
                Step.REVOKE_CREDENTIALS,
                Step.VERIFY_REMOVED,
            ),
        ),
    ),
    OperationType.MACHINE_SUSPEND: OperationFacts(
        "SuspendMachine",
        "suspend",
        OwnerType.MACHINE,
        (
            Step.CHECK_CREDENTIAL,
            Step.CORDON_NODE,
            Step.DRAIN_NODE,
            Step.DETACH_VOLUMES,
            Step.STOP_SERVER,
            Step.TAKE_SNAPSHOT,
            Step.REMOVE_SERVER,
            Step.TAKE_INVENTORY,
        ),
    ),
    OperationType.MACHINE_RESUME: OperationFacts(
        "ResumeMachine",
        "resume",
        OwnerType.MACHINE,
        (
            Step.CHECK_CREDENTIAL,
            Step.ENSURE_NETWORK,
            Step.CREATE_SERVER,
            Step.READY,
            Step.UNCORDON_NODE,
            Step.REMOVE_SNAPSHOT,
            Step.TAKE_INVENTORY,
        ),
    ),
    OperationType.MACHINE_REPLACE: OperationFacts(
        "ReplaceMachine",
        "replace",
        OwnerType.MACHINE,
        (Step.CREATE_REPLACEMENT, Step.DELETE_REPLACED),
    ),
    OperationType.MACHINE_POOL_CREATE: OperationFacts(
        "CreateMachinePool", "create", OwnerType.CLUSTER, (Step.CREATE_MACHINES,)
    ),
    OperationType.MACHINE_CORDON: OperationFacts(
        "CordonMachine", "cordon", OwnerType.MACHINE, (Step.CORDON_NODE,)
    ),
    OperationType.MACHINE_UNCORDON: OperationFacts(
        "UncordonMachine", "uncordon", OwnerType.MACHINE, (Step.UNCORDON_NODE,)
    ),
    OperationType.MACHINE_REPAIR: OperationFacts(
        "RepairMachine", "repair", OwnerType.MACHINE, (Step.RESTART_SERVER, Step.READY)
    ),
    OperationType.PACKAGE_CREATE: OperationFacts(
        "CreatePackage", "create", OwnerType.PACKAGE, (Step.RESOLVE_CHART,)
    ),
    OperationType.INSTALL_CREATE: OperationFacts(
        "CreateInstall",
        "create",
        OwnerType.INSTALL,
        (Step.PREPARE_NAMESPACE, *_DEPLOYMENT),
    ),
    OperationType.INSTALL_RENDER: OperationFacts(
        "UpdateInstall", "update", OwnerType.INSTALL, _DEPLOYMENT
    ),
    OperationType.INSTALL_RESTORE: OperationFacts(
        "RestoreInstall", "restore", OwnerType.INSTALL, _DEPLOYMENT
    ),
    OperationType.INSTALL_SYNC_SECRETS: OperationFacts(
        "SyncInstallSecrets",
        "sync-secrets",
        OwnerType.INSTALL,
        (Step.SYNC_SECRETS, Step.AWAIT_CONSUMERS),
    ),
    OperationType.INSTALL_DELETE: OperationFacts(
        "DeleteInstall",
        "delete",
        OwnerType.INSTALL,
        (
            Step.AWAIT_PREDECESSOR,
            Step.UNINSTALL_RELEASE,
            Step.REMOVE_CLUSTER_OBJECTS,
            Step.REMOVE_NAMESPACE,
            Step.REVOKE_CREDENTIALS,
            Step.VERIFY_REMOVED,
        ),
        forward_only=True,
    ),
}
