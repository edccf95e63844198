"""All workflows, and the sandbox in which they run."""

from typing import Final

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from workflows.cluster.create import CreateCluster
from workflows.cluster.delete import DeleteCluster
from workflows.cluster.renew_certificates import RenewCertificates, RenewClusterCertificates
from workflows.cluster.resume import ResumeCluster
from workflows.cluster.suspend import SuspendCluster
from workflows.compute.drift import DetectDrift, DetectMachineDrift
from workflows.compute.leaks import SweepLeaks
from workflows.compute.preflight import PreflightMachines
from workflows.compute.reconcile import ReconcileMachines
from workflows.machine.bootstrap import BootstrapMachine
from workflows.machine.cordon import CordonMachine, UncordonMachine
from workflows.machine.create import CreateMachine
from workflows.machine.delete import DeleteMachine
from workflows.machine.delete_cloud import DeleteCloudMachine
from workflows.machine.repair import RepairMachine
from workflows.machine.replace import ReplaceMachine
from workflows.machine.resume import ResumeMachine
from workflows.machine.suspend import SuspendMachine
from workflows.machine_pool.create import CreateMachinePool
from workflows.operation.abandon import AbandonOperation
from workflows.operation.reconcile import ReconcileOperations
from workflows.secret.purge import PurgeSecret, PurgeSecrets
from workflows.secret.rotate import RotateSecret, RotateSecrets
from workflows.secret.upkeep import (
    CrossCheckSecretReads,
    QuarantineSecretOrphans,
    SettleSecretVersions,
)
from workflows.worker_bootstrap.revoke import RevokeWorkerBootstrap
from workflows.workspace.prepare_secret_space import PrepareSecretSpace

WORKFLOWS: Final = (
    AbandonOperation,
    BootstrapMachine,
    CordonMachine,
    CreateCluster,
    CreateMachine,
    CreateMachinePool,
    CrossCheckSecretReads,
    DeleteCloudMachine,
    DeleteCluster,
    DeleteMachine,
    DetectDrift,
    DetectMachineDrift,
    PreflightMachines,
    PrepareSecretSpace,
    PurgeSecret,
    PurgeSecrets,
    QuarantineSecretOrphans,
    ReconcileMachines,
    ReconcileOperations,
    RenewCertificates,
    RenewClusterCertificates,
    RepairMachine,
    ReplaceMachine,
    ResumeCluster,
    ResumeMachine,
    RevokeWorkerBootstrap,
    RotateSecret,
    RotateSecrets,
    SettleSecretVersions,
    SuspendCluster,
    SuspendMachine,
    SweepLeaks,
    UncordonMachine,
)


def sandbox() -> SandboxedWorkflowRunner:
    """Return the sandbox in which workflows run: everything but their own package passes through.

    Loading activities and infra anew for every run would take tenths of a second.
    """
    return SandboxedWorkflowRunner(
        restrictions=SandboxRestrictions.default.with_passthrough_modules(
            "activities", "domain", "infra", "structlog", "uuid_utils"
        )
    )
