"""Plans repairs of machines within the budget, one keeper at a time on the whole platform."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import func, text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import system_caller
from domain.cloud import Provider
from domain.cluster import ClusterState, HostedControlPlane
from domain.machine import MachineState
from domain.operation import OperationState, OperationType, OwnerType
from domain.owned_operation import TypedOperation
from domain.repair_budget import PAUSE_OF_MACHINE, RepairLoad, Standing, needs_repair, plan_repairs
from infra.database.engine import Database
from infra.database.queries.emergency_stop import stop_of_cluster
from infra.database.records.audit import add_audit_event
from infra.database.records.operation import machine_operation_of, plan_operation
from infra.database.tables import ClusterRow, ComputeConfigRow, MachineRow, OperationRow

REPAIRS: Final = "repair-machines"

_STOPPED: Final = "It waits for its repair: an emergency stop is in force."

# Counting and planning are one step for all keepers of the platform: none of them may count before
# another one's plan is committed.
_ALONE: Final = text("SELECT pg_advisory_xact_lock(hashtext('bulkhead repair budget'))")

_OF_PROVIDERS: Final = text("""
SELECT c.provider, count(*) FROM operations o
JOIN machines m ON m.workspace_id = o.workspace_id AND m.id = o.owner_id
LEFT JOIN compute_configs c ON c.workspace_id = m.workspace_id AND c.id = m.compute_config_id
WHERE o.state = 'RUNNING' AND o.type = 'machine.repair' GROUP BY c.provider
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRepairs:
    """What was planned, to be started after the commit, and why the others have to wait."""

    operations: tuple[TypedOperation, ...]
    withheld: dict[str, str]


class Repairs:
    """Counts with the sweeper's role, and writes in the workspace of the cluster."""

    def __init__(self, database: Database, sweeper: Database) -> None:
        self._database = database
        self._sweeper = sweeper

    async def plan(
        self, cluster: HostedControlPlane, machines: Sequence[Standing], now: datetime
    ) -> PlannedRepairs:
        """Plan what the budget allows for the machines of one cluster.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the database does not answer.
        """
        waiting = [machine.machine_id for machine in machines if needs_repair(machine)]
        if not waiting:
            return PlannedRepairs(operations=(), withheld={})
        async with self._database.workspace(cluster.workspace_id) as session:
            await session.execute(_ALONE)
            row = (
                await session.exec(select(ClusterRow).where(ClusterRow.id == cluster.cluster_id))
            ).one_or_none()
            if row is None or row.state is not ClusterState.ACTIVE:
                return PlannedRepairs(operations=(), withheld={})
            stop = await stop_of_cluster(session, cluster.workspace_id, cluster.cluster_id)
            if stop is not None:
                return PlannedRepairs(operations=(), withheld=dict.fromkeys(waiting, _STOPPED))
            providers = await _providers(session, cluster)
            standings = [
                replace(machine, provider=providers.get(machine.machine_id)) for machine in machines
            ]
            decided = plan_repairs(standings, await self._load(session, cluster), now)
            planned = [
                operation
                for machine_id in decided.repair
                if (operation := await _plan(session, row, machine_id, now)) is not None
            ]
            await session.flush()
            operations = tuple(
                TypedOperation(type=operation.type, operation=machine_operation_of(operation))
                for operation in planned
            )
        return PlannedRepairs(operations=operations, withheld=dict(decided.withheld))

    async def _load(self, session: AsyncSession, cluster: HostedControlPlane) -> RepairLoad:
        query = select(OperationRow.state).where(
            OperationRow.owner_type == OwnerType.MACHINE,
            OperationRow.type == OperationType.MACHINE_REPAIR,
            col(OperationRow.placement)["cluster_id"].astext == cluster.cluster_id,
            (col(OperationRow.state) == OperationState.RUNNING)
            | (col(OperationRow.started_at) > func.now() - PAUSE_OF_MACHINE),
        )
        states = (await session.exec(query)).all()
        async with self._sweeper.transaction() as everywhere:
            found = await everywhere.execute(_OF_PROVIDERS)
            of_provider = {name and Provider(name): count for name, count in found}
        return RepairLoad(
            in_cluster=sum(OperationState(state) is OperationState.RUNNING for state in states),
            in_cluster_within_hour=len(states),
            of_provider=of_provider,
        )


async def _providers(session: AsyncSession, cluster: HostedControlPlane) -> dict[str, Provider]:
    """Return who has the servers of the cluster's machines in clouds."""
    query = (
        select(MachineRow.id, ComputeConfigRow.provider)
        .join(ComputeConfigRow, col(ComputeConfigRow.id) == col(MachineRow.compute_config_id))
        .where(MachineRow.cluster_id == cluster.cluster_id)
    )
    return {machine: Provider(provider) for machine, provider in await session.exec(query)}


async def _plan(
    session: AsyncSession, cluster: ClusterRow, machine_id: str, now: datetime
) -> OperationRow | None:
    machine = (
        await session.exec(
            select(MachineRow)
            .where(
                MachineRow.id == machine_id,
                MachineRow.state == MachineState.ACTIVE,
                col(MachineRow.active_operation_id).is_(None),
                col(MachineRow.credentials_revoked_at).is_(None),
            )
            .with_for_update()
        )
    ).one_or_none()
    if machine is None:
        return None
    kind = OperationType.MACHINE_REPAIR
    caller = system_caller(machine.workspace_id, REPAIRS)
    operation = plan_operation(
        session,
        kind,
        machine,
        caller,
        request={"type": kind, "machine_id": machine.id, "reason": machine.health_reason},
        cluster=cluster,
    )
    machine.repaired_at = now
    details = {"operation_id": operation.id, "health": machine.health}
    add_audit_event(session, caller, kind, "machine", machine.id, details=details)
    return operation
