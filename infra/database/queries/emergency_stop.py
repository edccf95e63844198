"""Which emergency stop covers something, and the stops themselves.

Each `stop_of_*` returns the id of the oldest stop in force; None: nothing is in the way. The
session is one of the workspace that the thing is in.
"""

from dataclasses import dataclass

from sqlalchemy import Function, Text, cast, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.cloud import Provider
from domain.operation import OwnerType
from domain.rollout import StopOwner
from infra.database.tables import EmergencyStopRow, OperationRow


@dataclass(frozen=True, kw_only=True, slots=True)
class HoldingStop:
    """A stop that holds an operation.

    Attributes:
        id: of the stop.
        by: whose it is, as the workspace of the operation sees that.
        reason: that was given; None: that is another workspace's.
    """

    id: str
    by: StopOwner
    reason: str | None


async def stop_of_operation(
    session: AsyncSession, workspace_id: str, operation_id: str, *, takes_back: bool
) -> str | None:
    """Look for a stop of what an operation works on; `takes_back`: of what it has done."""
    return await _ask(session, func.stop_of_operation(workspace_id, operation_id, takes_back))


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


async def stop_that_holds(session: AsyncSession, operation: OperationRow) -> HoldingStop | None:
    """Return which stop holds an operation of the session's workspace, and whose it is.

    What another workspace wrote as its reason stays there, unless it stopped everything.
    """
    workspace_id = operation.workspace_id
    # Who was asked to end only takes back.
    takes_back = operation.cancel_requested_at is not None
    stop_id = await stop_of_operation(session, workspace_id, operation.id, takes_back=takes_back)
    if stop_id is None:
        return None
    row = await find_stop(session, stop_id)
    if row is not None:
        by = StopOwner.WORKSPACE if row.workspace_id == workspace_id else StopOwner.PLATFORM
        return HoldingStop(id=stop_id, by=by, reason=row.reason)
    if operation.owner_type is OwnerType.INSTALL:
        # That of its cluster is the platform's; another one is of its product.
        cluster_id = operation.placement.get("cluster_id", "")
        if await stop_of_cluster(session, workspace_id, cluster_id) != stop_id:
            return HoldingStop(id=stop_id, by=StopOwner.VENDOR, reason=None)
    return HoldingStop(id=stop_id, by=StopOwner.PLATFORM, reason=None)


async def find_stop(
    session: AsyncSession, stop_id: str, *, lock: bool = False
) -> EmergencyStopRow | None:
    """Return a stop that the session's workspace sees."""
    query = select(EmergencyStopRow).where(col(EmergencyStopRow.id) == stop_id)
    return (await session.exec(query.with_for_update() if lock else query)).one_or_none()


async def _ask(session: AsyncSession, call: Function[str | None]) -> str | None:
    found: str | None = (await session.execute(select(call))).scalar_one()
    return found
