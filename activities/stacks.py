"""Stacks of a machine: its cluster's network in a place, and its server; made and removed.

These run where the engine is, on the queue of stacks. What is about to be made is written down
before the engine starts; what it made is found by its tags and never made twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
from temporalio import activity

from activities.progress import note_progress
from domain.compute import Choice
from domain.errors import BulkheadError, Reason
from domain.owned_operation import MachineOperation
from domain.stack import StackAction, StackKind, StackState
from infra.clouds.same_account import check_same_account
from infra.clouds.threads import in_thread
from infra.database.records.stack import program_of, taken_over

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from domain.cloud_account import Account
    from infra.clouds.accounts import Accounts
    from infra.clouds.cloud import Cloud
    from infra.database.records.compute import ComputeRecords
    from infra.database.records.machine import MachineRecords
    from infra.database.records.stack import StackRecords
    from infra.database.records.suspension import SuspensionRecords
    from infra.database.tables import StackRow
    from infra.machines.server_bootstraps import ServerBootstraps
    from infra.stacks.request import StackProgress, StackResult
    from infra.stacks.stacks import Stacks

# About how many calls a run makes: each resource is asked for, waited for and read. An inventory
# lists every kind of thing. They are taken when nobody else has the stack. An account is opened
# with one, so that whoever then needs more finds some where there are two.
_CALLS: Final = 18
_CALLS_TO_REMOVE: Final = 24
_CALLS_TO_OPEN: Final = 1

# What uses a thing lets it go within minutes; a protection that a person set stays for ever.
WRITTEN_OFF_AFTER: Final = timedelta(minutes=20)

# These pass, or are mended by a person who is asked to.
_PASSING: Final = frozenset(
    {
        Reason.CREDENTIAL_REJECTED,
        Reason.RATE_LIMITED,
        Reason.DEPENDENCY_UNAVAILABLE,
        Reason.DEADLINE_EXCEEDED,
        Reason.ABORTED,
    }
)

# What a provider answers when a server shall be made in a network that is gone.
_OF_WHAT_IS_NOT_THERE: Final = frozenset({Reason.NOT_FOUND, Reason.INVALID_ARGUMENT})

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerWanted:
    """A server that shall be made.

    Attributes:
        operation: which makes it.
        choice: where and how large.
        from_snapshot: its disk begins as that of the machine's last suspension.
    """

    operation: MachineOperation
    choice: Choice
    from_snapshot: bool = False

    @property
    def workspace_id(self) -> str:
        """The workspace whose rows are written."""
        return self.operation.workspace_id


class StackActivities:
    """Runs the engine. An attempt that ends by a cancel has ended the engine before."""

    def __init__(
        self,
        stacks: Stacks,
        accounts: Accounts,
        bootstraps: ServerBootstraps,
        machines: MachineRecords,
        compute: ComputeRecords,
        records: StackRecords,
        suspensions: SuspensionRecords,
    ) -> None:
        self._stacks = stacks
        self._accounts = accounts
        self._bootstraps = bootstraps
        self._machines = machines
        self._compute = compute
        self._records = records
        self._suspensions = suspensions

    @activity.defn
    async def ensure_network(self, wanted: ServerWanted) -> None:
        """Have the network of the machine's cluster in a place; from now on it is wanted there."""
        operation, choice = wanted.operation, wanted.choice
        account = await self._compute.account_of(operation)
        async with self._opened(account, operation) as cloud:
            look = partial(cloud.place, choice.place)
            place = await in_thread(account.secret_id, look, only_reads=True)
            planned = await self._compute.plan_stacks(operation, account, choice, place)
            if planned.network.state is StackState.PRESENT:
                # As far as the rows know: whoever makes a server in it finds out.
                await self._check(planned.network, account, cloud)
                return
            await self._run(StackAction.UP, planned.network, operation, account, cloud)

    @activity.defn
    async def create_server(self, wanted: ServerWanted) -> None:
        """Have the machine's server, which joins by itself when it boots.

        Raises:
            BulkheadError: CAPACITY_UNAVAILABLE when the provider has none of the size there now;
                CONFLICT, worth another try, when its network is not there (yet).
        """
        operation = wanted.operation
        account = await self._compute.account_of(operation)
        stack = await self._records.machine_stack_of(operation.workspace_id, operation.owner_id)
        if stack is None:
            raise _no_network(wanted.choice)
        network = await self._network_of(stack, wanted, account)
        here = Choice(place=stack.place, instance_type=str(stack.shape["instance_type"]))
        if here != wanted.choice:
            # An attempt that was given up long ago; the machine is made as another choice by now.
            raise taken_over(stack.id)
        image, user_data = account.image, ""
        if wanted.from_snapshot:
            image = await self._snapshot_of(operation)
        else:
            user_data = await self._bootstraps.user_data(operation, stack)
        stack = await self._compute.shape_server(stack, network, image=image, choice=wanted.choice)
        async with self._opened(account, operation) as cloud:
            try:
                result = await self._run(
                    StackAction.UP, stack, operation, account, cloud, user_data=user_data
                )
            except BulkheadError as error:
                if error.reason in _OF_WHAT_IS_NOT_THERE:
                    await self._remake_network(network, operation, account, cloud)
                raise
        await self._compute.reach_server(operation, stack, result.outputs)

    @activity.defn
    async def remove_server(self, operation: MachineOperation) -> None:
        """Have nothing of any server of the machine's in the account, whatever was made of it."""
        for stack in await self._compute.stacks_of(operation):
            if stack.state is not StackState.REMOVED:
                await self._bootstraps.forget(stack)
                await self._remove(stack, operation)

    @activity.defn
    async def release_networks(self, operation: MachineOperation) -> None:
        """Remove the networks that the machine was in and where no machine is wanted any more."""
        servers = await self._compute.stacks_of(operation)
        for network in await self._compute.networks_near(servers):
            if network.state is not StackState.REMOVED and await self._compute.give_up(network):
                await self._remove(network, operation)

    async def _remake_network(
        self, network: StackRow, operation: MachineOperation, account: Account, cloud: Cloud
    ) -> None:
        """Have a network again of which somebody removed something; one that is whole stays as is.

        Raises:
            BulkheadError: CONFLICT, worth another try, when it had to be.
        """
        look = partial(cloud.inventory, network.workspace_id, network.id)
        found = await in_thread(account.secret_id, look, only_reads=True)
        intents = await self._records.intents_of(network.workspace_id, network.id)
        made = {intent.resource for intent in intents if intent.removed_at is None}
        missing = sorted(made - {thing.resource for thing in found})
        if not missing:
            return
        log.warning("a network is made again", stack_id=network.id, missing=missing)
        await self._run(StackAction.UP, network, operation, account, cloud, refresh=True)
        raise BulkheadError(
            Reason.CONFLICT,
            f"The network in {network.place} lacked its {', '.join(missing)}, which somebody must "
            "have removed. It was made again, and the server is tried again.",
            retryable=True,
        )

    async def _network_of(
        self, stack: StackRow, wanted: ServerWanted, account: Account
    ) -> StackRow:
        """Return the network in which a server shall be made.

        Raises:
            BulkheadError: CONFLICT, worth another try, when it is not there (yet).
        """
        network = await self._records.network_near(stack)
        if network is not None and network.state is StackState.CHANGING:
            # Whoever had it made again for another machine may have ended in the middle.
            operation = wanted.operation
            async with self._opened(account, operation) as cloud:
                await self._run(StackAction.UP, network, operation, account, cloud)
            network = await self._records.network_near(stack)
        if network is None or network.state is not StackState.PRESENT:
            raise _no_network(wanted.choice)
        return network

    async def _snapshot_of(self, operation: MachineOperation) -> str:
        suspension = await self._suspensions.current(operation)
        if suspension is None or suspension.snapshot_id is None:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION, "The machine has no snapshot to come back from."
            )
        return suspension.snapshot_id

    async def _remove(self, stack: StackRow, operation: MachineOperation) -> None:
        """Remove a stack and everything that the account has of it.

        What a provider does not let go for long is written off: from then on it is a finding, which
        the sweep tries to remove.

        Raises:
            BulkheadError: CONFLICT, worth another try, while something stays.
        """
        if await self._compute.drop_planned(stack):
            return
        account = await self._compute.account_of_stack(stack)
        try:
            # All calls at once: who used up what is there with one half would never do the other.
            async with self._opened(account, operation) as cloud:
                await self._run(
                    StackAction.DESTROY, stack, operation, account, cloud, calls=_CALLS_TO_REMOVE
                )
                await self._remove_left(stack, operation, cloud)
        except BulkheadError as error:
            if error.reason in _PASSING or not await self._is_hopeless(stack, operation):
                raise
            log.warning("a stack is written off", stack_id=stack.id, reason=error.reason)
            await self._stacks.write_off(program_of(stack))

    async def _remove_left(
        self, stack: StackRow, operation: MachineOperation, cloud: Cloud
    ) -> None:
        asleep = await self._compute.is_asleep(operation)
        left = await self._stacks.remove_left(program_of(stack), cloud, keep_snapshots=asleep)
        if left:
            names = ", ".join(f"{thing.kind} {thing.name}" for thing in left)
            raise BulkheadError(
                Reason.CONFLICT,
                f"The provider does not let go of {names}. Look whether something else uses it, or "
                "protects it from being removed.",
                retryable=True,
            )

    async def _is_hopeless(self, stack: StackRow, operation: MachineOperation) -> bool:
        since = await self._machines.mark(operation, f"removal_of_{stack.id}_failed_at")
        return datetime.now(UTC) > since + WRITTEN_OFF_AFTER

    async def _run(
        self,
        action: StackAction,
        stack: StackRow,
        operation: MachineOperation,
        account: Account,
        cloud: Cloud,
        *,
        user_data: str = "",
        refresh: bool = False,
        calls: int = _CALLS,
    ) -> StackResult:
        await self._check(stack, account, cloud)
        try:
            return await self._stacks.run(
                action,
                program_of(stack),
                cloud,
                operation_id=operation.operation_id,
                user_data=user_data,
                refresh=refresh,
                on_held=partial(self._accounts.take, cloud, calls),
                on_progress=partial(_note, stack.kind),
            )
        except BulkheadError as error:
            if error.reason is not Reason.ABORTED:
                raise
            # Another worker has the stack, and not another operation: this one waits its turn.
            raise BulkheadError(
                Reason.DEPENDENCY_UNAVAILABLE, error.message, metadata=error.metadata
            ) from error

    async def _check(self, stack: StackRow, account: Account, cloud: Cloud) -> None:
        opened = self._accounts.opened_as(cloud)
        await check_same_account(self._records, stack, account, cloud, opened)

    def _opened(
        self, account: Account, operation: MachineOperation
    ) -> AbstractAsyncContextManager[Cloud]:
        return self._accounts.opened(
            account, operation.caller, operation_id=operation.operation_id, calls=_CALLS_TO_OPEN
        )


def _no_network(choice: Choice) -> BulkheadError:
    return BulkheadError(
        Reason.CONFLICT,
        f"The network in {choice.place} is not there; it is looked for again.",
        retryable=True,
    )


def _note(kind: StackKind, progress: StackProgress) -> None:
    """Show how far a run is."""
    note_progress(
        f"{kind}: {progress.message} ({progress.done} of {progress.total})",
        sequence=progress.sequence,
        urn=progress.urn,
    )
