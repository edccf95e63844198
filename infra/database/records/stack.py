"""A stack's row: who may act on it, how far it is, and what was about to be made for it.

Whoever acts on a stack takes its lease first, which raises `fence`. Each write of a holder names
its fence and fails when another one took the stack over; the tables with Pulumi's own states
refuse such a writer by themselves (migration 0009).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.cloud import Tag, resource_name
from domain.cloud_account import OpenedAs
from domain.errors import BulkheadError, Reason
from domain.inventory import KnownStack
from domain.stack import (
    LEASE_SECONDS,
    MachineShape,
    NetworkShape,
    StackKind,
    StackProgram,
    StackState,
)
from infra.database.engine import Database
from infra.database.queries.stack import networks_of, note_account, visible_stacks
from infra.database.tables import CloudIntentRow, ComputeConfigRow, StackRow


@dataclass(frozen=True, kw_only=True, slots=True)
class StackLease:
    """The right to act on one stack, as long as it is renewed."""

    workspace_id: str
    stack_id: str
    holder: str
    fence: int


class StackRecords:
    """The transactions of one worker on stacks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def plan(self, row: StackRow) -> StackRow:
        """Write a planned stack, and return the one that there is.

        That is another one when the cluster has a network in the place already, or the machine a
        stack: at most one of each exists at a time.
        """
        async with self._database.workspace(row.workspace_id) as session:
            values = row.model_dump(exclude={"created_at", "updated_at"})
            await session.execute(insert(StackRow).values(**values).on_conflict_do_nothing())
            found: StackRow = (await session.exec(_same_stack(row))).one()
            return found

    async def look(self, workspace_id: str, stack_id: str) -> StackRow:
        """Return a stack.

        Raises:
            BulkheadError: NOT_FOUND.
        """
        async with self._database.workspace(workspace_id) as session:
            return await _find(session, stack_id)

    async def network_near(self, server: StackRow) -> StackRow | None:
        """Return the network's stack that a machine's stack is in, or shall be."""
        query = networks_of(server.cluster_id, server.secret_id, server.provider, server.place)
        async with self._database.workspace(server.workspace_id) as session:
            return (await session.exec(query)).one_or_none()

    async def machine_stack_of(self, workspace_id: str, machine_id: str) -> StackRow | None:
        """Return the stack of a machine, unless it was removed."""
        async with self._database.workspace(workspace_id) as session:
            return (
                await session.exec(
                    select(StackRow).where(
                        StackRow.kind == StackKind.MACHINE,
                        StackRow.machine_id == machine_id,
                        StackRow.state != StackState.REMOVED,
                    )
                )
            ).one_or_none()

    async def take_lease(
        self, workspace_id: str, stack_id: str, holder: str, is_gone: Callable[[str], bool]
    ) -> StackLease:
        """Take a stack for `LEASE_SECONDS`; what an earlier holder writes counts no more.

        Args:
            workspace_id: whose stack.
            stack_id: which.
            holder: who takes it, by a name that is never used twice.
            is_gone: tells of a holder whether it is known to have ended.

        Raises:
            BulkheadError: ABORTED, which may be tried again, while another one holds it;
                NOT_FOUND.
        """
        async with self._database.workspace(workspace_id) as session:
            row = await _find(session, stack_id, lock=True)
            now = await _now(session)
            if (
                row.lease_holder is not None
                and row.lease_expires_at is not None
                and row.lease_expires_at > now
                and not is_gone(row.lease_holder)
            ):
                raise _is_held(stack_id)
            row.fence += 1
            row.lease_holder = holder
            row.lease_expires_at = now + timedelta(seconds=LEASE_SECONDS)
            return StackLease(
                workspace_id=workspace_id, stack_id=stack_id, holder=holder, fence=row.fence
            )

    async def renew_lease(self, lease: StackLease) -> None:
        """Keep the stack for `LEASE_SECONDS` from now.

        Raises:
            BulkheadError: ABORTED when another one took it over.
        """
        expires = func.clock_timestamp() + timedelta(seconds=LEASE_SECONDS)
        await self._change(lease, {"lease_expires_at": expires})

    async def release_lease(self, lease: StackLease) -> None:
        """Give the stack back; one that was taken over is left alone.

        The fence grows here too: whatever of a runner may be left writes nothing any more.
        """
        values = {"lease_holder": None, "lease_expires_at": None, "fence": lease.fence + 1}
        async with self._database.workspace(lease.workspace_id) as session:
            await session.execute(_held_by(lease).values(**values))

    async def set_state(
        self,
        lease: StackLease,
        state: StackState,
        *,
        outputs: Mapping[str, Any] | None = None,
        encryption_salt: str | None = None,
    ) -> None:
        """Write how far a stack is; what is None stays as it is.

        Raises:
            BulkheadError: ABORTED when another one took the stack over.
        """
        values: dict[str, Any] = {"state": state, "updated_at": datetime.now(UTC)}
        if outputs is not None:
            values["outputs"] = dict(outputs)
        if encryption_salt is not None:
            values["encryption_salt"] = encryption_salt
        await self._change(lease, values)

    async def intend(
        self, lease: StackLease, operation_id: str, resources: Mapping[str, str]
    ) -> None:
        """Note what is about to be made, before the provider is asked for it.

        Args:
            lease: of the stack.
            operation_id: for which.
            resources: inventory kinds by logical name. What was found once and not removed since
                stays as it was noted.
        """
        rows = [
            {
                "workspace_id": lease.workspace_id,
                "stack_id": lease.stack_id,
                "resource": resource,
                "operation_id": operation_id,
                "kind": kind,
                "name": resource_name(lease.stack_id, resource),
            }
            for resource, kind in resources.items()
        ]
        if not rows:
            return
        statement = insert(CloudIntentRow).values(rows)
        async with self._database.workspace(lease.workspace_id) as session:
            await session.execute(
                statement.on_conflict_do_update(
                    index_elements=["workspace_id", "stack_id", "resource"],
                    set_={
                        "operation_id": statement.excluded.operation_id,
                        "intended_at": func.clock_timestamp(),
                        "cloud_id": None,
                        "found_at": None,
                        "removed_at": None,
                    },
                    where=col(CloudIntentRow.removed_at).is_not(None),
                )
            )

    async def mark_found(
        self, workspace_id: str, stack_id: str, resources: Mapping[str, str]
    ) -> None:
        """Note under which ids the provider has a stack's resources, by logical name."""
        async with self._database.workspace(workspace_id) as session:
            for resource, cloud_id in resources.items():
                await session.execute(
                    update(CloudIntentRow)
                    .where(
                        col(CloudIntentRow.stack_id) == stack_id,
                        col(CloudIntentRow.resource) == resource,
                    )
                    .values(cloud_id=cloud_id, found_at=func.clock_timestamp(), removed_at=None)
                )

    async def note_ids(
        self, workspace_id: str, stack_id: str, resources: Mapping[str, str]
    ) -> None:
        """Note the provider's ids of what a run made that did not make all of it."""
        async with self._database.workspace(workspace_id) as session:
            for resource, cloud_id in resources.items():
                await session.execute(
                    update(CloudIntentRow)
                    .where(
                        col(CloudIntentRow.stack_id) == stack_id,
                        col(CloudIntentRow.resource) == resource,
                        col(CloudIntentRow.removed_at).is_(None),
                    )
                    .values(cloud_id=cloud_id)
                )

    async def mark_removed(
        self, workspace_id: str, stack_id: str, resources: Iterable[str] | None = None
    ) -> None:
        """Note that the provider has these resources no more; None: all of the stack's."""
        query = update(CloudIntentRow).where(
            col(CloudIntentRow.stack_id) == stack_id, col(CloudIntentRow.removed_at).is_(None)
        )
        if resources is not None:
            query = query.where(col(CloudIntentRow.resource).in_(list(resources)))
        async with self._database.workspace(workspace_id) as session:
            await session.execute(query.values(removed_at=func.clock_timestamp()))

    async def intents_of(self, workspace_id: str, stack_id: str) -> list[CloudIntentRow]:
        """Return what was about to be made for a stack, by logical name."""
        async with self._database.workspace(workspace_id) as session:
            query = select(CloudIntentRow).where(CloudIntentRow.stack_id == stack_id)
            return list((await session.exec(query.order_by(col(CloudIntentRow.resource)))).all())

    async def unseen_with(self, stack: StackRow, version_id: str) -> set[str]:
        """Return the stacks of which something must be seen before a credential is believed.

        None of them when it is the version with which the stack was seen last, or when nothing was
        ever found that should still be there.
        """
        if stack.secret_version_id in {None, version_id}:
            return set()
        async with self._database.workspace(stack.workspace_id) as session:
            return await visible_stacks(session, stack)

    async def bound_like(self, stack: StackRow, version_id: str) -> StackRow | None:
        """Return the stack that tells in which account a stack is; None: it may be in any.

        That is itself from its first use on, else one that shares its credential; one that was
        seen with the version that is given is preferred.
        """
        if stack.secret_version_id is not None:
            return stack
        query = (
            select(StackRow)
            .join(ComputeConfigRow, col(ComputeConfigRow.id) == col(StackRow.compute_config_id))
            .where(
                StackRow.secret_id == stack.secret_id,
                StackRow.provider == stack.provider,
                StackRow.state != StackState.REMOVED,
                col(StackRow.secret_version_id).is_not(None),
                # Those are where a person said, which may be elsewhere.
                col(ComputeConfigRow.secret_version_id).is_(None),
            )
            .order_by(
                (col(StackRow.secret_version_id) == version_id).desc(), col(StackRow.id).desc()
            )
            .limit(1)
        )
        async with self._database.workspace(stack.workspace_id) as session:
            return (await session.exec(query)).one_or_none()

    async def note_seen(self, stack: StackRow, opened: OpenedAs) -> None:
        """Say that a stack is in the account that was opened."""
        version_id, account_id = opened.version_id, opened.account_id
        if (stack.secret_version_id, stack.account_id) == (version_id, account_id):
            return
        async with self._database.workspace(stack.workspace_id) as session:
            await note_account(session, stack, version_id, account_id)

    async def _change(self, lease: StackLease, values: Mapping[str, Any]) -> None:
        async with self._database.workspace(lease.workspace_id) as session:
            changed = await session.execute(
                _held_by(lease).values(**values).returning(col(StackRow.id))
            )
            if changed.one_or_none() is None:
                raise taken_over(lease.stack_id)


def known_stack(
    row: StackRow,
    intents: Iterable[CloudIntentRow],
    *,
    has_owner: bool = True,
    has_snapshot: bool = False,
) -> KnownStack:
    """Return what rows say of a stack, for the judgement of what is found of it."""
    intended = list(intents)
    found = [intent for intent in intended if intent.found_at is not None]
    return KnownStack(
        state=row.state,
        has_owner=has_owner,
        has_snapshot=has_snapshot,
        intended={intent.resource: intent.kind for intent in intended},
        made={intent.resource: intent.cloud_id for intent in found if intent.cloud_id},
        whole_at=max((intent.found_at for intent in found if intent.found_at), default=None),
    )


def taken_over(stack_id: str) -> BulkheadError:
    """Return the typed failure of a holder whose stack another one has by now."""
    return BulkheadError(
        Reason.ABORTED,
        f"Another worker took the stack {stack_id} over in the meantime; what this one was about"
        " to do is void.",
        metadata={"stack_id": stack_id},
    )


def _is_held(stack_id: str) -> BulkheadError:
    return BulkheadError(
        Reason.ABORTED,
        f"Another run works on the stack {stack_id}. It is tried again when that one has ended.",
        metadata={"stack_id": stack_id},
        retryable=True,
    )


def _held_by(lease: StackLease) -> Any:  # noqa: ANN401 - SQLAlchemy's Update, without parameters
    return update(StackRow).where(
        col(StackRow.id) == lease.stack_id,
        col(StackRow.fence) == lease.fence,
        col(StackRow.lease_holder) == lease.holder,
    )


def _same_stack(row: StackRow) -> Any:  # noqa: ANN401 - a select of one entity
    if row.kind is StackKind.MACHINE:
        return select(StackRow).where(
            StackRow.kind == row.kind,
            StackRow.state != StackState.REMOVED,
            StackRow.machine_id == row.machine_id,
        )
    return networks_of(row.cluster_id, row.secret_id, row.provider, row.place)


async def _find(session: AsyncSession, stack_id: str, *, lock: bool = False) -> StackRow:
    query = select(StackRow).where(StackRow.id == stack_id)
    row = (await session.exec(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise BulkheadError(
            Reason.NOT_FOUND,
            f"There is no stack {stack_id} in this workspace.",
            metadata={"stack_id": stack_id},
        )
    return row


async def _now(session: AsyncSession) -> datetime:
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return now


def program_of(stack: StackRow) -> StackProgram:
    """Return which program a stack's runner runs, with what."""
    shape = (NetworkShape if stack.kind is StackKind.NETWORK else MachineShape)(**stack.shape)
    return StackProgram(
        workspace_id=stack.workspace_id,
        stack_id=stack.id,
        kind=stack.kind,
        provider=stack.provider,
        shape=shape,
        tags={
            Tag.WORKSPACE: stack.workspace_id,
            Tag.CLUSTER: stack.cluster_id,
            Tag.STACK: stack.id,
        },
    )
