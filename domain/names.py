"""Names of everything outside our database: pure functions of our ids.

A retry therefore finds what a dead attempt made, and a sweep finds what anyone forgot. Names that
users give never take part.
"""

from enum import StrEnum

from domain.identifiers import opaque_part
from domain.install import INSTALL_READER_PREFIX
from domain.operation import OPERATIONS, UNDO_PREFIX, OperationType
from domain.secret import VersionPlace

# The queue of the workflows, and of the activities that need no particular host.
CONTROL_TASK_QUEUE = "control"

# The queue of what runs Pulumi: each run needs hundreds of megabytes, so its places are few.
STACKS_TASK_QUEUE = "stacks"

# The queue of the targets of rollouts: hundreds that wait for their operations, each for minutes,
# which must not take the places of what is done in milliseconds.
ROLLOUTS_TASK_QUEUE = "rollouts"

# The workflow that closes an operation whose own workflow was lost.
ABANDON_WORKFLOW = "AbandonOperation"

# The workflow that makes a workspace's place in OpenBao.
PREPARE_SECRET_SPACE_WORKFLOW = "PrepareSecretSpace"  # noqa: S105 - the name of a workflow

# The workflow that ends a secret and everything of it for good.
PURGE_SECRET_WORKFLOW = "PurgeSecret"  # noqa: S105 - the name of a workflow

# The workflows for which a request waits: what an account offers, how a machine or an install has
# drifted, and which chart an address leads to.
PREFLIGHT_WORKFLOW = "PreflightMachines"
MACHINE_DRIFT_WORKFLOW = "DetectMachineDrift"
COMPARE_INSTALL_WORKFLOW = "CompareInstall"
RESOLVE_CHART_WORKFLOW = "ResolveChart"


def preflight_workflow_id_of(compute_config_id: str, request_id: str) -> str:
    """Return the id of the workflow that asks an account for one request."""
    return f"compute-config/{compute_config_id}/preflight/{request_id}"


def machine_drift_workflow_id_of(machine_id: str, report_id: str) -> str:
    """Return the id of the workflow that writes one report."""
    return f"machine/{machine_id}/detect-drift/{report_id}"


def compare_install_workflow_id_of(install_id: str, request_id: str) -> str:
    """Return the id of the workflow that compares an install with its render for one request."""
    return f"install/{install_id}/detect-drift/{request_id}"


def resolve_chart_workflow_id_of(workspace_id: str, request_id: str) -> str:
    """Return the id of the workflow that looks a chart up for one request."""
    return f"workspace/{workspace_id}/resolve-chart/{request_id}"


def purge_workflow_id_of(secret_id: str) -> str:
    """Return the id of the workflow that purges a secret; one may run at a time."""
    return f"secret/{secret_id}/purge"


def secret_space_workflow_id_of(workspace_id: str) -> str:
    """Return the id of the workflow that makes a workspace's place in OpenBao."""
    return f"workspace/{workspace_id}/prepare-secret-space"


def workflow_id_of(operation_type: OperationType, owner_id: str, operation_id: str) -> str:
    """Return `<noun>/<resource id>/<verb>/<operation id>`, readable in Temporal's UI."""
    facts = OPERATIONS[operation_type]
    return f"{facts.owner_type}/{owner_id}/{facts.verb}/{operation_id}"


def abandon_workflow_id_of(operation_type: OperationType, owner_id: str, operation_id: str) -> str:
    """Return the id of the workflow that closes a lost operation; one may run at a time."""
    facts = OPERATIONS[operation_type]
    return f"{facts.owner_type}/{owner_id}/abandon-{facts.verb}/{operation_id}"


def operation_id_of(workflow_id: str) -> str | None:
    """Return the operation that a workflow carries out, or None for a schedule's workflow."""
    last = workflow_id.rsplit("/", 1)[-1]
    return last if last.startswith("op_") else None


def is_undo(activity_id: str, workflow_type: str) -> bool:
    """Tell whether an activity of an operation takes back what was done."""
    return activity_id.startswith(UNDO_PREFIX) or workflow_type == ABANDON_WORKFLOW


def secret_namespace_of(workspace_id: str) -> str:
    """Return the OpenBao namespace that holds a workspace's secrets and authorities."""
    return f"ws-{opaque_part(workspace_id)}"


def authority_mount_of(cluster_id: str) -> str:
    """Return the mount path, inside the workspace's namespace, of a cluster's PKI engine."""
    return f"pki/{opaque_part(cluster_id)}"


def node_name_of(machine_id: str) -> str:
    """Return the name of a machine's Node object, and of the user that its kubelet is."""
    return f"mch-{opaque_part(machine_id)}"


def value_path_of(place: VersionPlace) -> str:
    """Return the path under the workspace's `secrets` mount of a version's value."""
    return f"{opaque_part(place.secret_id)}/{opaque_part(place.version_id)}"


def cluster_secret_path_of(cluster_id: str, name: str) -> str:
    """Return the path under the workspace's `kv` mount of one of a cluster's own keys."""
    return f"clusters/{opaque_part(cluster_id)}/{name}"


def stack_secret_path_of(stack_id: str, name: str) -> str:
    """Return the path under the workspace's `kv` mount of one of a stack's own secrets."""
    return f"stacks/{opaque_part(stack_id)}/{name}"


def install_namespace_of(install_id: str) -> str:
    """Return the Kubernetes namespace of an install, which is also its Helm release's name."""
    return f"inst-{opaque_part(install_id)}"


def install_user_of(install_id: str) -> str:
    """Return the user that deploys one install, with the rights of its namespace alone."""
    return f"bulkhead:install:{opaque_part(install_id)}"


def cluster_objects_user_of(install_id: str) -> str:
    """Return the user that applies one install's approved objects of cluster scope."""
    return f"bulkhead:install-objects:{opaque_part(install_id)}"


def install_reader_of(install_id: str) -> str:
    """Return the user that lists one install's pods and reads their logs, and nothing else."""
    return f"{INSTALL_READER_PREFIX}{opaque_part(install_id)}"


def install_secret_path_of(install_id: str, name: str) -> str:
    """Return the path under the workspace's `kv` mount of one of an install's own keys."""
    return f"installs/{opaque_part(install_id)}/{name}"


def rollout_workflow_id_of(rollout_id: str) -> str:
    """Return the id of the workflow that drives a rollout; one may run at a time."""
    return f"rollout/{rollout_id}/run"


def target_workflow_id_of(rollout_id: str, install_id: str, verb: str) -> str:
    """Return the id of the workflow that moves one install for a rollout, or takes it back."""
    return f"rollout/{rollout_id}/{verb}/{install_id}"


def control_plane_of(cluster_id: str) -> str:
    """Return the name of a cluster's directory and process group on its control-plane host."""
    return f"cp-{opaque_part(cluster_id)}"


def task_queue_of_host(host: str) -> str:
    """Return the task queue that the worker of one control-plane host listens on."""
    return f"control-planes@{host}"


# Ports that a host sets aside for each control plane: the API server's, two of etcd's, three of the
# tunnel server's, and two that are not in use yet.
PORTS_PER_SLOT = 8


def api_server_port_of(first_port: int, slot: int) -> int:
    """Return the port of a cluster's API server on a host whose first slot begins at a port."""
    return first_port + PORTS_PER_SLOT * slot


def tunnel_port_of(first_port: int, slot: int) -> int:
    """Return the port to which the tunnel agents of a cluster's nodes connect."""
    return api_server_port_of(first_port, slot) + 3


# Under it are the server names by which a gateway tells connections apart. ICANN keeps it free for
# private use, so no public DNS has them: clients dial the gateway's address and say the name.
_GATEWAY_DOMAIN = "bulkhead.internal"

# The platform's own services.
API_SERVER_NAME = f"api.{_GATEWAY_DOMAIN}"
REGISTRY_SERVER_NAME = f"registry.{_GATEWAY_DOMAIN}"


class Listener(StrEnum):
    """What of a cluster is reached from outside its control-plane host."""

    API = "api"
    TUNNEL = "tunnel"


def server_name_of(cluster_id: str, listener: Listener, port: int) -> str:
    """Return the server name of a cluster's listener on a port of its host.

    It carries the port, so that a gateway needs no list of clusters; the cluster's part keeps its
    certificate from being good for another cluster that gets the same port later.
    """
    return f"p{port}.{listener}.{opaque_part(cluster_id)}.clusters.{_GATEWAY_DOMAIN}"
