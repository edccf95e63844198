"""What a suspension does at the provider: the server is shut down, and its disk kept."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from temporalio import activity

from domain.cloud import SNAPSHOT, Tag
from domain.errors import BulkheadError, Reason
from domain.owned_operation import MachineOperation
from domain.stack import StackState
from infra.clouds.same_account import check_same_account
from infra.clouds.threads import in_thread

if TYPE_CHECKING:
    from infra.clouds.accounts import Accounts
    from infra.clouds.cloud import Cloud
    from infra.database.records.compute import ComputeRecords
    from infra.database.records.stack import StackRecords
    from infra.database.records.suspension import SuspensionRecords
    from infra.database.tables import StackRow

# An action, and looks at whether it is done; providers' clients look every few seconds.
_CALLS: Final = 20

# A disk is copied for minutes; a small one for seconds.
_LOOK_SECONDS: Final = 2.0

Result = TypeVar("Result")


class SuspensionActivities:
    """Each may be repeated; an account is asked for the server of the machine's own stack."""

    def __init__(
        self,
        accounts: "Accounts",
        compute: "ComputeRecords",
        stacks: "StackRecords",
        suspensions: "SuspensionRecords",
    ) -> None:
        self._accounts = accounts
        self._compute = compute
        self._stacks = stacks
        self._suspensions = suspensions

    @activity.defn
    async def stop_server(self, operation: MachineOperation) -> None:
        """Have the machine's server shut down.

        Raises:
            BulkheadError: FAILED_PRECONDITION when it has none.
        """
        stack, server_id = await self._server(operation)
        await self._ask(operation, stack, lambda cloud: cloud.power_off(server_id))

    @activity.defn
    async def start_server(self, operation: MachineOperation) -> None:
        """Have the machine's server run again, if it is there."""
        try:
            stack, server_id = await self._server(operation)
        except BulkheadError as error:
            if error.reason is not Reason.FAILED_PRECONDITION:
                raise
            return
        await self._ask(operation, stack, lambda cloud: cloud.power_on(server_id))

    @activity.defn
    async def take_snapshot(self, operation: MachineOperation) -> None:
        """Have the disk of the machine's server kept; there is one of the name, or it is made.

        Raises:
            BulkheadError: FAILED_PRECONDITION when the workspace allows no snapshot there.
        """
        stack, server_id = await self._server(operation)
        suspension = await self._suspensions.keep_of(operation, stack)
        tags: dict[str, str] = {
            Tag.WORKSPACE: stack.workspace_id,
            Tag.CLUSTER: stack.cluster_id,
            Tag.STACK: stack.id,
            Tag.RESOURCE: SNAPSHOT,
        }
        async with self._opened(operation, stack) as cloud:
            keep = partial(cloud.snapshot, server_id, suspension.snapshot_name, tags, stack.place)
            snapshot = await in_thread(stack.secret_id, keep)
            while snapshot is None:
                # Not in a thread: a cancel ends it at once, and the next attempt goes on.
                await asyncio.sleep(_LOOK_SECONDS)
                look = partial(keep, begun=True)
                snapshot = await in_thread(stack.secret_id, look, only_reads=True)
        await self._suspensions.record_snapshot(operation, snapshot)

    @activity.defn
    async def record_machine_suspended(self, operation: MachineOperation) -> None:
        """The machine has no server any more."""
        await self._suspensions.reach_suspended(operation)

    @activity.defn
    async def record_machine_resumed(self, operation: MachineOperation) -> None:
        """The machine does its work again."""
        await self._suspensions.reach_resumed(operation)

    async def _server(self, operation: MachineOperation) -> "tuple[StackRow, str]":
        for stack in await self._compute.stacks_of(operation):
            server_id = stack.outputs.get("server_id")
            if stack.state is StackState.PRESENT and server_id:
                return stack, str(server_id)
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "The machine has no server in its account. Replace the machine, or delete it.",
        )

    async def _ask(
        self, operation: MachineOperation, stack: "StackRow", work: "Callable[[Cloud], Result]"
    ) -> Result:
        async with self._opened(operation, stack) as cloud:
            return await in_thread(stack.secret_id, partial(work, cloud))

    @asynccontextmanager
    async def _opened(
        self, operation: MachineOperation, stack: "StackRow"
    ) -> "AsyncIterator[Cloud]":
        account = await self._compute.account_of_stack(stack)
        async with self._accounts.opened(
            account, operation.caller, operation_id=operation.operation_id, calls=_CALLS
        ) as cloud:
            opened = self._accounts.opened_as(cloud)
            await check_same_account(self._stacks, stack, account, cloud, opened)
            yield cloud
