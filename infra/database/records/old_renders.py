"""Renders that nobody comes back to: their rows stay, and what is large or secret in them goes.

Called by whoever holds the install for its operation, so that no other operation comes back to one.
"""

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import func, null, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from infra.database.queries.access import act_in
from infra.database.queries.install import IS_CORRECTION
from infra.database.tables import InstallRow, RenderRow, RolloutTargetRow

# Any of these can be looked at and restored. Corrections of drift, of which a day may bring 48,
# are not counted: each repeats another render.
_KEPT: Final = 50

# Of one operation; those that are left are the next one's.
_AT_ONCE: Final = 100

# What a delete needs to know of every render that ever was on the cluster.
_OF_PLAN: Final = ("chart", "cluster_objects")


async def find_old(session: AsyncSession, install: InstallRow, deploying: RenderRow) -> list[str]:
    """Return renders that still hold their objects, and that nothing may need again.

    Needed are the newest, what is deployed, what is being deployed and its source, and what a
    rollout that is taken back returns to.
    """
    needed = {deploying.id, deploying.restored_from_render_id, install.current_render_id}
    if not await _not_among(session, install, needed):
        return []
    await act_in(session, install.package_workspace_id)
    returns_to = select(RolloutTargetRow.from_render_id).where(
        RolloutTargetRow.install_id == install.id
    )
    needed |= set(await session.exec(returns_to))
    await act_in(session, install.workspace_id)
    return await _not_among(session, install, needed)


async def _not_among(
    session: AsyncSession, install: InstallRow, needed: Collection[str | None]
) -> list[str]:
    newest = (
        select(RenderRow.id)
        .where(RenderRow.install_id == install.id, IS_CORRECTION.is_not(True))
        .order_by(col(RenderRow.id).desc())
        .limit(_KEPT)
    )
    query = (
        select(RenderRow.id)
        .where(
            RenderRow.install_id == install.id,
            func.jsonb_typeof(RenderRow.manifest) == "array",
            col(RenderRow.id).not_in(newest),
            col(RenderRow.id).not_in([one for one in needed if one is not None]),
        )
        .order_by(col(RenderRow.id))
        .limit(_AT_ONCE)
    )
    return list(await session.exec(query))


async def empty(session: AsyncSession, render_ids: Sequence[str]) -> None:
    """Take the objects and the plans out of renders, whose Secrets' data are forgotten."""
    plan = col(RenderRow.plan)
    kept = func.jsonb_build_object(*(part for name in _OF_PLAN for part in (name, plan[name])))
    await session.execute(
        update(RenderRow)
        .where(col(RenderRow.id).in_(render_ids))
        .values(manifest=null(), plan=func.jsonb_strip_nulls(kept))
    )
