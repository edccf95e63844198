"""Operations that are parts of another one: started, waited for, and taken back together."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from temporalio import activity

from activities.records import worker_is_stopping
from domain.errors import BulkheadError, Reason
from domain.operation import OperationState, OperationType
from domain.owned_operation import (
    ClusterOperation,
    MachineOperation,
    MachinePoolOperation,
    OwnedOperation,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infra.database.records.endings import OperationRecords
    from infra.database.records.part import Part, PartRecords
    from infra.temporal.outbox import Outbox

# What is waited for is said of so many in one sentence.
_NAMED: Final = 3

# Machines take minutes; their operations show their own progress meanwhile.
_POLL_SECONDS: Final = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolsWanted:
    """The pools whose machines are a part of an operation: its own, or a new cluster's first."""

    operation: MachinePoolOperation | ClusterOperation
    pool_ids: tuple[str, ...]

    @property
    def workspace_id(self) -> str:
        """The workspace whose rows are written."""
        return self.operation.workspace_id


class PartActivities:
    """Plans parts, has them started, and looks at their rows until they have ended."""

    def __init__(
        self, parts: "PartRecords", operations: "OperationRecords", outbox: "Outbox"
    ) -> None:
        self._parts = parts
        self._operations = operations
        self._outbox = outbox

    @activity.defn
    async def create_machines(self, wanted: PoolsWanted) -> None:
        """Have every machine of the pools ready, at once.

        How many are really worked on at a time is decided by the places on the queue of stacks and
        by the budget of the credential's account.

        Raises:
            BulkheadError: the reason of the first machine that cannot be made, and which it was.
        """
        operation = wanted.operation
        await self._parts.plan_machines(operation, wanted.pool_ids)
        await self._until_ready(operation)

    @activity.defn
    async def remove_machines(self, wanted: PoolsWanted) -> None:
        """Have no machine of the pools, however far each came."""

        async def plan() -> int:
            return len(await self._parts.plan_removals(wanted.operation, wanted.pool_ids))

        await self._until_gone(wanted.operation, plan)

    @activity.defn
    async def create_replacement(self, operation: MachineOperation) -> None:
        """Have a machine like this one ready.

        Raises:
            BulkheadError: the reason why it cannot be made.
        """
        await self._parts.plan_replacement(operation)
        parts = await self._until_ready(operation)
        if all(part.unwanted for part in parts):
            raise BulkheadError(
                Reason.ABORTED,
                "The new machine was deleted before it could take this one's place, which stays.",
                metadata={"operation_state": OperationState.FAILED},
            )

    @activity.defn
    async def remove_replacement(self, operation: MachineOperation) -> None:
        """Have no new machine, however far it came."""

        async def plan() -> int:
            return int(await self._parts.plan_removal_of_replacement(operation))

        await self._until_gone(operation, plan)

    @activity.defn
    async def delete_replaced(self, operation: MachineOperation) -> None:
        """Have the old machine drained and gone."""

        async def plan() -> int:
            return int(await self._parts.plan_removal_of_replaced(operation))

        await self._until_gone(operation, plan)

    @activity.defn
    async def record_pool_ready(self, operation: MachinePoolOperation) -> None:
        """The pool is there."""
        await self._parts.pools_are_ready(operation)

    @activity.defn
    async def record_machine_replaced(self, operation: MachineOperation) -> None:
        """The new machine has taken the old one's place."""
        await self._parts.machine_is_replaced(operation)

    async def _until_ready(self, operation: OwnedOperation) -> "Sequence[Part]":
        while True:
            parts = await self._parts.look(operation, OperationType.MACHINE_CREATE)
            failed = next((part for part in parts if part.has_failed), None)
            if failed is not None:
                raise _cannot_be_made(failed, len(parts))
            running = await self._begin(parts)
            if not running:
                await self._operations.note_waiting(operation, None)
                return parts
            what = f"{len(running)} of {len(parts)} machines to be ready"
            await self._wait(operation, what + _stuck(running))

    async def _until_gone(
        self, operation: OwnedOperation, plan: Callable[[], Awaitable[int]]
    ) -> None:
        while left := await plan():
            # What makes way has to have begun as well.
            await self._begin(await self._parts.look(operation, OperationType.MACHINE_CREATE))
            deletes = await self._parts.look(operation, OperationType.MACHINE_DELETE)
            running = await self._begin(deletes)
            what = "the machine to be deleted" if left == 1 else f"{left} machines to be deleted"
            await self._wait(operation, what + _stuck(running))
        await self._operations.note_waiting(operation, None)

    async def _begin(self, parts: "Sequence[Part]") -> "list[Part]":
        running = [part for part in parts if part.state is OperationState.RUNNING]
        for part in running:
            if not part.begun:
                await self._outbox.start(part.typed)
        return running

    async def _wait(self, operation: OwnedOperation, what: str) -> None:
        if activity.is_worker_shutdown():
            raise worker_is_stopping()
        await self._operations.note_waiting(operation, what)
        await asyncio.sleep(_POLL_SECONDS)


def _stuck(running: "Sequence[Part]") -> str:
    """Return what those wait for that wait for something, for a person."""
    waits = [f"{part.name} for {part.waiting_for}" for part in running if part.waiting_for]
    more = f" and {len(waits) - _NAMED} more" if len(waits) > _NAMED else ""
    return f"; waiting: {', '.join(waits[:_NAMED])}{more}" if waits else ""


def _cannot_be_made(part: "Part", count: int) -> BulkheadError:
    others = "" if count == 1 else f" The other {count - 1} are taken back with it."
    return BulkheadError(
        part.reason or Reason.INTERNAL,
        f"The machine {part.name} could not be made: {part.message}{others}",
        metadata={
            "operation_id": part.typed.operation.operation_id,
            # One that somebody cancelled fails the others all the same.
            "operation_state": OperationState.FAILED,
        },
        retryable=False,
    )
