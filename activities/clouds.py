"""A machine's account at its provider, asked by the provider's own client library."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog
from temporalio import activity

from activities.progress import note_progress
from activities.records import worker_is_stopping
from domain.compute import Choice
from domain.errors import BulkheadError, Reason
from domain.inventory import Standing, is_kept_disk, judge
from domain.operation import WAITING_FOR_CREDENTIAL
from domain.owned_operation import MachineOperation
from domain.stack import StackKind, StackState
from infra.clouds.removal import Left, remove_all
from infra.clouds.same_account import check_same_account
from infra.clouds.threads import in_thread
from infra.database.records.stack import known_stack

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from domain.cloud import CloudResource
    from domain.cloud_account import Account
    from infra.clouds.accounts import Accounts
    from infra.clouds.cloud import Cloud
    from infra.database.records.compute import ComputeRecords
    from infra.database.records.endings import OperationRecords
    from infra.database.records.inventory import InventoryRecords
    from infra.database.records.stack import StackRecords
    from infra.database.records.suspension import SuspensionRecords
    from infra.database.tables import StackRow

# About how many calls each makes: an inventory lists every kind of thing.
_CALLS_TO_CHECK: Final = 5
_CALLS_FOR_INVENTORY: Final = 8
_CALLS_TO_LOOK: Final = 1
_LOOK_SECONDS: Final = 8.0

# A control plane takes some seconds to start.
_RESUMPTION_POLL_SECONDS: Final = 0.5

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class InventoryTaken:
    """What an account had of a machine's stacks that nobody wants; the proof is in the rows.

    Attributes:
        left: how many, after what could be removed was removed.
        resources: as `CloudResource.as_json` shows them.
    """

    left: int
    resources: list[dict[str, Any]] = field(default_factory=list)


class CloudActivities:
    """Asks the account of one machine's stacks."""

    def __init__(
        self,
        accounts: Accounts,
        compute: ComputeRecords,
        stacks: StackRecords,
        suspensions: SuspensionRecords,
        inventories: InventoryRecords,
        operations: OperationRecords,
    ) -> None:
        self._accounts = accounts
        self._compute = compute
        self._stacks = stacks
        self._suspensions = suspensions
        self._inventories = inventories
        self._operations = operations

    @activity.defn
    async def check_credential(self, operation: MachineOperation) -> None:
        """Prove that the machine's credential may do what the programs need.

        The first of the steps that need the cluster: it waits here until one that was suspended
        when the machine was asked for is resumed.

        Raises:
            BulkheadError: CREDENTIAL_REJECTED; FAILED_PRECONDITION when the cluster stays
                suspended.
        """
        await self._until_resumed(operation)
        account = await self._compute.account_of(operation)
        async with self._opened(account, operation, calls=_CALLS_TO_CHECK) as cloud:
            await in_thread(account.secret_id, cloud.check_credential)

    @activity.defn
    async def take_inventory(self, operation: MachineOperation) -> InventoryTaken:
        """Look at all that the account has of the machine's stacks; remove what nobody wants.

        What cannot be removed stays an open finding, which a sweep tries again.
        """
        servers = await self._compute.stacks_of(operation)
        if not servers:
            # Nothing was ever asked for.
            account = await self._compute.account_of(operation)
            await self._inventories.record(operation, account, found=[], left=[])
            return InventoryTaken(left=0)
        left: list[CloudResource] = []
        for stacks in _by_account([*servers, *await self._compute.networks_near(servers)]):
            left += await self._take_inventory(operation, stacks)
        return InventoryTaken(left=len(left), resources=[thing.as_json() for thing in left])

    @activity.defn
    async def remove_snapshot(self, operation: MachineOperation) -> None:
        """Remove what the machine's suspensions kept.

        What the provider does not let go is left to whoever looks at the account next: to the
        inventory of the same operation, else to the sweep. Each keeps it as a finding.
        """
        await self._suspensions.keep_no_more(operation)
        for stacks in _by_account(await self._compute.stacks_of(operation)):
            account = await self._compute.account_of_stack(stacks[-1])
            ids = {stack.id for stack in stacks}
            async with self._opened(account, operation, calls=_CALLS_FOR_INVENTORY) as cloud:
                await self._check_all(stacks, account, cloud)
                found = await self._found(account, cloud, ids)
                for thing in found:
                    if is_kept_disk(thing):
                        await in_thread(
                            account.secret_id, partial(_remove_unless_held, cloud, thing)
                        )

    @activity.defn
    async def record_choices(self, operation: MachineOperation) -> list[Choice]:
        """Return the places and sizes that the machine may have, best first.

        Raises:
            BulkheadError: FAILED_PRECONDITION when the workspace allows none of its places.
        """
        return await self._compute.choices_of(operation)

    @activity.defn
    async def record_missing_server(self, operation: MachineOperation) -> None:
        """Write down that the machine's server is gone, if its account can tell that now.

        Nobody sees that this is waited for: a provider that does not answer soon is not.
        """
        with contextlib.suppress(BulkheadError, TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                has_server = await self._has_server(operation)
            if not has_server:
                await self._compute.note_gone(operation)

    @activity.defn
    async def record_parked(self, operation: MachineOperation) -> str | None:
        """The operation waits for another credential; return the version that there is now."""
        await self._operations.note_waiting(operation, WAITING_FOR_CREDENTIAL)
        return await self._compute.credential_version(operation)

    @activity.defn
    async def record_credential(self, operation: MachineOperation) -> str | None:
        """Return the version of the credential that would be read now; None: there is none."""
        return await self._compute.credential_version(operation)

    @activity.defn
    async def record_unparked(self, operation: MachineOperation) -> None:
        """The operation tries again."""
        await self._operations.note_waiting(operation, None)

    async def _has_server(self, operation: MachineOperation) -> bool:
        """Tell whether the machine's server may run; True as long as that is not known."""
        stack = await self._stacks.machine_stack_of(operation.workspace_id, operation.owner_id)
        if stack is None:
            return False
        server_id = stack.outputs.get("server_id")
        if stack.state is not StackState.PRESENT or not server_id:
            return True
        account = await self._compute.account_of_stack(stack)
        async with self._opened(account, operation, calls=_CALLS_TO_LOOK) as cloud:
            await self._check(stack, account, cloud)
            look = partial(cloud.describe, str(server_id))
            return await in_thread(account.secret_id, look, only_reads=True) is not None

    async def _take_inventory(
        self, operation: MachineOperation, stacks: Sequence[StackRow]
    ) -> list[CloudResource]:
        """Look at one account; return what is left there that nobody wants."""
        account = await self._compute.account_of_stack(stacks[0])
        ids = {stack.id for stack in stacks}
        async with self._opened(account, operation, calls=_CALLS_FOR_INVENTORY) as cloud:
            await self._check_all(stacks, account, cloud)
            found = await self._found(account, cloud, ids)
            judged = await self._judged(operation, stacks, found)
            unwanted = [thing for thing, standing in judged if standing is Standing.OURS]
            failed: list[Left] = []
            if unwanted:
                note_progress(f"removing what nobody wants: {len(unwanted)} resources")
                log.warning("an account has what nobody wants", count=len(unwanted))
                remove = partial(remove_all, cloud, unwanted)
                failed = await in_thread(account.secret_id, remove)
                found = await self._found(account, cloud, ids)
        # Not tried: a person has to look.
        strange = [thing for thing, standing in judged if standing is Standing.STRANGE]
        there = {_key(thing) for thing in found}
        left = [
            thing
            for thing in (*strange, *(item.resource for item in failed))
            if _key(thing) in there
        ]
        await self._inventories.record(operation, account, found=found, left=left)
        errors = {item.resource.id: item.error for item in failed}
        opened = self._accounts.opened_as(cloud)
        await self._inventories.record_leaks(account, opened, left, errors)
        clean = ids - {thing.stack_id for thing in left}
        await self._inventories.resolve_leaks(operation.workspace_id, sorted(clean), opened)
        return left

    async def _found(
        self, account: Account, cloud: Cloud, stack_ids: Collection[str]
    ) -> list[CloudResource]:
        look = partial(cloud.inventory, account.workspace_id)
        found = await in_thread(account.secret_id, look, only_reads=True)
        return [thing for thing in found if thing.stack_id in stack_ids]

    async def _judged(
        self,
        operation: MachineOperation,
        stacks: Sequence[StackRow],
        found: Sequence[CloudResource],
    ) -> list[tuple[CloudResource, Standing]]:
        kept = await self._suspensions.kept_stack(operation)
        known = {}
        for stack in stacks:
            intents = await self._stacks.intents_of(stack.workspace_id, stack.id)
            known[stack.id] = known_stack(stack, intents, has_snapshot=stack.id == kept)
        return judge(found, known)

    async def _check_all(self, stacks: Sequence[StackRow], account: Account, cloud: Cloud) -> None:
        """See that it is the account in which the machine is, or was last.

        What was removed before that was looked after where it was.
        """
        servers = [stack for stack in stacks if stack.kind is StackKind.MACHINE]
        for stack in stacks:
            if stack.secret_version_id is not None and (
                stack.state is not StackState.REMOVED or stack is servers[-1]
            ):
                await self._check(stack, account, cloud)

    async def _check(self, stack: StackRow, account: Account, cloud: Cloud) -> None:
        opened = self._accounts.opened_as(cloud)
        await check_same_account(self._stacks, stack, account, cloud, opened)

    async def _until_resumed(self, operation: MachineOperation) -> None:
        resumption = await self._compute.resumption_of(operation)
        if resumption is None:
            return
        awaited = f"operation {resumption}, which resumes the cluster"
        await self._operations.note_waiting(operation, awaited)
        while await self._compute.resumption_of(operation) is not None:
            if activity.is_worker_shutdown():
                raise worker_is_stopping()
            await asyncio.sleep(_RESUMPTION_POLL_SECONDS)
        await self._operations.note_waiting(operation, None)

    def _opened(
        self, account: Account, operation: MachineOperation, *, calls: int
    ) -> AbstractAsyncContextManager[Cloud]:
        return self._accounts.opened(
            account, operation.caller, operation_id=operation.operation_id, calls=calls
        )


def _by_account(stacks: Sequence[StackRow]) -> Iterable[list[StackRow]]:
    accounts: dict[str, list[StackRow]] = defaultdict(list)
    for stack in stacks:
        accounts[stack.secret_id].append(stack)
    return accounts.values()


def _remove_unless_held(cloud: Cloud, thing: CloudResource) -> None:
    try:
        cloud.remove(thing)
    except BulkheadError as error:
        if error.reason is not Reason.CONFLICT:
            raise
        log.warning("a snapshot is held", kind=thing.kind, id=thing.id)


def _key(thing: CloudResource) -> tuple[str, str]:
    return thing.kind, thing.id
