"""Workspaces, their members and the credentials of workspaces."""

from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from infra.database.tables import ApiTokenRow, RegionRow, WorkspaceRow


async def add_workspace(
    session: AsyncSession, workspace_id: str, name: str, slug: str
) -> WorkspaceRow | None:
    """Insert a workspace; None: the slug is taken, and nothing was written."""
    return (
        await session.execute(
            insert(WorkspaceRow)
            .values(id=workspace_id, name=name, slug=slug, version=1)
            .on_conflict_do_nothing(index_elements=["slug"])
            .returning(WorkspaceRow)
        )
    ).scalar_one_or_none()


async def find_workspace(
    session: AsyncSession, workspace_id: str, *, lock: bool = False
) -> WorkspaceRow | None:
    """Read a workspace that the transaction may see."""
    query = select(WorkspaceRow).where(WorkspaceRow.id == workspace_id)
    if lock:
        # As an update would: rows that only refer to this one are not held up.
        query = query.with_for_update(key_share=True)
    return (await session.exec(query)).one_or_none()


async def first_workspace_id(session: AsyncSession) -> str | None:
    """Return the oldest workspace of those that the transaction's user may see."""
    query = select(WorkspaceRow.id).order_by(WorkspaceRow.id).limit(1)
    return (await session.exec(query)).one_or_none()


async def change_workspace(
    session: AsyncSession, workspace_id: str, changes: dict[str, Any]
) -> WorkspaceRow:
    """Write new values and a new version."""
    row: WorkspaceRow = (
        await session.execute(
            update(WorkspaceRow)
            .where(col(WorkspaceRow.id) == workspace_id)
            .values(**changes, version=WorkspaceRow.version + 1, updated_at=func.now())
            .returning(WorkspaceRow)
            .execution_options(populate_existing=True)
        )
    ).scalar_one()
    return row


async def find_region(session: AsyncSession, region_id: str) -> RegionRow | None:
    """Read a region."""
    query = select(RegionRow).where(RegionRow.id == region_id)
    return (await session.exec(query)).one_or_none()


async def find_api_token_end(session: AsyncSession, token_id: str) -> datetime | None:
    """Return when a workspace's token expires; None: not of itself, or there is none."""
    query = select(ApiTokenRow.expires_at).where(ApiTokenRow.id == token_id)
    return (await session.exec(query)).one_or_none()


async def remove_api_token(session: AsyncSession, token_id: str) -> bool:
    """Revoke a workspace's token at once. False: there is none of that id."""
    removed = await session.execute(
        delete(ApiTokenRow).where(col(ApiTokenRow.id) == token_id).returning(col(ApiTokenRow.id))
    )
    return removed.first() is not None
