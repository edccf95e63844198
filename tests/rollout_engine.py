"""An engine for rollouts that moves rows instead of charts.

What it does is kept in tables of its own, so that a worker may be killed at any moment and another
process sees what it did.
"""

import asyncio
from collections.abc import Awaitable, Callable

from sqlalchemy import text
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.install import RenderState
from domain.rollout import Obstacle
from domain.rollout_strategy import Check, Target
from infra.database.engine import Database
from infra.database.tables import (
    ClusterRow,
    InstallRow,
    RenderRow,
)
from infra.rollouts.engine import MoveEnd, MoveOrder, TargetSubject

# A schema of their own: what the product stores is listed by the tables of the others.
LAB_TABLES = """
CREATE SCHEMA IF NOT EXISTS lab;
CREATE TABLE IF NOT EXISTS lab.operations (
    id text PRIMARY KEY, workspace_id text NOT NULL, install_id text NOT NULL,
    rollout_id text NOT NULL, version_id text NOT NULL, restored_from text,
    approved_digest text, effects integer NOT NULL DEFAULT 0, failed boolean,
    cancelled boolean NOT NULL DEFAULT false,
    planned_at timestamptz NOT NULL DEFAULT clock_timestamp(), ended_at timestamptz);
CREATE TABLE IF NOT EXISTS lab.settings (
    queue text PRIMARY KEY, seconds double precision NOT NULL, gate_open boolean NOT NULL);
CREATE TABLE IF NOT EXISTS lab.failures (install_id text NOT NULL, version_id text NOT NULL);
CREATE TABLE IF NOT EXISTS lab.looks (install_id text NOT NULL, kind text NOT NULL);
CREATE TABLE IF NOT EXISTS lab.answers (
    install_id text NOT NULL, kind text NOT NULL, answer text NOT NULL);
CREATE TABLE IF NOT EXISTS lab.waits (install_id text PRIMARY KEY, waits_for text NOT NULL);
CREATE TABLE IF NOT EXISTS lab.plans (install_id text PRIMARY KEY, digest text NOT NULL);
GRANT USAGE ON SCHEMA lab TO bulkhead_worker;
GRANT ALL ON ALL TABLES IN SCHEMA lab TO bulkhead_worker;
"""


class LabEngine:
    """Moves the version of an install's row; takes as long, and fails, as the lab says."""

    def __init__(self, database: Database, queue: str) -> None:
        self._database = database
        self._queue = queue

    async def plan(
        self, session: AsyncSession, install: InstallRow, cluster: ClusterRow, order: MoveOrder
    ) -> str:
        """Lock the install for an operation of the lab."""
        del cluster
        operation_id = new_id(Prefix.OPERATION)
        await session.execute(
            text(
                "INSERT INTO lab.operations (id, workspace_id, install_id, rollout_id, version_id,"
                " restored_from, approved_digest) VALUES (:id, :workspace, :install, :rollout,"
                " :version, :restored, :digest)"
            ),
            {
                "id": operation_id,
                "workspace": install.workspace_id,
                "install": install.id,
                "rollout": order.rollout_id,
                "version": order.version_id,
                "restored": order.restored_from,
                "digest": order.approved_plan_digest,
            },
        )
        install.active_operation_id = operation_id
        return operation_id

    async def look(self, workspace_id: str, operation_id: str) -> MoveEnd | Obstacle | None:
        """Let the time of the operation pass, and have its effect if nobody had it before."""
        async with self._database.transaction() as session:
            query = text(
                "SELECT seconds, gate_open, waits_for, cancelled FROM lab.settings, lab.operations"
                " o LEFT JOIN lab.waits w USING (install_id) WHERE queue = :queue AND o.id = :id"
            )
            found = await session.execute(query, {"queue": self._queue, "id": operation_id})
            settings = found.one()
        if settings.waits_for is not None and not settings.cancelled:
            return Obstacle(settings.waits_for)
        await asyncio.sleep(settings.seconds)
        if not settings.gate_open:
            await asyncio.sleep(0.05)
            return None
        async with self._database.workspace(workspace_id) as session:
            return await _have_effect(session, operation_id)

    async def cancel(self, workspace_id: str, operation_id: str) -> None:
        """Have an operation fail that waits for something."""
        del workspace_id
        async with self._database.transaction() as session:
            query = text("UPDATE lab.operations SET cancelled = true WHERE id = :id")
            await session.execute(query, {"id": operation_id})


async def _have_effect(session: AsyncSession, operation_id: str) -> MoveEnd:
    found = await session.execute(
        text(
            "SELECT o.*, EXISTS (SELECT FROM lab.failures f WHERE f.install_id = o.install_id"
            " AND f.version_id = o.version_id) AS fails FROM lab.operations o WHERE o.id = :id"
            " FOR UPDATE OF o"
        ),
        {"id": operation_id},
    )
    operation = found.one()
    if operation.ended_at is None:
        stale = await _is_stale(session, operation.install_id, operation.approved_digest)
        failed = operation.fails or stale or operation.cancelled
        await session.execute(
            text(
                "UPDATE lab.operations SET effects = effects + 1, failed = :failed,"
                " ended_at = clock_timestamp() WHERE id = :id"
            ),
            {"id": operation_id, "failed": failed},
        )
        query = select(InstallRow).where(InstallRow.id == operation.install_id)
        install = (await session.exec(query.with_for_update())).one()
        assert install.active_operation_id == operation_id
        install.active_operation_id = None
        if not failed:
            install.current_version_id = operation.version_id
            install.current_render_id = new_id(Prefix.RENDER)
            session.add(_deployed(install, operation_id, operation.restored_from))
        return MoveEnd(succeeded=not failed, reason="CONFLICT" if failed else None)
    return MoveEnd(succeeded=not operation.failed, reason="CONFLICT")


def _deployed(install: InstallRow, operation_id: str, restored_from: str | None) -> RenderRow:
    assert install.current_render_id is not None
    assert install.current_version_id is not None
    return RenderRow(
        workspace_id=install.workspace_id,
        id=install.current_render_id,
        install_id=install.id,
        operation_id=operation_id,
        package_version_id=install.current_version_id,
        restored_from_render_id=restored_from,
        state=RenderState.DEPLOYED,
        values=install.values,
    )


async def _is_stale(session: AsyncSession, install_id: str, digest: str | None) -> bool:
    if digest is None:
        return False
    query = text("SELECT digest FROM lab.plans WHERE install_id = :install")
    return bool((await session.execute(query, {"install": install_id})).scalar_one() != digest)


class LabPlanner:
    """A plan is what the lab says it is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def digest_of(self, subject: TargetSubject) -> str:
        """Return the digest that the lab has for the install, whose cluster may be away."""
        async with self._database.transaction() as session:
            away = text(
                "SELECT 1 FROM lab.answers WHERE install_id = :install AND kind = 'plan'"
                " AND answer = 'away'"
            )
            if (await session.execute(away, {"install": subject.install_id})).first():
                raise BulkheadError(Reason.DEPENDENCY_UNAVAILABLE, "The cluster is away.")
            query = text(
                "INSERT INTO lab.plans VALUES (:install, :digest) ON CONFLICT (install_id)"
                " DO UPDATE SET digest = lab.plans.digest RETURNING digest"
            )
            digest = f"plan of {subject.install_id}"
            found = await session.execute(query, {"install": subject.install_id, "digest": digest})
            return str(found.scalar_one())


# What a cluster may answer, besides what is wrong as a sentence.
AWAY = "away"
HANGS = "hangs"


class LabChecks:
    """Looks into no cluster but the lab's answers, and remembers that it did."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def look(
        self,
        plane: HostedControlPlane,
        target: Target,
        rollout_id: str,
        check: Check,
        *,
        is_last: bool,
        is_wanted: Callable[[], Awaitable[bool]],
    ) -> str | None:
        """Find what the lab says; nothing is wrong by default."""
        del plane, rollout_id, is_last
        asked = {"install": target.install_id, "kind": check.kind}
        async with self._database.transaction() as session:
            await session.execute(text("INSERT INTO lab.looks VALUES (:install, :kind)"), asked)
            query = text(
                "SELECT answer FROM lab.answers WHERE install_id = :install AND kind = :kind"
            )
            answer = (await session.execute(query, asked)).scalar_one_or_none()
        if answer == AWAY:
            raise BulkheadError(Reason.DEPENDENCY_UNAVAILABLE, "The cluster is away.")
        while answer == HANGS:
            if not await is_wanted():
                return None
            await asyncio.sleep(0.1)
        return answer
