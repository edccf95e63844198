"""Findings about live objects that are not as rendered, and corrections where they are wanted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import delete, func, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import system_caller
from domain.cluster import ClusterState, HostedControlPlane
from domain.identifiers import Prefix, new_id
from domain.install import DriftState, InstallState, RenderState
from domain.install_drift import (
    CORRECTED_AT_MOST_EVERY,
    CORRECTION_MESSAGE,
    KEPT_FOR,
    LOOKED_FOR_EVERY,
    InstallDriftRequest,
    ObjectDrift,
)
from domain.operation import OperationType
from domain.owned_operation import TypedOperation
from domain.rollout_obstacles import TargetFacts, Wanted, what_stops
from infra.database.engine import Database
from infra.database.queries.emergency_stop import stop_of_install
from infra.database.records.audit import add_audit_event
from infra.database.records.install_plan import Deployment, plan_deployment
from infra.database.records.operation import install_operation_of
from infra.database.tables import ClusterRow, InstallDriftRow, InstallRow, RenderRow

SCHEDULE: Final = "detect-install-drift"

# Of one pass, which comes each minute; each is two calls for an object.
_LOOKS_A_PASS: Final = 200

# Those that nobody reaches, or whose look fails each time, would be due for ever, before everybody
# else: of more than a pass can look at, any are chosen.
_DUE: Final = text("""
SELECT i.workspace_id, i.id, c.host
FROM installs i JOIN clusters c ON c.workspace_id = i.workspace_id AND c.id = i.cluster_id
WHERE i.active_operation_id IS NULL AND i.current_render_id IS NOT NULL
  AND i.state IN ('healthy', 'degraded') AND c.state = 'active'
  AND i.observed_at > now() - interval '3 minutes'
  AND coalesce(i.drift_looked_at, i.created_at) < now() - :every
ORDER BY random() LIMIT :most
""")

# As the index has it: with a parameter the server does not know it again.
_IS_OPEN: Final = text("state = 'open'")


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftSubject:
    """What is compared: the objects of the render that is on the cluster."""

    control_plane: HostedControlPlane
    render_id: str
    manifest: list[dict[str, Any]]


class InstallDriftRecords:
    """Finds installs with the sweeper's role, and writes in the workspace of each."""

    def __init__(self, database: Database, sweeper: Database) -> None:
        self._database = database
        self._sweeper = sweeper

    async def due(self) -> list[InstallDriftRequest]:
        """Return installs that were not compared for a while, as many as a pass can look at."""
        async with self._sweeper.transaction() as session:
            found = await session.execute(_DUE, {"every": LOOKED_FOR_EVERY, "most": _LOOKS_A_PASS})
            return [
                InstallDriftRequest(workspace_id=row.workspace_id, install_id=row.id, host=row.host)
                for row in found
            ]

    async def subject_of(self, request: InstallDriftRequest) -> DriftSubject | None:
        """Return what is to be compared; None: nothing is, for now or for good."""
        async with self._database.workspace(request.workspace_id) as session:
            query = (
                select(InstallRow, ClusterRow, RenderRow)
                .join(
                    ClusterRow,
                    (col(ClusterRow.workspace_id) == col(InstallRow.workspace_id))
                    & (col(ClusterRow.id) == col(InstallRow.cluster_id)),
                )
                .join(
                    RenderRow,
                    (col(RenderRow.workspace_id) == col(InstallRow.workspace_id))
                    & (col(RenderRow.id) == col(InstallRow.current_render_id)),
                )
                .where(InstallRow.id == request.install_id)
            )
            found = (await session.exec(query)).one_or_none()
        if found is None:
            return None
        install, cluster, render = found
        is_idle = install.active_operation_id is None and cluster.state is ClusterState.ACTIVE
        if not is_idle or cluster.host != request.host or render.manifest is None:
            return None
        return DriftSubject(
            control_plane=HostedControlPlane(
                workspace_id=cluster.workspace_id,
                cluster_id=cluster.id,
                host=cluster.host,
                slot=cluster.slot,
                network_profile=cluster.network_profile,
            ),
            render_id=render.id,
            manifest=render.manifest,
        )

    async def write(
        self, request: InstallDriftRequest, render_id: str, found: Sequence[ObjectDrift]
    ) -> bool:
        """Write what differs now, and close what does not any more.

        Returns:
            False when the install was moved meanwhile, so that nothing of this is true.
        """
        async with self._database.workspace(request.workspace_id) as session:
            install = await _lock(session, request.install_id)
            if install is None or not _is_still(install, render_id):
                return False
            keys = [one.key for one in found]
            await _close_all_but(session, install, keys)
            for one in found:
                await _open(session, install, render_id, one)
            install.drift_looked_at = datetime.now(UTC)
            session.add(install)
            await session.execute(
                delete(InstallDriftRow).where(
                    col(InstallDriftRow.install_id) == install.id,
                    col(InstallDriftRow.resolved_at) < func.now() - KEPT_FOR,
                )
            )
        return True

    async def plan_correction(
        self, request: InstallDriftRequest, render_id: str
    ) -> TypedOperation | None:
        """Plan that the render is applied once more, where the customer wants that.

        Returns:
            None when an operation, a hold, a window or an emergency stop stands in the way.
        """
        async with self._database.workspace(request.workspace_id) as session:
            install = await _lock(session, request.install_id)
            if install is None or not install.drift_correction or not _is_still(install, render_id):
                return None
            key = (request.workspace_id, install.cluster_id)
            cluster = await session.get(ClusterRow, key)
            if cluster is None or not await _may_correct(session, install, cluster):
                return None
            render = await session.get_one(RenderRow, (request.workspace_id, render_id))
            caller = system_caller(request.workspace_id, SCHEDULE)
            deployment = Deployment(
                version_id=render.package_version_id,
                values=render.values,
                restored_from=render_id,
                skip_unchanged=False,
                message=CORRECTION_MESSAGE,
            )
            kind = OperationType.INSTALL_RESTORE
            operation, _ = plan_deployment(session, install, cluster, caller, kind, deployment)
            details = {"operation_id": operation.id, "render_id": render_id}
            add_audit_event(session, caller, kind, "install", install.id, details=details)
            await session.flush()
            return TypedOperation(type=kind, operation=install_operation_of(operation))


async def _lock(session: AsyncSession, install_id: str) -> InstallRow | None:
    query = select(InstallRow).where(InstallRow.id == install_id).with_for_update()
    return (await session.exec(query)).one_or_none()


def _is_still(install: InstallRow, render_id: str) -> bool:
    return (
        install.active_operation_id is None
        and install.current_render_id == render_id
        and install.state in (InstallState.HEALTHY, InstallState.DEGRADED)
    )


async def _may_correct(session: AsyncSession, install: InstallRow, cluster: ClusterRow) -> bool:
    now = datetime.now(UTC)
    facts = TargetFacts(
        host=cluster.host,
        cluster_state=cluster.state,
        observed_at=install.observed_at,
        active_operation_id=install.active_operation_id,
        held=install.held_at is not None,
        hold_until=install.hold_until,
        window=install.update_window,
        # The version stays: neither a pin nor anybody's consent is asked about.
        pinned_semver=None,
        consent=None,
        consented_version_id=None,
        granted=True,
        current_version_id=install.current_version_id,
        stop_id=await stop_of_install(session, install.workspace_id, install.id),
    )
    if what_stops(facts, Wanted(version_id="", semver=""), now) is not None:
        return False
    lately = select(RenderRow.id).where(
        RenderRow.install_id == install.id,
        RenderRow.message == CORRECTION_MESSAGE,
        col(RenderRow.created_at) > now - CORRECTED_AT_MOST_EVERY,
    )
    return (await session.exec(lately.limit(1))).one_or_none() is None


async def _close_all_but(session: AsyncSession, install: InstallRow, keys: list[str]) -> None:
    row = InstallDriftRow
    over = [
        col(row.install_id) == install.id,
        col(row.state) == DriftState.OPEN,
        col(row.object_key).not_in(keys),
    ]
    # Ours, if a correction came after the finding; somebody else's otherwise.
    corrected = select(RenderRow.id).where(
        RenderRow.install_id == install.id,
        RenderRow.message == CORRECTION_MESSAGE,
        RenderRow.state == RenderState.DEPLOYED,
        col(RenderRow.created_at) > col(row.first_seen_at),
    )
    for state, condition in (
        (DriftState.CORRECTED, [corrected.exists()]),
        (DriftState.RESOLVED, []),
    ):
        statement = update(row).where(*over, *condition)
        await session.execute(statement.values(state=state, resolved_at=func.now()))


async def _open(
    session: AsyncSession, install: InstallRow, render_id: str, found: ObjectDrift
) -> None:
    row = InstallDriftRow
    now = {"render_id": render_id, "delta": list(found.delta), "last_seen_at": func.now()}
    statement = insert(row).values(
        workspace_id=install.workspace_id,
        id=new_id(Prefix.INSTALL_DRIFT),
        install_id=install.id,
        object_key=found.key,
        state=DriftState.OPEN,
        **now,
    )
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["workspace_id", "install_id", "object_key"],
            index_where=_IS_OPEN,
            set_=now,
        )
    )
