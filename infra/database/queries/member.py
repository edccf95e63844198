"""Who belongs to a workspace, and which of its tokens they made."""

from typing import Final

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import Role
from domain.identifiers import Prefix, new_id
from infra.database.statements import run_sql
from infra.database.tables import WorkspaceMemberRow

# Through tokens that are gone too: then the audit log alone knows who made what.
_REMOVE_TOKENS: Final = """
WITH RECURSIVE link AS (
    SELECT id, created_by AS maker FROM api_tokens WHERE workspace_id = %(workspace)s
    UNION ALL
    SELECT resource_id, actor_id FROM audit_events
        WHERE workspace_id = %(workspace)s AND action = 'api_token.create' AND outcome = 'allowed'
), made(id) AS (
    SELECT CAST(%(user)s AS text)
    UNION
    SELECT link.id FROM link JOIN made ON link.maker = made.id
)
DELETE FROM api_tokens WHERE workspace_id = %(workspace)s AND id IN (SELECT id FROM made)
RETURNING id
"""


async def find_member(
    session: AsyncSession, workspace_id: str, user_id: str
) -> WorkspaceMemberRow | None:
    """Read a member."""
    query = select(WorkspaceMemberRow).where(
        WorkspaceMemberRow.workspace_id == workspace_id, WorkspaceMemberRow.user_id == user_id
    )
    return (await session.exec(query)).one_or_none()


async def insert_member(
    session: AsyncSession, workspace_id: str, user_id: str, role: Role
) -> WorkspaceMemberRow | None:
    """Insert a member; None: the user is one already."""
    return (
        await session.execute(
            insert(WorkspaceMemberRow)
            .values(workspace_id=workspace_id, user_id=user_id, id=new_id(Prefix.MEMBER), role=role)
            .on_conflict_do_nothing(index_elements=["workspace_id", "user_id"])
            .returning(WorkspaceMemberRow)
        )
    ).scalar_one_or_none()


async def count_owners(session: AsyncSession, workspace_id: str) -> int:
    """Count a workspace's owners."""
    query = select(func.count()).where(
        WorkspaceMemberRow.workspace_id == workspace_id, WorkspaceMemberRow.role == Role.OWNER
    )
    return (await session.exec(query)).one()


async def names_of_members(session: AsyncSession) -> dict[str, str]:
    """Return the names of the users who belong to the transaction's workspace, by their ids."""
    found = await run_sql(session, "SELECT member, name FROM member_names()", {})
    return {row.member: row.name for row in found}


async def remove_tokens_made_by(session: AsyncSession, member: WorkspaceMemberRow) -> list[str]:
    """Revoke the workspace's tokens that a member made, and those that these made, and so on."""
    found = await run_sql(
        session, _REMOVE_TOKENS, {"workspace": member.workspace_id, "user": member.user_id}
    )
    return sorted(row.id for row in found)
