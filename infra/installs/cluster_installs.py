"""What goes with a cluster of its installs: their keys, and their names as consumers of secrets."""

import asyncio
from collections.abc import Awaitable, Callable

from domain.errors import BulkheadError, Reason
from domain.owned_operation import ClusterOperation
from infra.database.records.cluster_installs import ClusterInstallRecords
from infra.openbao.install_vault import InstallVault

# Passes the cancellation that a row asks for on: workspace and operation.
Cancel = Callable[[str, str], Awaitable[None]]


class ClusterInstalls:
    """The installs of clusters that go; their rows go with the cluster's."""

    def __init__(self, records: ClusterInstallRecords, vault: InstallVault) -> None:
        self._records = records
        self._vault = vault

    async def forget(self, operation: ClusterOperation, cancel: Cancel) -> None:
        """Remove what is outside of the rows.

        Raises:
            BulkheadError: CONFLICT, worth another try, while an operation of one of them has not
                ended: it would never find its install again.
        """
        installs, running = await self._records.installs_on(operation)
        if running:
            for busy in running:
                await self._records.request_cancel(operation, busy)
                await cancel(operation.workspace_id, busy)
            raise BulkheadError(
                Reason.CONFLICT,
                f"Operations of the cluster's installs have not ended: {', '.join(running[:3])}.",
                metadata={"operation_ids": ",".join(running[:3])},
                retryable=True,
            )
        for install_id in installs:
            await asyncio.to_thread(self._vault.forget_install, operation.workspace_id, install_id)
        await self._records.remove_references_of(operation, installs)
