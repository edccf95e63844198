"""Clusters, and their places on control-plane hosts."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.names import api_server_port_of
from domain.operation import OperationType
from domain.quota import QUOTAS, QuotaMetric
from infra.database.queries.quota import Quota
from infra.database.statements import run_sql
from infra.database.tables import ClusterRow, OperationRow

_ADMIT = (
    "SELECT region_known, host, slot, used, quota"
    " FROM admit_cluster(%(cluster)s, %(region)s, %(memory)s)"
)
_CLAIM = text("SELECT claim_slot_memory(:cluster, :memory)")
_ENDPOINT = text("SELECT address, first_port, slot FROM api_endpoint_of(:cluster)")


@dataclass(frozen=True, slots=True)
class Place:
    """The host and the slot of a cluster's control plane."""

    host: str
    slot: int


@dataclass(frozen=True, slots=True)
class Admission:
    """What decides about a new cluster; without a place no host has room for it."""

    region_known: bool
    place: Place | None
    quota: Quota


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What the address of a cluster's API server is made of."""

    address: str
    first_port: int
    slot: int

    @property
    def url(self) -> str:
        """Where the API server is."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"https://{host}:{api_server_port_of(self.first_port, self.slot)}"


async def find_cluster(
    session: AsyncSession, cluster_id: str, *, lock: bool = False
) -> ClusterRow | None:
    """Read a cluster; with `lock` nobody else changes it before the end of the transaction."""
    query = select(ClusterRow).where(ClusterRow.id == cluster_id)
    if lock:
        # As an update would: rows that only refer to this one are not held up.
        query = query.with_for_update(key_share=True)
    return (await session.exec(query)).one_or_none()


async def admit_cluster(
    session: AsyncSession, cluster_id: str, region_id: str, memory_bytes: int
) -> Admission:
    """Set a place aside for a new cluster, and count what its workspace has.

    Other placements wait until this transaction ends, so that the count is exact. Whoever does not
    accept the answer rolls the transaction back, and the place with it.
    """
    found = (
        await run_sql(
            session,
            _ADMIT,
            {"cluster": cluster_id, "region": region_id, "memory": memory_bytes},
        )
    ).one()
    default = QUOTAS[QuotaMetric.CLUSTERS].default_limit
    return Admission(
        region_known=found.region_known,
        place=None if found.host is None else Place(found.host, found.slot),
        quota=Quota(
            QuotaMetric.CLUSTERS,
            limit=default if found.quota is None else found.quota,
            usage=found.used or 0,
        ),
    )


async def claim_slot_memory(session: AsyncSession, cluster_id: str, memory_bytes: int) -> bool:
    """Set memory aside for a placed cluster; False: its host has no room."""
    claimed = await session.execute(_CLAIM, {"cluster": cluster_id, "memory": memory_bytes})
    return bool(claimed.scalar_one())


async def find_resumption(session: AsyncSession, cluster_id: str) -> OperationRow | None:
    """Return the last operation that has resumed a cluster, or does."""
    query = (
        select(OperationRow)
        .where(
            OperationRow.owner_id == cluster_id, OperationRow.type == OperationType.CLUSTER_RESUME
        )
        .order_by(col(OperationRow.id).desc())
        .limit(1)
    )
    return (await session.exec(query)).one_or_none()


async def find_endpoint(session: AsyncSession, cluster_id: str) -> Endpoint | None:
    """Read where clients reach the API server of a placed cluster."""
    found = (await session.execute(_ENDPOINT, {"cluster": cluster_id})).first()
    return None if found is None else Endpoint(found.address, found.first_port, found.slot)
