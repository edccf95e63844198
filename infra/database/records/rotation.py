"""The transactions with which a workflow carries a rotation out.

What a rotation needs to know is written into its operation's `placement`: rotator and policy when
it is planned, so that a change of the policy does not reach a rotation under way, and the versions
when it begins. Each transaction takes the secret's row lock first and may be repeated.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.errors import BulkheadError, Reason
from domain.operation import UNDO_PREFIX, OperationState, Step
from domain.owned_operation import SecretOperation
from domain.rotation import WaitingConsumers
from domain.secret import (
    CURRENT,
    PREVIOUS,
    Retirement,
    SecretState,
    VersionPlace,
    VersionState,
)
from infra.database.engine import Database
from infra.database.queries.secret import find_version_numbered
from infra.database.records.new_rows import NewRows
from infra.database.records.operation import end_operation, hold, notify, taken_over
from infra.database.records.rotation_audit import (
    audit_finish,
    audit_left_behind,
    audit_retirement,
)
from infra.database.records.rotation_facts import (
    RotationFacts,
    check_in_time,
    check_unmoved,
    facts_of,
    pinned,
    unacknowledged,
)
from infra.database.records.rotation_plan import not_active
from infra.database.records.rotation_waits import begin_waiting, end_waiting, handed_in_by
from infra.database.records.secret import (
    abandon_version,
    begin_destroying,
    begin_version,
    complete_destroying,
    current_number,
    place_of,
    read_version,
    switch_version,
)
from infra.database.tables import (
    OperationRow,
    OperationStepRow,
    SecretRotationRow,
    SecretRow,
    SecretVersionRow,
)

_READABLE: Final = frozenset({VersionState.ENABLED, VersionState.DISABLED})


class RotationRecords:
    """The transactions of one worker, in the workspace of the operation at hand."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, operation: SecretOperation) -> None:
        """Note the current version and make the pending one, without a value yet.

        Raises:
            BulkheadError: ABORTED when the operation lost the lock; FAILED_PRECONDITION when the
                secret is deleted or its current version is not enabled; DEADLINE_EXCEEDED.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, secret = await _hold(session, operation)
            if facts_of(row) is not None:
                return
            check_in_time(row)
            if secret.state is not SecretState.ACTIVE:
                raise not_active()
            current = await _enabled_current(session, secret)
            pending = await begin_version(
                session,
                NewRows(),
                operation.workspace_id,
                secret.id,
                state=VersionState.PENDING,
                operation_id=row.id,
            )
            row.placement = {
                **row.placement,
                "current": {"id": current.id, "number": current.number},
                "pending": {"id": pending.id, "number": pending.number},
            }

    async def find(self, operation: SecretOperation) -> RotationFacts | None:
        """Return what the rotation works with, None when it has not begun.

        Raises:
            BulkheadError: ABORTED when the operation is not one of this secret.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            return facts_of(await _operation(session, operation))

    async def handed_in(self, operation: SecretOperation) -> str:
        """Return the version in which a person hands the new value in; `-`: there is none."""
        async with self._database.workspace(operation.workspace_id) as session:
            return await handed_in_by(session, await _operation(session, operation))

    async def note_waiting(self, operation: SecretOperation) -> None:
        """Say that a rotation waits for a person's new value."""
        async with self._database.workspace(operation.workspace_id) as session:
            row, _ = await _hold(session, operation)
            await begin_waiting(session, row)

    async def note_waited(self, operation: SecretOperation) -> None:
        """Say that a rotation goes on; the time that it waited does not count as its own."""
        async with self._database.workspace(operation.workspace_id) as session:
            row, _ = await _hold(session, operation)
            await end_waiting(session, row)

    async def note_reached(self, operation: SecretOperation) -> None:
        """Witness that the target was reached: from now on a failure is taken back there."""
        async with self._database.workspace(operation.workspace_id) as session:
            row, _ = await _hold(session, operation)
            row.placement = {"reached_at": int(datetime.now(UTC).timestamp()), **row.placement}

    async def previous(self, operation: SecretOperation) -> VersionPlace | None:
        """Return the version that `previous` points at, if it can be read."""
        async with self._database.workspace(operation.workspace_id) as session:
            _, secret = await _hold(session, operation)
            version = await _enabled(session, secret, secret.aliases.get(PREVIOUS))
            return None if version is None else place_of(version)

    async def note_previous(self, operation: SecretOperation, place: VersionPlace | None) -> None:
        """Witness, before the target is told, that the new value ends a version; None: no one."""
        async with self._database.workspace(operation.workspace_id) as session:
            row, _ = await _hold(session, operation)
            noted = None if place is None else {"id": place.version_id}
            row.placement = {"previous": noted, **row.placement}

    async def is_enabled(self, operation: SecretOperation, place: VersionPlace) -> bool:
        """Tell whether a version can be read, or could be once its secret is restored."""
        async with self._database.workspace(operation.workspace_id) as session:
            version = await read_version(session, place)
            return version is not None and version.state is VersionState.ENABLED

    async def finish(self, operation: SecretOperation) -> None:
        """Pass the point of no return: the pending version is enabled and becomes `current`.

        Raises:
            BulkheadError: ABORTED when a cancel was asked for, or, with the metadata of a failure,
                when `current` was moved or the secret deleted meanwhile; DEADLINE_EXCEEDED.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, secret = await _hold(session, operation)
            facts = facts_of(row)
            if facts is None:
                raise taken_over()
            if facts.is_finished:
                return
            if row.cancel_requested_at is not None:
                raise BulkheadError(
                    Reason.ABORTED, "The rotation was cancelled before it was finished."
                )
            check_in_time(row)
            check_unmoved(secret, facts)
            version = await read_version(session, facts.pending)
            if version is None or version.state is not VersionState.PENDING:
                raise taken_over()
            secret.aliases = {
                **secret.aliases,
                CURRENT: facts.pending_number,
                PREVIOUS: facts.current_number,
            }
            # What is known is about the value that was current.
            secret.validation = None
            await switch_version(session, version, VersionState.ENABLED)
            now = datetime.now(UTC)
            row.placement = {**row.placement, "finished_at": now.timestamp()}
            row.cancellable = False
            row.version += 1
            rotation = await session.get(SecretRotationRow, (secret.workspace_id, secret.id))
            if rotation is not None:
                rotation.last_rotated_at = now
            audit_finish(session, operation, facts)
            await notify(session, row.id)

    async def give_version_up(self, operation: SecretOperation, place: VersionPlace) -> None:
        """End the pending version, whose value is proven to be gone."""
        async with self._database.workspace(operation.workspace_id) as session:
            await hold(session, operation)
            await abandon_version(session, place)

    async def taking_back_since(self, operation: SecretOperation) -> datetime | None:
        """Return when the target was first asked to take the new value back."""
        async with self._database.workspace(operation.workspace_id) as session:
            step = await session.get(
                OperationStepRow,
                (
                    operation.workspace_id,
                    operation.operation_id,
                    UNDO_PREFIX + Step.CREATE_VALUE,
                ),
            )
            return None if step is None else step.started_at

    async def note_left_behind(
        self, operation: SecretOperation, place: VersionPlace, reason: Reason
    ) -> None:
        """Witness that the target could not be told to refuse a version's value."""
        async with self._database.workspace(operation.workspace_id) as session:
            audit_left_behind(session, operation, place, reason)

    async def waiting_consumers(self, operation: SecretOperation) -> WaitingConsumers:
        """Return who has not acknowledged the new version, and say so on the operation."""
        async with self._database.workspace(operation.workspace_id) as session:
            row, _ = await _hold(session, operation)
            facts = facts_of(row)
            if facts is None or not facts.is_finished:
                raise taken_over()
            waiting = await unacknowledged(session, facts)
            grace = int(row.placement["grace_seconds"])
            remaining = row.placement["finished_at"] + grace - datetime.now(UTC).timestamp()
            what = _what_is_waited_for(waiting, facts) if waiting and remaining > 0 else None
            if row.waiting_for != what:
                row.waiting_for = what
                row.version += 1
                await notify(session, row.id)
            return WaitingConsumers(
                consumers=waiting,
                grace_seconds=grace,
                remaining_seconds=math.ceil(max(0.0, remaining)),
            )

    async def begin_retiring(self, operation: SecretOperation) -> str | None:
        """Disable the replaced version, so that nobody takes it up while its target is told.

        Returns:
            Why it is kept; then nothing was changed.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, secret = await _hold(session, operation)
            facts = facts_of(row)
            if facts is None:
                return None
            version = await read_version(session, facts.current)
            if version is None or version.state not in _READABLE:
                return None
            kept_because = await _why_kept(session, secret, facts)
            if kept_because is None and version.state is VersionState.ENABLED:
                await switch_version(session, version, VersionState.DISABLED)
                row.placement = {**row.placement, "disabled": version.id}
                audit_retirement(session, operation, facts, "disable")
            return kept_because

    async def made_current_since(self, operation: SecretOperation) -> VersionPlace | None:
        """Return the version that `current` was moved to after the rotation, if it was."""
        async with self._database.workspace(operation.workspace_id) as session:
            row, secret = await _hold(session, operation)
            facts, number = facts_of(row), current_number(secret)
            if facts is None or number in {None, facts.current_number, facts.pending_number}:
                return None
            version = await find_version_numbered(session, secret.id, number)
            return None if version is None else place_of(version)

    async def keep_after_all(self, operation: SecretOperation) -> None:
        """Enable the replaced version again: its target could not be told to refuse it."""
        async with self._database.workspace(operation.workspace_id) as session:
            row, _ = await _hold(session, operation)
            facts = facts_of(row)
            version = None if facts is None else await read_version(session, facts.current)
            # One that a person has disabled stays so.
            is_ours = version is not None and row.placement.get("disabled") == version.id
            if facts is None or version is None or not is_ours:
                return
            if version.state is VersionState.DISABLED:
                await switch_version(session, version, VersionState.ENABLED)
                audit_retirement(session, operation, facts, "enable")

    async def begin_destroying(self, operation: SecretOperation) -> str | None:
        """Begin the destruction of the replaced version, which its target refuses by now.

        Returns:
            Why it is kept; then nothing was changed.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, secret = await _hold(session, operation)
            facts = facts_of(row)
            version = None if facts is None else await read_version(session, facts.current)
            if facts is None or version is None or version.state not in _READABLE:
                return None
            kept_because = await _why_kept(session, secret, facts)
            if kept_because is None:
                await begin_destroying(session, version)
                # Without the value a repetition could not ask the target again.
                row.placement = {**row.placement, "refused_at": datetime.now(UTC).timestamp()}
                audit_retirement(session, operation, facts, "destroy")
            return kept_because

    async def complete_destroying(self, operation: SecretOperation, place: VersionPlace) -> None:
        """Record that the replaced version's value is proven to be gone."""
        async with self._database.workspace(operation.workspace_id) as session:
            await hold(session, operation)
            await complete_destroying(session, place)

    async def succeed(
        self, operation: SecretOperation, unacknowledged: Sequence[str], kept_because: str | None
    ) -> None:
        """The rotation is over; give the secret's lock back.

        Raises:
            BulkheadError: ABORTED when the operation does not hold the secret's lock.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, owner = await hold(session, operation)
            if row.state is not OperationState.RUNNING:
                return
            facts = facts_of(row)
            if owner is None or owner.active_operation_id != row.id or facts is None:
                raise taken_over()
            row.response = {
                "type": row.type,
                "secret_id": row.owner_id,
                "version_id": facts.pending.version_id,
                "version_number": facts.pending_number,
                "replaced_version_id": facts.current.version_id,
                "replaced_version_number": facts.current_number,
                "retirement": Retirement.KEEP if kept_because else facts.retirement,
                "kept_because": kept_because,
                "unacknowledged_by": list(unacknowledged),
            }
            owner.active_operation_id = None
            await end_operation(session, operation, row, OperationState.SUCCEEDED)


def return_to_before(secret: SecretRow) -> None:
    """Give a secret's lock back after a rotation that is undone."""
    secret.active_operation_id = None


async def _hold(
    session: AsyncSession, operation: SecretOperation
) -> tuple[OperationRow, SecretRow]:
    row, secret = await hold(session, operation)
    if (
        row.state is not OperationState.RUNNING
        or not isinstance(secret, SecretRow)
        or secret.active_operation_id != row.id
    ):
        raise taken_over()
    return row, secret


async def _operation(session: AsyncSession, operation: SecretOperation) -> OperationRow:
    query = select(OperationRow).where(
        OperationRow.id == operation.operation_id, OperationRow.owner_id == operation.secret_id
    )
    row = (await session.exec(query)).one_or_none()
    if row is None:
        raise taken_over()
    return row


async def _enabled(
    session: AsyncSession, secret: SecretRow, number: int | None
) -> SecretVersionRow | None:
    version = None if number is None else await find_version_numbered(session, secret.id, number)
    return version if version is not None and version.state is VersionState.ENABLED else None


async def _enabled_current(session: AsyncSession, secret: SecretRow) -> SecretVersionRow:
    version = await _enabled(session, secret, current_number(secret))
    if version is None:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "The version that `current` points at is not enabled, so there is nothing to rotate "
            "from. Enable it, or move `current`, then rotate again.",
        )
    return version


def _what_is_waited_for(waiting: Sequence[str], facts: RotationFacts) -> str:
    return f"{', '.join(waiting)} to acknowledge version {facts.pending_number}"


async def _why_kept(session: AsyncSession, secret: SecretRow, facts: RotationFacts) -> str | None:
    """Say what still uses the replaced version, if something does."""
    named = [
        f"the alias `{alias}`"
        for alias, number in sorted(secret.aliases.items())
        if number == facts.current_number and alias != PREVIOUS
    ]
    users = [*named, *await pinned(session, facts)]
    if not users:
        return None
    return f"Version {facts.current_number} is used by {', '.join(users)}."
