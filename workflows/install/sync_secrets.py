"""SyncInstallSecrets: an install takes over new versions of the secrets that it uses."""

from datetime import timedelta
from typing import Final

from temporalio import workflow

from activities.install_secrets import (
    ConsumersWithin,
    InstallSecretActivities,
    InstallSecretRecordActivities,
)
from domain.operation import Step
from domain.owned_operation import InstallOperation
from workflows.policies import HOST_CALL, until
from workflows.saga import Saga

# A rolling update of some workloads, with their images at hand.
_CONSUMED_WITHIN: Final = timedelta(minutes=10)


@workflow.defn
class SyncInstallSecrets:
    """Bring the Kubernetes Secrets of one install up to date, and everything that uses them."""

    @workflow.run
    async def run(self, operation: InstallOperation) -> None:
        """Write, then wait. Nothing is taken back: what is newest is what is wanted."""
        async with Saga(operation) as saga:
            await saga.step(
                Step.SYNC_SECRETS,
                InstallSecretActivities.sync_install_secrets,
                operation,
                HOST_CALL,
                on_host=True,
            )
            await saga.step(
                Step.AWAIT_CONSUMERS,
                InstallSecretActivities.await_secret_consumers,
                ConsumersWithin(
                    operation=operation, within_seconds=_CONSUMED_WITHIN.total_seconds()
                ),
                until(_CONSUMED_WITHIN),
                on_host=True,
            )
            await saga.succeed(InstallSecretRecordActivities.record_secrets_synced, operation)
