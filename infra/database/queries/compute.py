"""Compute: accounts, rules and limits, what uses a credential, and what was found in accounts."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.cloud import Provider
from domain.compute import DEFAULT_MAXIMUM_MACHINES
from domain.machine import MachineKind
from domain.operation import OperationType
from domain.stack import StackState
from infra.database.queries.secret import select_readable
from infra.database.statements import run_sql
from infra.database.tables import (
    ClusterComputeRow,
    ComputeConfigRow,
    ComputePolicyRow,
    DriftReportRow,
    InventoryRow,
    LeakRow,
    MachineRow,
    SecretRow,
    SecretVersionRow,
    StackRow,
    SuspensionEventRow,
)

# Asked with each new version of a secret, nearly always in vain.
_WAITERS = """
SELECT o.type, o.owner_id, o.id FROM operations o
JOIN machines m ON m.workspace_id = o.workspace_id AND m.id = o.owner_id
JOIN compute_configs c ON c.workspace_id = m.workspace_id AND c.id = m.compute_config_id
WHERE o.state = 'RUNNING' AND o.waiting_for = 'credential' AND o.owner_type = 'machine'
    AND c.secret_id = %(secret)s
UNION ALL
SELECT o.type, o.owner_id, o.id FROM operations o
WHERE o.state = 'RUNNING' AND o.waiting_for = 'new_value' AND o.owner_type = 'secret'
    AND o.placement -> 'settings' ->> 'new_token_secret_id' = %(secret)s
"""


@dataclass(frozen=True, slots=True)
class Waiter:
    """An operation that waits for another version of a secret."""

    type: OperationType
    owner_id: str
    operation_id: str


@dataclass(frozen=True, slots=True)
class Uses:
    """What still needs the account of a compute config, as many of each as were asked for."""

    machine_ids: Sequence[str]
    stack_ids: Sequence[str]
    leak_ids: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.machine_ids or self.stack_ids or self.leak_ids)


async def find_config(
    session: AsyncSession, config_id: str, *, lock: bool = False, keep: bool = False
) -> ComputeConfigRow | None:
    """Read a compute config.

    Args:
        session: the transaction.
        config_id: which one.
        lock: nobody else changes it before the end of the transaction.
        keep: it stays as it is until then, and others may keep it too.
    """
    query = select(ComputeConfigRow).where(ComputeConfigRow.id == config_id)
    if lock or keep:
        query = query.with_for_update(read=not lock, key_share=lock)
    return (await session.exec(query)).one_or_none()


async def find_configs(
    session: AsyncSession, config_ids: Sequence[str]
) -> dict[str, ComputeConfigRow]:
    """Read compute configs by their ids."""
    query = select(ComputeConfigRow).where(col(ComputeConfigRow.id).in_(config_ids))
    return {row.id: row for row in await session.exec(query)}


async def uses_of_config(session: AsyncSession, config_id: str, limit: int) -> Uses:
    """Return what needs a config's account: machines, stacks that are not gone, open leaks."""
    machines = select(MachineRow.id).where(MachineRow.compute_config_id == config_id)
    stacks = select(StackRow.id).where(
        StackRow.compute_config_id == config_id, StackRow.state != StackState.REMOVED
    )
    leaks = select(LeakRow.id).where(
        LeakRow.compute_config_id == config_id, col(LeakRow.resolved_at).is_(None)
    )
    return Uses(
        (await session.exec(machines.order_by(MachineRow.id).limit(limit))).all(),
        (await session.exec(stacks.order_by(StackRow.id).limit(limit))).all(),
        (await session.exec(leaks.order_by(LeakRow.id).limit(limit))).all(),
    )


async def configs_in_use(session: AsyncSession, secret_id: str) -> Sequence[ComputeConfigRow]:
    """Return the compute configs of a secret with which machines, stacks or open leaks exist."""
    config = col(ComputeConfigRow.id)
    has_machine = select(MachineRow.id).where(col(MachineRow.compute_config_id) == config).exists()
    has_stack = (
        select(StackRow.id)
        .where(col(StackRow.compute_config_id) == config, StackRow.state != StackState.REMOVED)
        .exists()
    )
    has_leak = (
        select(LeakRow.id)
        .where(col(LeakRow.compute_config_id) == config, col(LeakRow.resolved_at).is_(None))
        .exists()
    )
    query = select(ComputeConfigRow).where(
        ComputeConfigRow.secret_id == secret_id, has_machine | has_stack | has_leak
    )
    return (await session.exec(query.order_by(config))).all()


async def select_credential(
    session: AsyncSession, secret_id: str, selector: str
) -> tuple[SecretRow, SecretVersionRow]:
    """Return the version with which a compute config works.

    Also after its secret's end, while anything exists that nobody could remove without it.

    Raises:
        BulkheadError: as `select_readable`.
    """
    is_needed = bool(await configs_in_use(session, secret_id))
    return await select_readable(session, secret_id, selector, past_end=is_needed)


async def allowed_places(session: AsyncSession) -> list[str] | None:
    """Return where the transaction's workspace lets machines and snapshots be; None: everywhere.

    As `domain.compute.allowed_place` names places.
    """
    row = await find_policy(session)
    return None if row is None else row.allowed_places


async def find_policy(session: AsyncSession) -> ComputePolicyRow | None:
    """Read the rules of the transaction's workspace."""
    return (await session.exec(select(ComputePolicyRow))).one_or_none()


async def find_settings(session: AsyncSession, cluster_id: str) -> ClusterComputeRow | None:
    """Read a cluster's limits, if they were ever set."""
    query = select(ClusterComputeRow).where(ClusterComputeRow.cluster_id == cluster_id)
    return (await session.exec(query)).one_or_none()


async def machines_left(session: AsyncSession, cluster_id: str) -> tuple[int, int]:
    """Return how many machines a cluster has in clouds, and how many it may have.

    Exact for who holds the cluster's row lock, since each of them is added under it.
    """
    settings = await find_settings(session, cluster_id)
    limit = DEFAULT_MAXIMUM_MACHINES if settings is None else settings.max_machines
    return await count_cloud_machines(session, cluster_id), limit


async def count_cloud_machines(session: AsyncSession, cluster_id: str) -> int:
    """Count the machines that the platform made, or makes, for a cluster in clouds."""
    query = select(func.count()).where(
        MachineRow.cluster_id == cluster_id, MachineRow.kind == MachineKind.CLOUD
    )
    return (await session.exec(query)).one()


async def find_suspension(
    session: AsyncSession, machine_id: str, event_id: str
) -> SuspensionEventRow | None:
    """Read a suspension of a machine."""
    query = select(SuspensionEventRow).where(
        SuspensionEventRow.machine_id == machine_id, SuspensionEventRow.id == event_id
    )
    return (await session.exec(query)).one_or_none()


async def find_drift_report(
    session: AsyncSession, machine_id: str, report_id: str
) -> DriftReportRow | None:
    """Read a drift report of a machine."""
    query = select(DriftReportRow).where(
        DriftReportRow.machine_id == machine_id, DriftReportRow.id == report_id
    )
    return (await session.exec(query)).one_or_none()


@dataclass(frozen=True, slots=True)
class ShownSuspension:
    """A suspension, and at which provider its snapshot is; None: the config is gone."""

    event: SuspensionEventRow
    provider: Provider | None


async def suspensions_of(
    session: AsyncSession, machines: Sequence[MachineRow]
) -> dict[str, ShownSuspension]:
    """Return the suspension that each machine is in, by the machine's id."""
    wanted = [machine.suspension_id for machine in machines if machine.suspension_id is not None]
    if not wanted:
        return {}
    configs = await find_configs(session, [each.compute_config_id or "" for each in machines])
    providers = {
        machine.id: configs[machine.compute_config_id].provider
        for machine in machines
        if machine.compute_config_id in configs
    }
    query = select(SuspensionEventRow).where(col(SuspensionEventRow.id).in_(wanted))
    return {
        event.machine_id: ShownSuspension(event, providers.get(event.machine_id))
        for event in await session.exec(query)
    }


async def latest_inventory(
    session: AsyncSession, *, machine_id: str | None = None, operation_id: str | None = None
) -> InventoryRow | None:
    """Return the last inventory of a machine or of an operation, also when the machine is gone."""
    query = select(InventoryRow)
    if machine_id is not None:
        query = query.where(InventoryRow.machine_id == machine_id)
    if operation_id is not None:
        query = query.where(InventoryRow.operation_id == operation_id)
    return (await session.exec(query.order_by(col(InventoryRow.id).desc()).limit(1))).first()


async def find_waiters(session: AsyncSession, secret_id: str) -> Sequence[Waiter]:
    """Return the operations that wait for another version of a secret."""
    found = await run_sql(session, _WAITERS, {"secret": secret_id})
    return [Waiter(OperationType(row.type), row.owner_id, row.id) for row in found]
