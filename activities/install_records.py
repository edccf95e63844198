"""Rows of installs that workflows write and read on their way."""

from typing import TYPE_CHECKING

from temporalio import activity

from domain.operation import WAITING_FOR_APPROVAL
from domain.owned_operation import InstallOperation

if TYPE_CHECKING:
    from infra.database.records.endings import OperationRecords
    from infra.database.records.install import InstallRecords


class InstallRecordActivities:
    """Transactions on the rows of one operation and its install."""

    def __init__(self, records: "InstallRecords", operations: "OperationRecords") -> None:
        self._records = records
        self._operations = operations

    @activity.defn
    async def record_approval(self, operation: InstallOperation) -> bool:
        """Tell whether the newest plan is approved; say that the operation waits while not."""
        digest, approved = await self._records.approved_digest(operation)
        is_given = digest is not None and digest == approved
        await self._operations.note_waiting(operation, None if is_given else WAITING_FOR_APPROVAL)
        return is_given

    @activity.defn
    async def record_deployed(self, operation: InstallOperation) -> None:
        """The render is what runs on the cluster, and it is healthy."""
        await self._records.reach_deployed(operation)

    @activity.defn
    async def record_skipped(self, operation: InstallOperation) -> None:
        """The render came to what is deployed already."""
        await self._records.reach_skipped(operation)

    @activity.defn
    async def record_install_deleted(self, operation: InstallOperation) -> None:
        """Nothing of the install is left."""
        await self._records.reach_deleted(operation)
