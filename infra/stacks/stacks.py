"""What activities ask of stacks: one run at a time, after whatever an earlier one left."""

import asyncio
import dataclasses
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

from domain.cloud import SNAPSHOT, CloudResource
from domain.errors import BulkheadError, Reason
from domain.inventory import is_copy
from domain.stack import StackAction, StackKind, StackProgram, StackState
from infra.clouds.cloud import Cloud
from infra.clouds.removal import Left, remove_all
from infra.clouds.threads import in_thread
from infra.database.engine import Database
from infra.database.records.stack import StackRecords, known_stack, taken_over
from infra.database.tables import StackRow
from infra.openbao.client import OpenBao
from infra.settings import DatabaseSettings, StackSettings
from infra.stacks import backend, recovery
from infra.stacks.declared import Declarations
from infra.stacks.leases import HeldLease, hold
from infra.stacks.request import StackRequest, StackResult, StackSecrets
from infra.stacks.runs import OnProgress, StackRuns, to_the_end

OnHeld = Callable[[], Awaitable[None]]

_PASSPHRASE: Final = "passphrase"  # noqa: S105 - the name of an entry
_CHANGES: Final = (StackAction.UP, StackAction.DESTROY)


async def _go_on() -> None:
    """Take nothing of a budget."""


class Stacks:
    """The stacks that this worker acts on. One instance a process; close it at the end."""

    def __init__(
        self,
        database: Database,
        openbao: OpenBao,
        database_settings: DatabaseSettings,
        settings: StackSettings,
    ) -> None:
        self.records = StackRecords(database)
        self._openbao = openbao
        self._backend = backend.StateBackend(database_settings)
        self._runs = StackRuns(settings, self._backend)
        self._declarations = Declarations()

    async def close(self) -> None:
        """Close every connection to the states; the database and OpenBao are the caller's."""
        await self._backend.close()

    async def run(
        self,
        action: StackAction,
        program: StackProgram,
        cloud: Cloud,
        *,
        operation_id: str,
        user_data: str = "",
        refresh: bool = False,
        deadline_seconds: int = 1800,
        on_held: OnHeld = _go_on,
        on_progress: OnProgress | None = None,
    ) -> StackResult:
        """Run an action under the stack's lease, and write what it came to into the stack's rows.

        What an earlier run left is recovered before anything is made or removed. A stack is
        `changing` from before an `up` until its end, and from a `destroy` on until `remove_left`
        has found nothing. `refresh` changes neither the account nor the state: it tells what
        differs between the two.

        Args:
            action: what to do.
            program: which stack, with what.
            cloud: the account that it is in. Its count has afterwards what the engine asked too.
            operation_id: for which operation.
            user_data: of the server that a machine's program makes.
            refresh: an `up` looks at the account first, whatever the state says is there.
            deadline_seconds: after which the run is cancelled.
            on_held: awaited when nobody else has the stack, before its account is asked; what it
                raises ends the run.
            on_progress: called with each step; what it raises ends the run.

        Raises:
            BulkheadError: ABORTED, which may be tried again, while another run holds the stack, and
                for good when an `up` is of one that is removed; DEADLINE_EXCEEDED; what the
                provider answered, by its reason.
            asyncio.CancelledError: the caller was cancelled; the engine has ended by then.
        """
        async with hold(self.records, program.workspace_id, program.stack_id) as held:
            await self._runs.end_predecessors(program.stack_id)
            row = await self.records.look(program.workspace_id, program.stack_id)
            if action is StackAction.UP and row.state is StackState.REMOVED:
                # Whoever comes so late was not heard of for long, and what it makes nobody wants.
                raise taken_over(program.stack_id)
            await on_held()
            request = await self._plan(action, program, row, held, operation_id, deadline_seconds)
            request = dataclasses.replace(request, refresh=refresh)
            if request.after_crash:
                request = await self._recover(request, row.secret_id, cloud)
            if action is StackAction.DESTROY and request.is_new:
                return StackResult(outputs={}, changes={}, resources={})
            if action in _CHANGES:
                await self.records.set_state(held.lease, StackState.CHANGING)
            if action is StackAction.UP:
                declared = await self._declarations.of(program.provider, program.kind)
                await self.records.intend(held.lease, operation_id, declared)
            known = StackSecrets(
                passphrase=await self._passphrase(program),
                credential=await in_thread(row.secret_id, cloud.environment, only_reads=True),
                user_data=user_data,
            )
            result = await self._carry_out(request, known, held, row, cloud, on_progress)
            if action is StackAction.UP:
                await to_the_end(self._record(held, result))
            if action is StackAction.DESTROY:
                # By the engine's word; `remove_left` looks for itself.
                await self.records.mark_removed(program.workspace_id, program.stack_id)
            return result

    async def _carry_out(
        self,
        request: StackRequest,
        known: StackSecrets,
        held: HeldLease,
        row: StackRow,
        cloud: Cloud,
        on_progress: OnProgress | None,
    ) -> StackResult:
        """Run the engine; what is half made and cannot be finished is removed, and made anew."""
        try:
            return await self._runs.run(request, known, held, cloud.calls, on_progress)
        except BulkheadError as error:
            if not _is_better_begun_anew(request, row, error):
                await to_the_end(self._note_unfinished(held, request, error))
                raise
            await self._remove_half(request, known, held, row.secret_id, cloud)
            return await self._runs.run(_as_planned(request), known, held, cloud.calls, on_progress)

    async def remove_left(
        self, program: StackProgram, cloud: Cloud, *, keep_snapshots: bool = False
    ) -> list[CloudResource]:
        """Remove all that the account has of a stack that shall be no more; return what stays.

        For after a `destroy`. When nothing stays the stack is `removed`, and its state and its
        passphrase are gone. What somebody else gave the stack's tags to is left alone, and not
        counted.

        Args:
            program: which stack.
            cloud: the account that it is in.
            keep_snapshots: those of its machine stay, and are not counted.

        Raises:
            BulkheadError: ABORTED, which may be tried again, while another run holds the stack;
                CREDENTIAL_REJECTED, RATE_LIMITED.
        """
        workspace_id, stack_id = program.workspace_id, program.stack_id
        row = await self.records.look(workspace_id, stack_id)
        known = known_stack(row, await self.records.intents_of(workspace_id, stack_id))

        def unwanted() -> list[CloudResource]:
            return [
                one
                for one in cloud.inventory(workspace_id, stack_id)
                if not (keep_snapshots and one.resource == SNAPSHOT) and not is_copy(one, known)
            ]

        def remove() -> list[CloudResource]:
            found = unwanted()
            if not found:
                return []
            remove_all(cloud, found)
            return unwanted()

        async with hold(self.records, workspace_id, stack_id) as held:
            await self._runs.end_predecessors(stack_id)
            await self.records.set_state(held.lease, StackState.CHANGING)
            left = await to_the_end(in_thread(row.secret_id, remove))
            if not left:
                await self._forget(held, program)
                await self.records.mark_removed(workspace_id, stack_id)
        return left

    async def write_off(self, program: StackProgram) -> None:
        """Give a stack up of which something stays; it is `removed`, and its intents are kept.

        From now on what stays is a finding. Nobody needs the state, or its passphrase, again.

        Raises:
            BulkheadError: ABORTED, which may be tried again, while another run holds the stack.
        """
        async with hold(self.records, program.workspace_id, program.stack_id) as held:
            await self._runs.end_predecessors(program.stack_id)
            await self._forget(held, program)

    async def _forget(self, held: HeldLease, program: StackProgram) -> None:
        await self._backend.remove(held.lease, program.name)
        await asyncio.to_thread(
            self._openbao.remove_stack_secret, program.workspace_id, program.stack_id, _PASSPHRASE
        )
        await self.records.set_state(held.lease, StackState.REMOVED, outputs={})

    async def _plan(
        self,
        action: StackAction,
        program: StackProgram,
        row: StackRow,
        held: HeldLease,
        operation_id: str,
        deadline_seconds: int,
    ) -> StackRequest:
        await self._backend.ensure_table(program.workspace_id)
        state = await self._backend.read(program.workspace_id, program.name)
        unfinished = state is not None and bool(state.pending or state.locks)
        salt = row.encryption_salt or (state.encryption_salt if state else None)
        return StackRequest(
            action=action,
            program=program,
            operation_id=operation_id,
            fence=held.lease.fence,
            encryption_salt=salt,
            deadline_seconds=deadline_seconds,
            is_new=state is None,
            after_crash=action in _CHANGES and (unfinished or row.state is StackState.CHANGING),
        )

    async def _recover(self, request: StackRequest, secret_id: str, cloud: Cloud) -> StackRequest:
        """Bring account and state together; what is to be adopted is in the returned request."""
        program = request.program
        state = await self._backend.read(program.workspace_id, program.name)
        known = state.resources if state else {}
        declared = await self._declarations.of(program.provider, program.kind)
        survey = partial(recovery.survey, program, cloud, known, declared)
        unknown = await in_thread(secret_id, survey, only_reads=True)
        row = await self.records.look(program.workspace_id, program.stack_id)
        intents = await self.records.intents_of(program.workspace_id, program.stack_id)
        found = known_stack(row, intents)
        doomed = [one for one in unknown.superfluous if not is_copy(one, found)]
        if request.action is StackAction.DESTROY:
            doomed += unknown.adoptable
        left = await to_the_end(in_thread(secret_id, partial(remove_all, cloud, doomed)))
        if request.action is StackAction.DESTROY:
            # What stays is in use by what the state knows, and is removed after it.
            return request
        if left:
            raise recovery.still_there(program, left)
        adopt = {**program.adopt, **{one.resource or "": one.id for one in unknown.adoptable}}
        return dataclasses.replace(request, program=dataclasses.replace(program, adopt=adopt))

    async def _remove_half(
        self,
        request: StackRequest,
        known: StackSecrets,
        held: HeldLease,
        secret_id: str,
        cloud: Cloud,
    ) -> None:
        program = request.program
        doomed = dataclasses.replace(_as_planned(request), action=StackAction.DESTROY)
        # What the state does not know is in the way of what it knows.
        doomed = await self._recover(doomed, secret_id, cloud)
        await self._runs.run(doomed, known, held, cloud.calls)

        def remove() -> list[Left]:
            return remove_all(cloud, cloud.inventory(program.workspace_id, program.stack_id))

        left = await to_the_end(in_thread(secret_id, remove))
        if left:
            raise recovery.still_there(program, left)

    async def _passphrase(self, program: StackProgram) -> str:
        return await asyncio.to_thread(
            self._openbao.ensure_stack_secret,
            program.workspace_id,
            program.stack_id,
            _PASSPHRASE,
            secrets.token_urlsafe,
        )

    async def _note_unfinished(
        self, held: HeldLease, request: StackRequest, error: BulkheadError
    ) -> None:
        """Write down what an `up` that failed has made: by that its account is known again."""
        if request.action is not StackAction.UP or error.reason is Reason.ABORTED:
            return
        lease = held.lease
        # What failed first is what the caller is told.
        with suppress(BulkheadError):
            state = await self._backend.read(lease.workspace_id, request.program.name)
            if state is not None and state.resources:
                await self.records.note_ids(lease.workspace_id, lease.stack_id, state.resources)
            elif (
                error.reason is Reason.CREDENTIAL_REJECTED
                and not request.after_crash
                and (state is None or not (state.pending or state.locks))
            ):
                # It was refused at its first call. A credential that comes next finds nothing,
                # and is not of another account for that.
                await self.records.mark_removed(lease.workspace_id, lease.stack_id)

    async def _record(self, held: HeldLease, result: StackResult) -> None:
        lease = held.lease
        await self.records.mark_found(lease.workspace_id, lease.stack_id, result.resources)
        await self.records.set_state(
            lease,
            StackState.PRESENT,
            outputs=result.outputs,
            encryption_salt=result.encryption_salt,
        )


def _is_better_begun_anew(request: StackRequest, row: StackRow, error: BulkheadError) -> bool:
    """Tell whether a recovery met what it can neither see nor adopt.

    Things without tags (an association, a route) are in no inventory, and cannot be made again
    while they are there. A network that was never whole is used by nobody: it goes with them.
    """
    return (
        request.action is StackAction.UP
        and request.after_crash
        and request.program.kind is StackKind.NETWORK
        and not row.outputs
        and error.reason is Reason.CONFLICT
    )


def _as_planned(request: StackRequest) -> StackRequest:
    """Return a request without what a recovery found."""
    program = dataclasses.replace(request.program, adopt={})
    return dataclasses.replace(request, program=program, is_new=False)
