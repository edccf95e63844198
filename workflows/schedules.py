"""Which workflows the clock starts; `worker.py` applies them."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from workflows.cluster.renew_certificates import RenewClusterCertificates
from workflows.operation.reconcile import ReconcileOperations


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
)
