"""Installs, their renders, and the grants by which vendors may move them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import and_, func, text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from domain.cluster import ClusterState
from domain.install import RenderState
from domain.install_drift import CORRECTION_MESSAGE
from domain.rollout_strategy import Check
from infra.database.queries.pages import Page, page_of
from infra.database.tables import (
    ClusterRow,
    GrantRow,
    InstallDriftRow,
    InstallRow,
    RenderRow,
    RolloutPreviewRow,
)

_CUSTOMERS: Final = text("SELECT id, name FROM customers_of_vendor(:workspaces)")
_WAITING: Final = text(
    "SELECT install_id, rollout_id, version_id, semver, checks"
    " FROM versions_that_wait_for_consent(:installs)"
)

# Whether a render is one that corrects drift; people may say the same of one of theirs.
IS_CORRECTION: Final = and_(
    col(RenderRow.message) == CORRECTION_MESSAGE,
    col(RenderRow.restored_from_render_id).is_not(None),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitingVersion:
    """A version that a vendor's rollout brings once its customer agrees to it.

    `checks` are those that the rollout then makes inside the install's cluster, as a request had
    them.
    """

    id: str
    semver: str
    rollout_id: str
    checks: list[dict[str, Any]]


async def find_install(
    session: AsyncSession, install_id: str, *, lock: bool = False
) -> InstallRow | None:
    """Read an install; with `lock` nobody else changes it before the end of the transaction."""
    query = select(InstallRow).where(InstallRow.id == install_id)
    if lock:
        query = query.with_for_update(key_share=True)
    return (await session.exec(query)).one_or_none()


async def page_of_installs(
    session: AsyncSession, *, product_id: str | None, before: str | None, limit: int
) -> Page[InstallRow]:
    """Read a page of the workspace's own installs, newest first, of one product if it is given."""
    conditions = [] if product_id is None else [col(InstallRow.product_id) == product_id]
    return await page_of(session, InstallRow, *conditions, before=before, limit=limit)


async def ids_of_installs(session: AsyncSession, cluster_id: str, limit: int) -> Sequence[str]:
    """Return the ids of the first installs of a cluster."""
    query = select(InstallRow.id).where(InstallRow.cluster_id == cluster_id).order_by(InstallRow.id)
    return (await session.exec(query.limit(limit))).all()


async def granted_installs(
    session: AsyncSession, vendor_workspace_id: str, product_id: str, before: str | None, limit: int
) -> Sequence[GrantRow]:
    """Return what customers granted of a vendor's product, by the install's id, newest first.

    Installs that have reached no version yet are left out: there is nothing to be seen of them.
    """
    install_id = col(GrantRow.install_id)
    query = (
        select(GrantRow)
        .where(
            GrantRow.vendor_workspace_id == vendor_workspace_id,
            GrantRow.workspace_id != vendor_workspace_id,
            GrantRow.product_id == product_id,
            col(GrantRow.revoked_at).is_(None),
            col(GrantRow.current_version_id).is_not(None),
        )
        .order_by(install_id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(install_id < before)
    return (await session.exec(query)).all()


async def find_granted_install(
    session: AsyncSession, vendor_workspace_id: str, install_id: str
) -> GrantRow | None:
    """Return the grant in force of another workspace's install, once that has a version."""
    query = select(GrantRow).where(
        GrantRow.install_id == install_id,
        GrantRow.vendor_workspace_id == vendor_workspace_id,
        GrantRow.workspace_id != vendor_workspace_id,
        col(GrantRow.revoked_at).is_(None),
        col(GrantRow.current_version_id).is_not(None),
    )
    return (await session.exec(query)).one_or_none()


async def names_of_customers(
    session: AsyncSession, workspace_ids: Collection[str]
) -> dict[str, str]:
    """Return the names of those of the workspaces that gave the caller's a grant in force."""
    if not workspace_ids:
        return {}
    found = await session.execute(_CUSTOMERS, {"workspaces": list(workspace_ids)})
    return {row.id: row.name for row in found}


async def find_render(session: AsyncSession, install_id: str, render_id: str) -> RenderRow | None:
    """Read a render of an install."""
    query = select(RenderRow).where(RenderRow.id == render_id, RenderRow.install_id == install_id)
    return (await session.exec(query)).one_or_none()


async def find_rollout_preview(session: AsyncSession, install_id: str) -> RolloutPreviewRow | None:
    """Read what a rollout planned last for an install of the session's workspace."""
    query = select(RolloutPreviewRow).where(RolloutPreviewRow.install_id == install_id)
    return (await session.exec(query)).one_or_none()


async def last_operation_deployed(session: AsyncSession, install_id: str) -> str | None:
    """Return the operation by which an install became what it is; None: nothing was deployed.

    A correction of drift brings back what was there, and does not count; nor does a render that
    came to what was deployed already, of the same version and values.
    """
    age = col(RenderRow.id)
    version, values = col(RenderRow.package_version_id), col(RenderRow.values)
    changed_nothing = and_(
        col(RenderRow.state) == RenderState.SKIPPED,
        version == func.lag(version).over(order_by=age),
        values == func.lag(values).over(order_by=age),
    )
    became = (
        select(RenderRow.id, RenderRow.operation_id, changed_nothing.label("changed_nothing"))
        .where(
            RenderRow.install_id == install_id,
            col(RenderRow.state).in_([RenderState.DEPLOYED, RenderState.SKIPPED]),
            IS_CORRECTION.is_not(True),
        )
        .subquery()
    )
    query = (
        select(became.c.operation_id)
        .where(became.c.changed_nothing.is_not(True))
        .order_by(became.c.id.desc())
        .limit(1)
    )
    return (await session.exec(query)).one_or_none()


async def page_of_renders(
    session: AsyncSession, install_id: str, *, before: str | None, limit: int
) -> Page[RenderRow]:
    """Read a page of an install's renders, newest first."""
    condition = col(RenderRow.install_id) == install_id
    return await page_of(session, RenderRow, condition, before=before, limit=limit)


async def page_of_findings(
    session: AsyncSession, install_id: str, *, before: str | None, limit: int
) -> Page[InstallDriftRow]:
    """Read a page of an install's drift findings, newest first."""
    condition = col(InstallDriftRow.install_id) == install_id
    return await page_of(session, InstallDriftRow, condition, before=before, limit=limit)


async def find_grant(
    session: AsyncSession, grant_id: str, *, lock: bool = False
) -> GrantRow | None:
    """Read a grant that the workspace gave or got; only one that it gave can be locked."""
    query = select(GrantRow).where(GrantRow.id == grant_id)
    if lock:
        query = query.with_for_update(key_share=True)
    return (await session.exec(query)).one_or_none()


async def find_grant_in_force(session: AsyncSession, install_id: str) -> GrantRow | None:
    """Lock the grant in force of one of the workspace's own installs."""
    query = (
        select(GrantRow)
        .where(GrantRow.install_id == install_id, col(GrantRow.revoked_at).is_(None))
        .with_for_update(key_share=True)
    )
    return (await session.exec(query)).one_or_none()


async def versions_that_wait(
    session: AsyncSession, install_ids: Collection[str]
) -> dict[str, WaitingVersion]:
    """Return what waits for the consent of the session's workspace, by the install's id."""
    if not install_ids:
        return {}
    found = await session.execute(_WAITING, {"installs": list(install_ids)})
    return {
        row.install_id: WaitingVersion(
            id=row.version_id,
            semver=row.semver,
            rollout_id=row.rollout_id,
            checks=[each for each in row.checks or () if Check.from_json(each).in_cluster],
        )
        for row in found
    }


async def page_of_grants(
    session: AsyncSession,
    *,
    install_id: str | None,
    product_id: str | None,
    before: str | None,
    limit: int,
) -> Page[GrantRow]:
    """Read a page of the grants that the workspace gave or got, newest first."""
    conditions = []
    if install_id is not None:
        conditions.append(col(GrantRow.install_id) == install_id)
    if product_id is not None:
        conditions.append(col(GrantRow.product_id) == product_id)
    return await page_of(session, GrantRow, *conditions, before=before, limit=limit)


async def find_cluster_to_use(session: AsyncSession, cluster_id: str) -> ClusterRow | None:
    """Read a cluster whose state does not change before the end of the transaction."""
    query = select(ClusterRow).where(ClusterRow.id == cluster_id)
    return (await session.exec(_held(query))).one_or_none()


async def find_cluster_of_install(session: AsyncSession, install_id: str) -> ClusterRow | None:
    """Read an install's cluster as `find_cluster_to_use` does; None: there is no such install."""
    query = (
        select(ClusterRow)
        .join(
            InstallRow,
            and_(
                col(InstallRow.workspace_id) == col(ClusterRow.workspace_id),
                col(InstallRow.cluster_id) == col(ClusterRow.id),
            ),
        )
        .where(InstallRow.id == install_id)
    )
    return (await session.exec(_held(query))).one_or_none()


def _held(query: SelectOfScalar[ClusterRow]) -> SelectOfScalar[ClusterRow]:
    # What the session has read before may be older.
    return query.with_for_update(read=True, of=ClusterRow).execution_options(populate_existing=True)


async def clusters_of_region(session: AsyncSession, region_id: str) -> Sequence[ClusterRow]:
    """Return the active clusters of a region: those with the fewest installs first."""
    installs = (
        select(func.count())
        .where(
            InstallRow.workspace_id == ClusterRow.workspace_id,
            InstallRow.cluster_id == ClusterRow.id,
        )
        .correlate(ClusterRow)
        .scalar_subquery()
    )
    query = (
        select(ClusterRow)
        .where(ClusterRow.region_id == region_id, ClusterRow.state == ClusterState.ACTIVE)
        .order_by(installs, col(ClusterRow.id))
    )
    return (await session.exec(query)).all()
