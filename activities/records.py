"""Rows that workflows write: what was reached, and how the operation ended."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from temporalio import activity

from domain.errors import BulkheadError, Reason
from domain.operation import OperationState
from domain.owned_operation import ClusterOperation, OwnedOperation

if TYPE_CHECKING:
    from infra.database.records.cluster import ClusterRecords
    from infra.database.records.endings import OperationRecords
    from infra.installs.cluster_installs import ClusterInstalls
    from infra.temporal.outbox import Outbox

_PREDECESSOR_POLL_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class EndOperation:
    """How an operation ended that did not succeed."""

    operation: OwnedOperation
    state: OperationState
    reason: Reason
    message: str

    @property
    def workspace_id(self) -> str:
        """The workspace whose rows are written."""
        return self.operation.workspace_id


@dataclass(frozen=True, kw_only=True, slots=True)
class ReachedActive:
    """A cluster whose control plane answers, and when its certificates need renewal."""

    operation: ClusterOperation
    renew_after: int
    expire_at: int

    @property
    def workspace_id(self) -> str:
        """The workspace whose rows are written."""
        return self.operation.workspace_id


def worker_is_stopping() -> BulkheadError:
    """Return the failure with which a long wait makes way for the next worker."""
    return BulkheadError(
        Reason.DEPENDENCY_UNAVAILABLE, "The worker is stopping; the next one goes on waiting."
    )


class RecordActivities:
    """Transactions on the rows of one operation and its owner."""

    def __init__(
        self,
        operations: "OperationRecords",
        clusters: "ClusterRecords",
        installs: "ClusterInstalls",
        outbox: "Outbox",
    ) -> None:
        self._operations = operations
        self._clusters = clusters
        self._installs = installs
        self._outbox = outbox

    @activity.defn
    async def await_predecessor(self, operation: OwnedOperation) -> None:
        """Wait until the operation whose lock was taken over has ended; ask it to stop first."""
        predecessor = operation.predecessor_operation_id
        if predecessor is None:
            return
        while not await self._operations.has_ended(operation.workspace_id, predecessor):
            if activity.is_worker_shutdown():
                raise worker_is_stopping()
            await self._operations.note_waiting(operation, f"operation {predecessor} to end")
            await self._outbox.cancel(operation.workspace_id, predecessor)
            await asyncio.sleep(_PREDECESSOR_POLL_SECONDS)

    @activity.defn
    async def record_point_of_no_return(self, operation: OwnedOperation) -> None:
        """Make the operation one that only goes forward, unless a cancel came first."""
        if not await self._operations.pass_point_of_no_return(operation):
            raise BulkheadError(
                Reason.ABORTED, "The operation was cancelled before it had any effect."
            )

    @activity.defn
    async def record_is_past_return(self, operation: OwnedOperation) -> bool:
        """Tell whether an operation whose workflow was lost can only be finished."""
        return await self._operations.is_past_return(operation)

    @activity.defn
    async def record_active(self, reached: ReachedActive) -> None:
        """The cluster is active: created, resumed, or renewed."""
        await self._clusters.reach_active(reached.operation, reached.renew_after, reached.expire_at)

    @activity.defn
    async def record_serving(self, reached: ReachedActive) -> None:
        """The new cluster is active, so that machines can join while the operation goes on."""
        await self._clusters.reach_serving(
            reached.operation, reached.renew_after, reached.expire_at
        )

    @activity.defn
    async def record_suspended(self, operation: ClusterOperation) -> None:
        """The cluster is suspended and sets aside no memory."""
        await self._clusters.reach_suspended(operation)

    @activity.defn
    async def record_deleted(self, operation: ClusterOperation) -> None:
        """The cluster is gone, and with it what was installed there.

        Raises:
            BulkheadError: CONFLICT, worth another try, while an operation of an install ends.
        """
        await self._installs.forget(operation, self._outbox.cancel)
        await self._clusters.reach_deleted(operation)

    @activity.defn
    async def record_end(self, end: EndOperation) -> None:
        """The operation failed or was cancelled, and everything it did is undone."""
        await self._operations.end_undone(end.operation, end.state, end.reason, end.message)
