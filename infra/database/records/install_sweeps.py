"""What the clock does for installs: new versions of their secrets, and of what they are.

Found across workspaces with the sweeper's role; planned in each one's own transaction.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import text, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import PrincipalKind, system_caller
from domain.cluster import ClusterState
from domain.install_health import OFFLINE_AFTER, is_offline
from domain.operation import WAITING_FOR_APPROVAL, OperationType
from domain.owned_operation import TypedOperation
from domain.package import Channel, PinKind
from domain.windows import Window
from infra.database.engine import Database
from infra.database.queries.compatibility import misfit_of
from infra.database.queries.emergency_stop import stop_of_install
from infra.database.queries.package import find_offer, visible_versions
from infra.database.records import install_drift
from infra.database.records.audit import add_audit_event
from infra.database.records.install_plan import Deployment, plan_deployment
from infra.database.records.operation import (
    install_operation_of,
    notify,
    plan_operation,
    request_cancellation,
)
from infra.database.tables import (
    ClusterRow,
    InstallRow,
    OperationRow,
    PackageVersionRow,
    RenderRow,
)

SECRETS: Final = "sync-install-secrets"
UPDATES: Final = "update-installs"

# Of one pass; each is an operation of its own, and the next pass is near.
_SYNCS_A_PASS: Final = 50
_UPDATES_A_PASS: Final = 20

# What the render says of an operation that nobody had approved when a secret changed.
_GAVE_WAY: Final = "It waited for an approval, and gave way to a newer version of a secret."

# So many are looked at in one pass, each in a transaction of milliseconds; the next pass goes on
# behind them, so that those for which nothing fits keep nobody from a turn.
_CANDIDATES_A_PASS: Final = 500

# A secret whose alias leads to another version than the cluster has, or than is worked with. What
# failed lately is left alone for a while: a consumer that does not start is no reason to try on.
#
# An operation of the clock's that waits for an approval gives way: it comes again by itself, and a
# rotation does not wait for a person who may never look.
_DUE_SYNCS: Final = text("""
SELECT i.workspace_id, i.id, i.active_operation_id FROM installs i
JOIN clusters c ON c.workspace_id = i.workspace_id AND c.id = i.cluster_id AND c.state = 'active'
WHERE i.current_render_id IS NOT NULL
    AND (i.active_operation_id IS NULL OR EXISTS (
        SELECT FROM operations a WHERE a.workspace_id = i.workspace_id
            AND a.id = i.active_operation_id AND a.state = 'RUNNING' AND a.cancellable
            AND a.waiting_for = 'approval' AND a.cancel_requested_at IS NULL
            AND a.caller ->> 'kind' = 'system' AND a.caller ->> 'principal_id' = ANY (:schedules)))
    AND (NOT (SELECT stop_in_force()) OR stop_of_install(i.workspace_id, i.id) IS NULL)
    AND EXISTS (
        SELECT FROM install_secrets s
        JOIN secrets x ON x.workspace_id = s.workspace_id AND x.id = s.secret_id
        JOIN secret_versions v ON v.workspace_id = x.workspace_id AND v.secret_id = x.id
            AND v.number = (x.aliases ->> s.alias)::integer
        LEFT JOIN secret_references r ON r.workspace_id = s.workspace_id
            AND r.secret_id = s.secret_id AND r.consumer_type = 'install'
            AND r.consumer_id = s.install_id
        WHERE s.workspace_id = i.workspace_id AND s.install_id = i.id
            AND x.state = 'active' AND v.state = 'enabled'
            AND (s.synced_version_id IS DISTINCT FROM v.id
                OR s.consumed_version_id IS DISTINCT FROM v.id
                OR s.alias = 'current' AND r.acknowledges
                    AND coalesce(r.acknowledged_number, 0) < v.number))
    AND NOT EXISTS (
        SELECT FROM operations o WHERE o.workspace_id = i.workspace_id
            AND o.owner_type = 'install' AND o.owner_id = i.id
            AND o.type = 'install.secrets.sync' AND o.state <> 'SUCCEEDED'
            AND o.completed_at > now() - interval '10 minutes')
ORDER BY i.id LIMIT :most
""")

# What may have something newer; which version it is, and whether it fits, is looked at one by one.
_UPDATABLE: Final = text("""
SELECT i.workspace_id, i.id, i.update_window FROM installs i
JOIN clusters c ON c.workspace_id = i.workspace_id AND c.id = i.cluster_id AND c.state = 'active'
WHERE i.automatic_updates_enabled AND i.active_operation_id IS NULL
    AND i.pinned_semver IS NULL AND i.current_version_id IS NOT NULL
    AND (i.held_at IS NULL OR i.hold_until <= now())
    AND i.observed_at > :seen_since
    AND (NOT (SELECT stop_in_force()) OR stop_of_install(i.workspace_id, i.id) IS NULL)
    AND i.id > :after
    AND EXISTS (
        SELECT FROM package_versions has
        JOIN package_versions v ON v.workspace_id = has.workspace_id
            AND v.package_id = has.package_id AND v.sort_key > has.sort_key
        WHERE has.workspace_id = i.package_workspace_id AND has.id = i.current_version_id
            AND (i.channel = 'edge' OR v.channel = 'stable')
            AND NOT EXISTS (
                SELECT FROM renders r WHERE r.workspace_id = i.workspace_id
                    AND r.install_id = i.id AND r.package_version_id = v.id
                    AND r.message IS DISTINCT FROM :gave_way))
ORDER BY i.id LIMIT :most
""")


@dataclass(frozen=True, slots=True)
class DueSyncs:
    """What a pass came to.

    Attributes:
        planned: operations to start.
        cancelled: workspaces and ids of operations that give way; their workflows are to be told.
    """

    planned: list[TypedOperation] = field(default_factory=list)
    cancelled: list[tuple[str, str]] = field(default_factory=list)


class InstallSweeps:
    """The passes over the installs of all workspaces."""

    def __init__(self, database: Database, sweeper: Database) -> None:
        self._database = database
        self._sweeper = sweeper
        # The last install that the pass before looked at; empty: it came to the end.
        self._looked_at = ""

    async def plan_due_syncs(self) -> DueSyncs:
        """Plan that installs take over versions of secrets that they do not work with yet."""
        schedules = [UPDATES, install_drift.SCHEDULE]
        parameters = {"most": _SYNCS_A_PASS, "schedules": schedules}
        async with self._sweeper.transaction() as session:
            due = (await session.execute(_DUE_SYNCS, parameters)).all()
        found = DueSyncs()
        for workspace, install, active in due:
            if active is None:
                operation = await self._plan_sync(workspace, install)
                if operation is not None:
                    found.planned.append(operation)
            elif await self._give_way(workspace, active):
                found.cancelled.append((workspace, active))
        return found

    async def plan_due_updates(self) -> list[TypedOperation]:
        """Plan updates of installs that get new versions by themselves."""
        now = datetime.now(UTC)
        parameters = {
            "after": self._looked_at,
            "seen_since": now - OFFLINE_AFTER,
            "most": _CANDIDATES_A_PASS,
            "gave_way": _GAVE_WAY,
        }
        async with self._sweeper.transaction() as session:
            found = (await session.execute(_UPDATABLE, parameters)).all()
        self._looked_at = found[-1].id if len(found) == _CANDIDATES_A_PASS else ""
        planned: list[TypedOperation] = []
        for workspace, install, window in found:
            if window is not None and not Window.from_json(window).is_open(now):
                continue
            operation = await self._plan_update(workspace, install)
            if operation is not None:
                planned.append(operation)
            if len(planned) == _UPDATES_A_PASS:
                self._looked_at = install
                break
        return planned

    async def _give_way(self, workspace_id: str, operation_id: str) -> bool:
        """Have an operation that waits for an approval end. False: it has gone on meanwhile."""
        async with self._database.workspace(workspace_id) as session:
            key = (workspace_id, operation_id)
            row = await session.get_one(OperationRow, key, with_for_update=True)
            waits = row.waiting_for == WAITING_FOR_APPROVAL
            by = PrincipalKind.SYSTEM
            if not waits or not await request_cancellation(session, operation_id, by):
                return False
            # Its render did not fail, and its version is planned again.
            renders = update(RenderRow).where(col(RenderRow.operation_id) == operation_id)
            await session.execute(renders.values(message=_GAVE_WAY))
            caller = system_caller(workspace_id, SECRETS)
            details = {"operation_id": operation_id}
            add_audit_event(
                session, caller, "operation.cancel", "install", row.owner_id, details=details
            )
            await notify(session, operation_id)
            return True

    async def _plan_sync(self, workspace_id: str, install_id: str) -> TypedOperation | None:
        async with self._database.workspace(workspace_id) as session:
            found = await _hold_idle(session, install_id)
            if found is None or await stop_of_install(session, workspace_id, install_id):
                return None
            install, cluster = found
            caller = system_caller(workspace_id, SECRETS)
            kind = OperationType.INSTALL_SYNC_SECRETS
            operation = plan_operation(
                session,
                kind,
                install,
                caller,
                request={"type": kind, "install_id": install.id},
                cluster=cluster,
            )
            return await _planned(session, SECRETS, operation)

    async def _plan_update(self, workspace_id: str, install_id: str) -> TypedOperation | None:
        async with self._database.workspace(workspace_id) as session:
            found = await _hold_idle(session, install_id)
            if found is None or not _may_be_updated(found[0], datetime.now(UTC)):
                return None
            install, cluster = found
            version = await _newer_version(session, install, cluster)
            if version is None or await stop_of_install(session, workspace_id, install_id):
                return None
            operation, _ = plan_deployment(
                session,
                install,
                cluster,
                system_caller(workspace_id, UPDATES),
                OperationType.INSTALL_RENDER,
                Deployment(
                    version_id=version.id,
                    values=install.values,
                    message=f"Automatic update to {version.semver}.",
                ),
            )
            return await _planned(session, UPDATES, operation, version=version.semver)


async def _hold_idle(
    session: AsyncSession, install_id: str
) -> tuple[InstallRow, ClusterRow] | None:
    query = (
        select(InstallRow, ClusterRow)
        .join(ClusterRow, col(ClusterRow.id) == col(InstallRow.cluster_id))
        .where(
            InstallRow.id == install_id,
            col(InstallRow.active_operation_id).is_(None),
            ClusterRow.state == ClusterState.ACTIVE,
        )
        .with_for_update(of=InstallRow)
    )
    return (await session.exec(query)).one_or_none()


def _may_be_updated(install: InstallRow, now: datetime) -> bool:
    held = install.held_at is not None and (install.hold_until is None or install.hold_until > now)
    return (
        install.automatic_updates_enabled
        and install.pinned_semver is None
        and not held
        and not is_offline(install.observed_at, now)
        and (install.update_window is None or Window.from_json(install.update_window).is_open(now))
    )


async def _newer_version(
    session: AsyncSession, install: InstallRow, cluster: ClusterRow
) -> PackageVersionRow | None:
    """Return the newest version that fits, when it is newer and was never here before."""
    owner, package = install.package_workspace_id, install.package_id
    known = await visible_versions(session, owner, package)
    current = next((each for each in known if each.id == install.current_version_id), None)
    if current is None:
        return None
    candidates = known
    if install.product_id is not None:
        offer = await find_offer(session, install.product_id)
        if offer is None:
            return None
        if offer.product.version_pin["kind"] == PinKind.PINNED:
            candidates = [offer.version]
    newer = [
        each
        for each in candidates
        if each.sort_key > current.sort_key
        and (install.channel is Channel.EDGE or each.channel is Channel.STABLE)
    ]
    for version in sorted(newer, key=lambda each: (each.sort_key, each.id), reverse=True):
        if await misfit_of(session, version, cluster) is None:
            return None if await _was_here(session, install, version) else version
    return None


async def _was_here(session: AsyncSession, install: InstallRow, version: PackageVersionRow) -> bool:
    # It failed; or it ran, and somebody, or a rollout that failed, went back from it.
    query = select(RenderRow.id).where(
        RenderRow.install_id == install.id,
        RenderRow.package_version_id == version.id,
        col(RenderRow.message).is_distinct_from(_GAVE_WAY),
    )
    return (await session.exec(query.limit(1))).first() is not None


async def _planned(
    session: AsyncSession, schedule: str, operation: OperationRow, **details: str
) -> TypedOperation:
    add_audit_event(
        session,
        system_caller(operation.workspace_id, schedule),
        operation.type,
        "install",
        operation.owner_id,
        details={"operation_id": operation.id, **details},
    )
    await session.flush()
    return TypedOperation(type=operation.type, operation=install_operation_of(operation))
