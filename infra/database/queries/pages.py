"""One page of a table, newest first, by the id: an index, and stable while rows come and go."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import ColumnElement
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from infra.database.tables import (
    ApiTokenRow,
    AuditEventRow,
    ClusterRow,
    ComputeConfigRow,
    DriftReportRow,
    EmergencyStopRow,
    GrantRow,
    InstallDriftRow,
    InstallRow,
    LeakRow,
    MachineRow,
    OperationRow,
    PackageRow,
    PackageVersionRow,
    ProductRow,
    RegionRow,
    RegistryConnectionRow,
    RenderRow,
    RolloutRow,
    SecretRow,
    SecretVersionRow,
    SuspensionEventRow,
    WorkerBootstrapRow,
    WorkspaceMemberRow,
    WorkspaceRow,
)

Row = TypeVar(
    "Row",
    ApiTokenRow,
    AuditEventRow,
    ClusterRow,
    ComputeConfigRow,
    DriftReportRow,
    EmergencyStopRow,
    GrantRow,
    InstallDriftRow,
    InstallRow,
    LeakRow,
    MachineRow,
    OperationRow,
    PackageRow,
    PackageVersionRow,
    ProductRow,
    RegionRow,
    RegistryConnectionRow,
    RenderRow,
    RolloutRow,
    SecretRow,
    SecretVersionRow,
    SuspensionEventRow,
    WorkerBootstrapRow,
    WorkspaceMemberRow,
    WorkspaceRow,
)


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """The rows, and whether older ones follow the last of them."""

    rows: list[Row]
    has_more: bool


async def page_of(
    session: AsyncSession,
    table: type[Row],
    *conditions: ColumnElement[bool],
    before: str | None,
    limit: int,
) -> Page[Row]:
    """Read the newest `limit` rows that are older than the row `before`."""
    identifier = col(table.id)
    query = select(table).where(*conditions).order_by(identifier.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(identifier < before)
    rows = list(await session.exec(query))
    return Page(rows[:limit], has_more=len(rows) > limit)
