"""Which emergency stop covers something, and the stops themselves.

Each `stop_of_*` returns the id of the oldest stop in force; None: nothing is in the way. The
session is one of the workspace that the thing is in.
"""

from sqlalchemy import Function, Text, cast, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.cloud import Provider
from infra.database.tables import EmergencyStopRow


async def stop_of_operation(
    session: AsyncSession, workspace_id: str, operation_id: str
) -> str | None:
    """Look for a stop of what an operation works on."""
    return await _ask(session, func.stop_of_operation(workspace_id, operation_id))


async def stop_of_install(session: AsyncSession, workspace_id: str, install_id: str) -> str | None:
    """Look for a stop of an install: of its workspace, product, region, or cluster's providers."""
    return await _ask(session, func.stop_of_install(workspace_id, install_id))


async def stop_of_cluster(session: AsyncSession, workspace_id: str, cluster_id: str) -> str | None:
    """Look for a stop of a cluster; the providers of all its machines count."""
    return await _ask(session, func.stop_of_place(workspace_id, cluster_id, None, None))


async def stop_of_account(
    session: AsyncSession, workspace_id: str, provider: Provider
) -> str | None:
    """Look for a stop of what a workspace has at a provider, whatever its region."""
    return await _ask(session, func.stop_of_account(workspace_id, provider))


async def stop_of_workspace(session: AsyncSession, workspace_id: str) -> str | None:
    """Look for a stop of a whole workspace, or of everything."""
    nothing = cast([], ARRAY(Text))
    return await _ask(session, func.covering_stop(workspace_id, nothing, nothing, None))


async def stop_of_product(session: AsyncSession, workspace_id: str, product_id: str) -> str | None:
    """Look for a stop of a vendor's workspace, or of a product as a whole: of its rollouts."""
    nothing = cast([], ARRAY(Text))
    call = func.covering_stop(workspace_id, nothing, nothing, product_id)
    return await _ask(session, call)


async def find_stop(
    session: AsyncSession, stop_id: str, *, lock: bool = False
) -> EmergencyStopRow | None:
    """Return a stop that the session's workspace sees."""
    query = select(EmergencyStopRow).where(col(EmergencyStopRow.id) == stop_id)
    return (await session.exec(query.with_for_update() if lock else query)).one_or_none()


async def _ask(session: AsyncSession, call: Function[str | None]) -> str | None:
    found: str | None = (await session.execute(select(call))).scalar_one()
    return found
