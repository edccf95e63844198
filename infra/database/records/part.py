"""Operations that are parts of another one: the machines of a pool, or of a replacement.

A part is planned under its parent's lock, started like any other operation, and looked at until it
has ended. What was made is taken back as a person would do it: by deletes, which take over the
locks of whatever still runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.cluster import ClusterState
from domain.compute import Choice
from domain.errors import BulkheadError, Reason
from domain.machine import MachineState
from domain.operation import OperationState, OperationType
from domain.owned_operation import (
    ClusterOperation,
    MachineOperation,
    MachinePoolOperation,
    OwnedOperation,
    TypedOperation,
)
from infra.database.engine import Database
from infra.database.queries.compute import machines_left
from infra.database.records.audit import add_audit_event
from infra.database.records.machine_plan import (
    WantedMachines,
    add_machine,
    fingerprint_of,
    plan_machine,
)
from infra.database.records.operation import (
    end_operation,
    hold,
    owned_operation_of,
    plan_operation,
    request_cancellation,
    taken_over,
)
from infra.database.tables import ClusterRow, MachinePoolRow, MachineRow, OperationRow

# Whose parts are the machines of pools.
PoolsOperation = MachinePoolOperation | ClusterOperation

_REPLACEMENT: Final = "replacement_id"


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """An operation that another one waits for.

    Attributes:
        name: of its machine, for a person.
        reason: why it failed.
        message: the same, in words.
        waiting_for: what it waits for itself.
        begun: its workflow was seen at work.
        unwanted: somebody had its machine deleted meanwhile.
    """

    typed: TypedOperation
    state: OperationState
    name: str
    reason: Reason | None
    message: str
    waiting_for: str | None
    begun: bool
    unwanted: bool

    @property
    def has_failed(self) -> bool:
        """Whether it ended without what was asked for, and not because nobody wants that."""
        failed = (OperationState.FAILED, OperationState.CANCELLED)
        return self.state in failed and not self.unwanted


class PartRecords:
    """The transactions of one worker, in the workspace of the operation at hand."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def look(self, operation: OwnedOperation, kind: OperationType) -> list[Part]:
        """Return the operation's parts of one type, oldest first."""
        async with self._database.workspace(operation.workspace_id) as session:
            query = select(OperationRow).where(
                OperationRow.parent_operation_id == operation.operation_id,
                OperationRow.type == kind,
            )
            rows = (await session.exec(query.order_by(col(OperationRow.id)))).all()
            names = await _names_of(session, [row.owner_id for row in rows])
            taken = select(OperationRow.predecessor_operation_id).where(
                OperationRow.type == OperationType.MACHINE_DELETE,
                col(OperationRow.predecessor_operation_id).in_([row.id for row in rows]),
            )
            unwanted = set((await session.exec(taken)).all())
        return [
            _part(row, names.get(row.owner_id, ""), unwanted=row.id in unwanted) for row in rows
        ]

    async def plan_machines(self, operation: PoolsOperation, pool_ids: Sequence[str]) -> None:
        """Plan the creation of each machine of the pools that has no operation yet.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row = await _hold(session, operation)
            cluster = await session.get_one(ClusterRow, (row.workspace_id, operation.owner_id))
            query = select(MachineRow).where(
                col(MachineRow.pool_id).in_(pool_ids),
                MachineRow.state == MachineState.PROVISIONING,
                col(MachineRow.active_operation_id).is_(None),
            )
            machines = await session.exec(query.order_by(col(MachineRow.id)).with_for_update())
            for machine in machines.all():
                part = plan_machine(
                    session, operation.caller, cluster, machine, parent_operation_id=row.id
                )
                _audit(session, operation, part, machine)
                # Foreign keys between the two are none that the session knows.
                await session.flush()

    async def plan_removals(self, operation: PoolsOperation, pool_ids: Sequence[str]) -> list[str]:
        """Plan deletes of the machines that are there; return those that are not gone yet.

        A cluster that came to be only in part goes with every machine that it has, and takes no
        further ones.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            if isinstance(operation, ClusterOperation):
                _, cluster = await hold(session, operation)
                if isinstance(cluster, ClusterRow) and cluster.state is ClusterState.ACTIVE:
                    cluster.state = ClusterState.PROVISIONING
                of_these = col(MachineRow.cluster_id) == operation.owner_id
            else:
                of_these = col(MachineRow.pool_id).in_(pool_ids)
            await session.execute(
                delete(MachineRow).where(
                    of_these,
                    col(MachineRow.state) == MachineState.PROVISIONING,
                    col(MachineRow.active_operation_id).is_(None),
                )
            )
            left = (await session.exec(select(MachineRow.id).where(of_these))).all()
        return [machine for machine in left if await self._plan_removal(operation, machine)]

    async def pools_are_ready(self, operation: MachinePoolOperation) -> None:
        """Every machine of the pool is ready; the operation has succeeded.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, pool = await hold(session, operation)
            if row.state is not OperationState.RUNNING:
                return
            if not isinstance(pool, MachinePoolRow) or pool.active_operation_id != row.id:
                raise taken_over()
            pool.active_operation_id = None
            pool.version += 1
            query = select(MachineRow.id).where(MachineRow.pool_id == pool.id)
            machines = (await session.exec(query.order_by(MachineRow.id))).all()
            row.response = {"type": row.type, "pool_id": pool.id, "machine_ids": list(machines)}
            await end_operation(session, operation, row, OperationState.SUCCEEDED)

    async def plan_replacement(self, operation: MachineOperation) -> None:
        """Plan the creation of a machine like the operation's own, once.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over; QUOTA_EXCEEDED, worth
                another try, while the cluster has more machines than it may have already.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, machine = await hold(session, operation)
            if not isinstance(machine, MachineRow) or machine.active_operation_id != row.id:
                raise taken_over()
            if _REPLACEMENT in row.placement:
                return
            key = (row.workspace_id, machine.cluster_id)
            # Under it machines are counted.
            cluster = await session.get_one(ClusterRow, key, with_for_update=True)
            await _refuse_second_surplus(session, cluster.id)
            new = add_machine(session, cluster, _like(machine))
            new.pool_id = machine.pool_id
            await session.flush()
            part = plan_machine(session, operation.caller, cluster, new, parent_operation_id=row.id)
            _audit(session, operation, part, new)
            row.placement = {**row.placement, _REPLACEMENT: new.id}

    async def plan_removal_of_replacement(self, operation: MachineOperation) -> bool:
        """Plan that the new machine goes; False: it is not there (any more)."""
        replacement = await self._replacement_of(operation)
        return replacement is not None and await self._plan_removal(operation, replacement)

    async def plan_removal_of_replaced(self, operation: MachineOperation) -> bool:
        """Plan that the old machine goes, with the operation's own lock.

        Returns:
            False when it is gone, or goes by a delete that waits for this operation to end.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            query = select(OperationRow.id).where(
                OperationRow.predecessor_operation_id == operation.operation_id,
                OperationRow.state == OperationState.RUNNING,
            )
            if (await session.exec(query)).first() is not None:
                return False
        return await self._plan_removal(operation, operation.owner_id)

    async def machine_is_replaced(self, operation: MachineOperation) -> None:
        """The new machine does its work and the old one is gone; the operation has succeeded."""
        async with self._database.workspace(operation.workspace_id) as session:
            row, machine = await hold(session, operation)
            if row.state is not OperationState.RUNNING:
                return
            if isinstance(machine, MachineRow) and machine.active_operation_id == row.id:
                raise taken_over()
            row.response = {
                "type": row.type,
                "machine_id": row.placement[_REPLACEMENT],
                "replaced_machine_id": row.owner_id,
            }
            await end_operation(session, operation, row, OperationState.SUCCEEDED)

    async def _replacement_of(self, operation: MachineOperation) -> str | None:
        async with self._database.workspace(operation.workspace_id) as session:
            key = (operation.workspace_id, operation.operation_id)
            row = await session.get_one(OperationRow, key)
            found: str | None = row.placement.get(_REPLACEMENT)
            return found

    async def _plan_removal(self, operation: OwnedOperation, machine_id: str) -> bool:
        """Plan a delete unless one runs; it takes the lock over from whatever else does.

        Returns:
            False when the machine is gone.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            query = select(MachineRow).where(MachineRow.id == machine_id)
            machine = (await session.exec(query.with_for_update())).one_or_none()
            if machine is None:
                return False
            running = machine.active_operation_id
            if running == operation.operation_id:
                # Of a replacement: what it began with is what it hands on.
                running = None
            if running is not None:
                before = await session.get_one(OperationRow, (machine.workspace_id, running))
                if before.type is OperationType.MACHINE_DELETE:
                    return True
                await request_cancellation(session, running, operation.caller.kind)
            cluster = await session.get_one(ClusterRow, (machine.workspace_id, machine.cluster_id))
            machine.state = MachineState.DELETING
            part = plan_operation(
                session,
                OperationType.MACHINE_DELETE,
                machine,
                operation.caller,
                request={"request_fingerprint": fingerprint_of(operation.operation_id, machine_id)},
                predecessor_operation_id=running,
                cluster=cluster,
                parent_operation_id=operation.operation_id,
            )
            _audit(session, operation, part, machine)
            return True


async def _refuse_second_surplus(session: AsyncSession, cluster_id: str) -> None:
    """Let a full cluster have one machine more while another makes way, and no second one."""
    used, limit = await machines_left(session, cluster_id)
    if used > limit:
        raise BulkheadError(
            Reason.QUOTA_EXCEEDED,
            f"The cluster may have {limit} machines in clouds and has {used} while others are "
            "replaced. It is this one's turn when there are fewer, or `max_machines` of its "
            "compute_settings is raised.",
            metadata={"metric": "max_machines", "limit": str(limit), "usage": str(used)},
            retryable=True,
        )


def _like(machine: MachineRow) -> WantedMachines:
    """Return what a machine is and, after that, what it could have been."""
    assert machine.compute_config_id is not None  # noqa: S101 - as every machine in a cloud has
    choices = [Choice(**choice) for choice in machine.choices or []]
    if machine.place is not None and machine.instance_type is not None:
        is_now = Choice(place=machine.place, instance_type=machine.instance_type)
        choices = [is_now, *(choice for choice in choices if choice != is_now)]
    return WantedMachines(
        compute_config_id=machine.compute_config_id, choices=choices, name=machine.name
    )


async def _hold(session: AsyncSession, operation: PoolsOperation) -> OperationRow:
    row, owner = await hold(session, operation)
    if owner is None or owner.active_operation_id != row.id:
        raise taken_over()
    return row


async def _names_of(session: AsyncSession, machine_ids: Sequence[str]) -> dict[str, str]:
    query = select(MachineRow.id, MachineRow.name).where(col(MachineRow.id).in_(machine_ids))
    return {machine: name or "" for machine, name in await session.exec(query)}


def _part(row: OperationRow, name: str, *, unwanted: bool) -> Part:
    error = row.error or row.last_error or {}
    reason = error.get("reason")
    return Part(
        typed=TypedOperation(type=row.type, operation=owned_operation_of(row)),
        state=row.state,
        name=f"{name} ({row.owner_id})" if name else row.owner_id,
        reason=None if reason is None else Reason(reason),
        message=error.get("message", ""),
        waiting_for=row.waiting_for,
        begun=row.workflow_started_at is not None,
        unwanted=unwanted,
    )


def _audit(
    session: AsyncSession, operation: OwnedOperation, part: OperationRow, machine: MachineRow
) -> None:
    add_audit_event(
        session,
        operation.caller,
        part.type,
        "machine",
        machine.id,
        details={"operation_id": part.id, "parent_operation_id": operation.operation_id},
    )
