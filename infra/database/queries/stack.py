"""Stacks: who wants a network, and what of it is free."""

from typing import Final

from sqlalchemy import or_, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from domain.cloud import Provider
from domain.errors import BulkheadError, Reason
from domain.machine import MachineState
from domain.stack import StackKind, StackState
from infra.database.tables import (
    CloudIntentRow,
    ComputeConfigRow,
    LeakRow,
    MachineRow,
    StackRow,
)

# Networks of one cluster are 10.100.0.0/20, 10.101.0.0/20 and so on: outside those of pods
# (10.244.0.0/16) and Services (10.96.0.0/16), 4,000 nodes each.
_FIRST_NETWORK: Final = 100
_MOST_NETWORKS: Final = 100

# The output of a network; Hetzner spreads ten servers of a group over hosts, and takes no more.
PLACEMENT_GROUP: Final = "placement_group_id"
_MOST_IN_GROUP: Final = 10

# Of a machine whose server is not there for now, though its place is kept.
SLEEPING: Final = (MachineState.SUSPENDING, MachineState.SUSPENDED, MachineState.RESUMING)


def networks_of(
    cluster_id: str, secret_id: str, provider: Provider, place: str
) -> SelectOfScalar[StackRow]:
    """Select the stack of what a cluster's nodes share in a place of an account, if it is kept."""
    return select(StackRow).where(
        StackRow.kind == StackKind.NETWORK,
        StackRow.cluster_id == cluster_id,
        StackRow.secret_id == secret_id,
        StackRow.provider == provider,
        StackRow.place == place,
        StackRow.state != StackState.REMOVED,
        col(StackRow.released_at).is_(None),
    )


async def free_network(session: AsyncSession, cluster_id: str) -> str:
    """Return the addresses for one more network of a cluster.

    Raises:
        BulkheadError: QUOTA_EXCEEDED when the cluster is in too many places.
    """
    query = select(StackRow).where(
        StackRow.kind == StackKind.NETWORK,
        StackRow.cluster_id == cluster_id,
        StackRow.state != StackState.REMOVED,
    )
    taken = {row.shape.get("cidr") for row in await session.exec(query)}
    for number in range(_FIRST_NETWORK, _FIRST_NETWORK + _MOST_NETWORKS):
        cidr = f"10.{number}.0.0/20"
        if cidr not in taken:
            return cidr
    raise BulkheadError(
        Reason.QUOTA_EXCEEDED,
        f"The cluster has machines in {_MOST_NETWORKS} places; there is no room for another one.",
    )


async def is_group_full(session: AsyncSession, stack: StackRow, group: str | None) -> bool:
    """Tell whether a placement group has no room for a server, which then does without it."""
    query = select(StackRow).where(
        StackRow.kind == StackKind.MACHINE,
        StackRow.cluster_id == stack.cluster_id,
        StackRow.state != StackState.REMOVED,
        StackRow.id != stack.id,
    )
    rows = await session.exec(query)
    others = [row.shape.get("network", {}).get(PLACEMENT_GROUP) for row in rows]
    return group is not None and others.count(group) >= _MOST_IN_GROUP


async def is_wanted(session: AsyncSession, network: StackRow) -> bool:
    """Tell whether a machine is in a network, or shall be, or comes back to it."""
    servers = select(StackRow.id).where(
        StackRow.kind == StackKind.MACHINE,
        StackRow.cluster_id == network.cluster_id,
        StackRow.secret_id == network.secret_id,
        StackRow.provider == network.provider,
        StackRow.place == network.place,
        StackRow.state != StackState.REMOVED,
    )
    sleeping = (
        select(MachineRow.id)
        .join(ComputeConfigRow, col(ComputeConfigRow.id) == col(MachineRow.compute_config_id))
        .where(
            MachineRow.cluster_id == network.cluster_id,
            MachineRow.place == network.place,
            col(MachineRow.state).in_(SLEEPING),
            ComputeConfigRow.secret_id == network.secret_id,
            ComputeConfigRow.provider == network.provider,
        )
    )
    for query in (servers, sleeping):
        if (await session.exec(query.limit(1))).first() is not None:
            return True
    return False


async def visible_stacks(session: AsyncSession, stack: StackRow) -> set[str]:
    """Return the stacks of which something must be where a stack is, as far as rows know.

    Of a run that did not come to its end something may be there although no row knows its id.
    """
    query = (
        select(StackRow.id)
        .join(CloudIntentRow, col(CloudIntentRow.stack_id) == col(StackRow.id))
        .where(
            StackRow.secret_id == stack.secret_id,
            StackRow.provider == stack.provider,
            StackRow.secret_version_id == stack.secret_version_id,
            StackRow.state != StackState.REMOVED,
            col(CloudIntentRow.removed_at).is_(None),
            or_(
                col(CloudIntentRow.cloud_id).is_not(None),
                col(StackRow.state) == StackState.CHANGING,
            ),
        )
    )
    leaks = select(LeakRow.stack_id).where(
        LeakRow.provider == stack.provider,
        LeakRow.secret_version_id == stack.secret_version_id,
        col(LeakRow.resolved_at).is_(None),
    )
    left = {stack_id for stack_id in await session.exec(leaks) if stack_id is not None}
    return {*(await session.exec(query)).all(), *left}


async def note_account(
    session: AsyncSession, stack: StackRow, version_id: str, account_id: str | None
) -> None:
    """Say in which account a stack is, and with it what was seen with the version of before."""
    values = {"secret_version_id": version_id, "account_id": account_id}
    query = update(StackRow).where(col(StackRow.secret_id) == stack.secret_id)
    if stack.secret_version_id is None:
        await session.execute(query.where(col(StackRow.id) == stack.id).values(**values))
        return
    query = query.where(
        col(StackRow.provider) == stack.provider,
        col(StackRow.secret_version_id) == stack.secret_version_id,
    )
    await session.execute(query.values(**values))
    leaks = update(LeakRow).where(
        col(LeakRow.provider) == stack.provider,
        col(LeakRow.secret_version_id) == stack.secret_version_id,
    )
    await session.execute(leaks.values(**values))
