"""Which workflows the clock starts; `worker.py` applies them."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from workflows.cluster.renew_certificates import RenewClusterCertificates
from workflows.compute.drift import DetectDrift
from workflows.compute.leaks import SweepLeaks
from workflows.compute.reconcile import ReconcileMachines
from workflows.install.clock import SyncSecretsOfInstalls, UpdateInstalls
from workflows.install.drift import DetectInstallDrift
from workflows.operation.reconcile import ReconcileOperations
from workflows.rollout.run import ReconcileRollouts
from workflows.secret.purge import PurgeSecrets
from workflows.secret.rotate import RotateSecrets
from workflows.secret.upkeep import (
    CrossCheckSecretReads,
    QuarantineSecretOrphans,
    SettleSecretVersions,
)


@dataclass(frozen=True, slots=True)
class ScheduledWorkflow:
    """One schedule: never two passes at once, and missed passes are not made up for.

    Attributes:
        id: the schedule's id, also the prefix of its workflows' ids.
        workflow: the class; it takes no input.
        every: the pause between two starts.
        jitter: spreads starts, so that schedules do not fall due together.
    """

    id: str
    workflow: type[Any]
    every: timedelta
    jitter: timedelta


SCHEDULES = (
    # The outbox's other half: an operation whose request died after its commit waits this long.
    ScheduledWorkflow(
        "reconcile-operations",
        ReconcileOperations,
        every=timedelta(seconds=10),
        jitter=timedelta(seconds=1),
    ),
    # Leaves are renewed days before they end, so minutes do not matter.
    ScheduledWorkflow(
        "renew-cluster-certificates",
        RenewClusterCertificates,
        every=timedelta(minutes=15),
        jitter=timedelta(minutes=1),
    ),
    # Rotations have windows of minutes at the least.
    ScheduledWorkflow(
        "rotate-secrets",
        RotateSecrets,
        every=timedelta(minutes=1),
        jitter=timedelta(seconds=10),
    ),
    # Who begins to write a version finishes within seconds; this is for those who died.
    ScheduledWorkflow(
        "settle-secret-versions",
        SettleSecretVersions,
        every=timedelta(minutes=1),
        jitter=timedelta(seconds=10),
    ),
    # A read past our audit log is known within this time.
    ScheduledWorkflow(
        "cross-check-secret-reads",
        CrossCheckSecretReads,
        every=timedelta(minutes=5),
        jitter=timedelta(seconds=30),
    ),
    # A deleted secret can be restored for 30 days; what comes after may take an hour more.
    ScheduledWorkflow(
        "purge-secrets",
        PurgeSecrets,
        every=timedelta(hours=1),
        jitter=timedelta(minutes=1),
    ),
    # Orphans are kept for a month, so that an hour does not matter.
    ScheduledWorkflow(
        "quarantine-secret-orphans",
        QuarantineSecretOrphans,
        every=timedelta(hours=1),
        jitter=timedelta(minutes=5),
    ),
    # A server that somebody removed by hand is known within this time; its node is missed sooner.
    ScheduledWorkflow(
        "reconcile-machines",
        ReconcileMachines,
        every=timedelta(minutes=10),
        jitter=timedelta(minutes=1),
    ),
    # What an operation left is a finding at once; this is for what nobody asked about.
    ScheduledWorkflow(
        "sweep-leaks",
        SweepLeaks,
        every=timedelta(hours=1),
        jitter=timedelta(minutes=5),
    ),
    # Each machine every six hours, a few at a time.
    ScheduledWorkflow(
        "detect-drift",
        DetectDrift,
        every=timedelta(minutes=15),
        jitter=timedelta(minutes=2),
    ),
    # Each install every ten minutes, a few at a time.
    ScheduledWorkflow(
        "detect-install-drift",
        DetectInstallDrift,
        every=timedelta(minutes=1),
        jitter=timedelta(seconds=10),
    ),
    # A rotation waits for the installs that use its secret; nobody else tells them.
    ScheduledWorkflow(
        "sync-install-secrets",
        SyncSecretsOfInstalls,
        every=timedelta(seconds=10),
        jitter=timedelta(seconds=1),
    ),
    # Update windows are of minutes at the least.
    ScheduledWorkflow(
        "update-installs",
        UpdateInstalls,
        every=timedelta(minutes=1),
        jitter=timedelta(seconds=10),
    ),
    # A rollout whose workflow Temporal lost goes on within this time.
    ScheduledWorkflow(
        "reconcile-rollouts",
        ReconcileRollouts,
        every=timedelta(minutes=1),
        jitter=timedelta(seconds=10),
    ),
)
