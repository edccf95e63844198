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
from workflows.install.clock import SyncSecretsOfInstalls, UpdateInstalls
from workflows.install.create import CreateInstall
from workflows.install.delete import DeleteInstall
from workflows.install.drift import CompareInstall, DetectInstallDrift
from workflows.install.restore import RestoreInstall
from workflows.install.sync_secrets import SyncInstallSecrets
from workflows.install.update import UpdateInstall
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
from workflows.package.create import CreatePackage
from workflows.package.resolve import ResolveChart
from workflows.rollout.check_target import CheckTarget
from workflows.rollout.move_target import MoveTarget
from workflows.rollout.plan_target import PlanTarget
from workflows.rollout.roll_back_target import RollBackTarget
from workflows.rollout.run import ReconcileRollouts, RunRollout
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
    CheckTarget,
    CompareInstall,
    CordonMachine,
    CreateCluster,
    CreateInstall,
    CreateMachine,
    CreateMachinePool,
    CreatePackage,
    CrossCheckSecretReads,
    DeleteCloudMachine,
    DeleteCluster,
    DeleteInstall,
    DeleteMachine,
    DetectDrift,
    DetectInstallDrift,
    DetectMachineDrift,
    MoveTarget,
    PlanTarget,
    PreflightMachines,
    PrepareSecretSpace,
    PurgeSecret,
    PurgeSecrets,
    QuarantineSecretOrphans,
    ReconcileMachines,
    ReconcileOperations,
    ReconcileRollouts,
    RenewCertificates,
    RenewClusterCertificates,
    RepairMachine,
    ReplaceMachine,
    ResolveChart,
    RestoreInstall,
    ResumeCluster,
    ResumeMachine,
    RevokeWorkerBootstrap,
    RollBackTarget,
    RotateSecret,
    RotateSecrets,
    RunRollout,
    SettleSecretVersions,
    SuspendCluster,
    SuspendMachine,
    SweepLeaks,
    SyncInstallSecrets,
    SyncSecretsOfInstalls,
    UncordonMachine,
    UpdateInstall,
    UpdateInstalls,
)

# On the queue of their waits: a worker that has both gets the activity with the answer that asked
# for it. Those of before run where all others do.
TARGET_WORKFLOWS: Final = (MoveTarget, RollBackTarget)


# What workflows are made of, and holds no state of a run.
SHARED: Final = (
    "workflows.calls",
    "workflows.cluster.bring_up",
    "workflows.compute.passes",
    "workflows.failures",
    "workflows.install.approval",
    "workflows.install.deploy",
    "workflows.machine.cloud",
    "workflows.parking",
    "workflows.pauses",
    "workflows.policies",
    "workflows.rollout.policies",
    "workflows.saga",
)


def sandbox() -> SandboxedWorkflowRunner:
    """Return the sandbox in which workflows run: what defines none of them passes through.

    Loading activities and infra anew for every run would take tenths of a second, and what
    workflows share another twenty milliseconds of a core; a test sees that it is deterministic.
    """
    return SandboxedWorkflowRunner(
        restrictions=SandboxRestrictions.default.with_passthrough_modules(
            "activities", "domain", "infra", "structlog", "uuid_utils", *SHARED
        )
    )
