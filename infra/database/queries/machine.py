"""Machines: found by a person, or by the key of the server itself."""

from collections.abc import Sequence

from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.machine import MachineState
from infra.database.queries.pages import Page, page_of
from infra.database.statements import run_sql
from infra.database.tables import ClusterRow, MachineRow

_ENTER = "SELECT enter_by_identity_key(%(hash)s)"


async def find_machine(
    session: AsyncSession, machine_id: str, *, lock: bool = False
) -> MachineRow | None:
    """Read a machine; with `lock` nobody else changes it before the end of the transaction."""
    query = select(MachineRow).where(MachineRow.id == machine_id)
    if lock:
        query = query.with_for_update(key_share=True)
    return (await session.exec(query)).one_or_none()


async def page_of_machines(
    session: AsyncSession,
    *,
    cluster_id: str | None,
    state: MachineState | None,
    before: str | None,
    limit: int,
) -> Page[MachineRow]:
    """Read a page of machines, newest first, of one cluster and in one state if they are given."""
    conditions = []
    if cluster_id is not None:
        conditions.append(col(MachineRow.cluster_id) == cluster_id)
    if state is not None:
        conditions.append(col(MachineRow.state) == state)
    return await page_of(session, MachineRow, *conditions, before=before, limit=limit)


async def count_machines(session: AsyncSession, cluster_ids: Sequence[str]) -> dict[str, int]:
    """Count the machines of clusters; one without any is left out."""
    cluster = col(MachineRow.cluster_id)
    query = select(cluster, func.count()).where(cluster.in_(cluster_ids)).group_by(cluster)
    return dict((await session.exec(query)).all())


async def ids_of_machines(session: AsyncSession, cluster_id: str, limit: int) -> Sequence[str]:
    """Return the ids of the first machines of a cluster."""
    query = select(MachineRow.id).where(MachineRow.cluster_id == cluster_id).order_by(MachineRow.id)
    return (await session.exec(query.limit(limit))).all()


async def enter_by_key(session: AsyncSession, key_hash: bytes) -> MachineRow | None:
    """Bind the transaction to the workspace of the machine whose identity key has this hash.

    The key is public: whoever calls this goes on only after a signature of it was verified.

    Returns:
        Its row; None when no machine has the key (any more).
    """
    found = (await run_sql(session, _ENTER, {"hash": key_hash})).scalar_one()
    return None if found is None else await find_machine(session, found)


async def find_cluster_to_join(session: AsyncSession, cluster_id: str) -> ClusterRow | None:
    """Read a cluster that stays as it is until a machine has joined it.

    Many machines join at the same time, and none while the cluster's deletion is being asked for.
    """
    query = select(ClusterRow).where(ClusterRow.id == cluster_id).with_for_update(read=True)
    return (await session.exec(query)).one_or_none()
