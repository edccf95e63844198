"""The transactions with which workflows write what an install reached.

Each takes the install's row lock first and may be repeated: an operation that has ended stays as it
ended. Nothing here holds the data of a Secret.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import PrincipalKind
from domain.cluster import ClusterState
from domain.errors import BulkheadError, Reason
from domain.install import Health, InstallState, RenderState, Sync
from domain.names import install_namespace_of
from domain.operation import OperationState, OperationType
from domain.owned_operation import InstallOperation
from domain.rollout_failures import UnhealthyObject
from infra.database.engine import Database
from infra.database.records import old_renders
from infra.database.records.audit import add_audit_event
from infra.database.records.install_rows import (
    forget_install,
    note_change,
    remove_references,
    render_of,
    state_by_health,
)
from infra.database.records.install_sight import InstallSight, sight_of
from infra.database.records.operation import end_operation, hold, notify, taken_over
from infra.database.tables import (
    ClusterRow,
    GrantRow,
    InstallRow,
    OperationRow,
    PackageVersionRow,
    RenderRow,
)

# What an approval was given for, in an operation's request: set by a rollout that planned before.
APPROVED_PLAN_DIGEST = "approved_plan_digest"


class InstallRecords:
    """The transactions of one worker, in the workspace of the operation at hand."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def look(self, operation: InstallOperation) -> InstallSight:
        """Read what is known of an operation's install.

        Raises:
            BulkheadError: ABORTED when the install is gone.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            return await sight_of(session, operation)

    async def cluster_state_of(self, operation: InstallOperation) -> ClusterState | None:
        """Return the state of the operation's cluster; None when it is gone."""
        async with self._database.workspace(operation.workspace_id) as session:
            cluster = operation.control_plane.cluster_id
            query = select(ClusterRow.state).where(ClusterRow.id == cluster)
            found = (await session.exec(query)).one_or_none()
            return None if found is None else ClusterState(found)

    async def version_of(self, install: InstallRow, version_id: str) -> PackageVersionRow:
        """Return a version of an install's package, from the vendor's workspace.

        Raises:
            BulkheadError: NOT_FOUND when there is none.
        """
        async with self._database.workspace(install.package_workspace_id) as session:
            key = (install.package_workspace_id, version_id)
            version = await session.get(PackageVersionRow, key)
        if version is None or version.package_id != install.package_id:
            raise BulkheadError(
                Reason.NOT_FOUND, "The package has no version of this id; choose another one."
            )
        return version

    async def keep_rendered(
        self,
        operation: InstallOperation,
        manifest: list[dict[str, Any]],
        render_hash: str,
        chart: dict[str, str],
    ) -> list[str]:
        """The render came to these objects, in which no datum of a Secret is.

        Args:
            operation: which.
            manifest: the objects.
            render_hash: of them.
            chart: the chart's `name`, `semver` and `app_version`.

        Returns:
            Renders of which what they put into Secrets may be forgotten; then `empty` them.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            _, install, render = await _hold(session, operation)
            if install is None or render is None:
                return []
            render.manifest = manifest
            render.render_hash = render_hash
            render.plan = {"chart": chart}
            render.updated_at = datetime.now(UTC)
            # What follows acts in the vendor's workspace too.
            await session.flush()
            return await old_renders.find_old(session, install, render)

    async def empty(self, operation: InstallOperation, render_ids: Sequence[str]) -> None:
        """Take what is large out of renders that nobody comes back to.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            _, install, _ = await _hold(session, operation)
            if install is not None:
                await old_renders.empty(session, render_ids)

    async def keep_planned(
        self,
        operation: InstallOperation,
        plan: dict[str, Any],
        digest: str,
        *,
        approved: bool = False,
    ) -> str | None:
        """Applying the render would do this; return the digest that is approved by now.

        Args:
            operation: which.
            plan: as people see it.
            digest: what an approval is bound to.
            approved: the operation was asked for with this very digest by the install's people.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, _, render = await _hold(session, operation)
            if render is None:
                return None
            render.plan = plan
            render.plan_digest = digest
            render.updated_at = datetime.now(UTC)
            if approved and render.approved_digest is None:
                render.approved_digest = digest
                render.approved_by = operation.caller.principal_id
                render.approved_at = datetime.now(UTC)
            await notify(session, row.id)
            return render.approved_digest

    async def approved_digest(self, operation: InstallOperation) -> tuple[str | None, str | None]:
        """Return the digest of the newest plan, and the one that was approved."""
        async with self._database.workspace(operation.workspace_id) as session:
            query = select(RenderRow.plan_digest, RenderRow.approved_digest).where(
                RenderRow.operation_id == operation.operation_id
            )
            found = (await session.exec(query)).one_or_none()
            if found is None:
                raise taken_over()
            return found[0], found[1]

    async def note_stale(self, operation: InstallOperation, message: str) -> None:
        """Say on the operation why an approval did not count."""
        async with self._database.workspace(operation.workspace_id) as session:
            row, _, _ = await _hold(session, operation)
            if row.state is OperationState.RUNNING:
                row.last_error = {"message": message, "reason": "ABORTED", "retryable": True}
                row.version += 1
                await notify(session, row.id)

    async def note_unhealthy(self, operation: InstallOperation, unhealthy: UnhealthyObject) -> None:
        """Keep by which object the render did not become healthy."""
        async with self._database.workspace(operation.workspace_id) as session:
            _, _, render = await _hold(session, operation)
            if render is not None:
                render.unhealthy = unhealthy.as_json()

    async def begin_sync(self, operation: InstallOperation) -> InstallSight:
        """Objects of the install begin to change, or do so already; return what is known of it.

        Raises:
            BulkheadError: ABORTED when the install is gone, or not the operation's any more.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            sight = await sight_of(session, operation)
            if sight.install.state is not InstallState.SYNCING:
                begun = await session.execute(
                    update(InstallRow)
                    .where(
                        col(InstallRow.id) == operation.install_id,
                        col(InstallRow.active_operation_id) == operation.operation_id,
                    )
                    .values(
                        state=InstallState.SYNCING,
                        version=col(InstallRow.version) + 1,
                        updated_at=func.now(),
                    )
                    .returning(col(InstallRow.id))
                    .execution_options(synchronize_session=False)
                )
                if begun.first() is None:
                    raise taken_over()
            return sight

    async def keep_revision(self, operation: InstallOperation, revision: int) -> None:
        """The release has this revision by now."""
        async with self._database.workspace(operation.workspace_id) as session:
            _, install, render = await _hold(session, operation)
            if install is not None and render is not None:
                install.release_revision = render.release_revision = revision

    async def keep_restored_revision(self, operation: InstallOperation, revision: int) -> None:
        """The release went back to what is deployed, which has this revision by now."""
        async with self._database.workspace(operation.workspace_id) as session:
            _, install = await hold(session, operation)
            if isinstance(install, InstallRow):
                install.release_revision = revision

    async def reach_deployed(self, operation: InstallOperation) -> None:
        """The render is what runs on the cluster, and it is healthy.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, install, render = await _hold(session, operation)
            if install is None or render is None:
                return
            now = datetime.now(UTC)
            render.state = RenderState.DEPLOYED
            render.updated_at = now
            install.current_render_id = render.id
            _take_values(operation, row, install, render)
            if install.health is not Health.HEALTHY:
                install.health, install.health_since = Health.HEALTHY, now
            install.health_message = None
            install.sync = Sync.SYNCED
            install.observed_at = now
            await _reach_version(session, install, render)
            await _succeed(session, operation, row, install, render)

    async def reach_skipped(self, operation: InstallOperation) -> None:
        """The render came to what is deployed already; nothing was applied.

        Raises:
            BulkheadError: ABORTED when another operation took the lock over.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, install, render = await _hold(session, operation)
            if install is None or render is None:
                return
            render.state = RenderState.SKIPPED
            render.updated_at = datetime.now(UTC)
            _take_values(operation, row, install, render)
            await _reach_version(session, install, render)
            await _succeed(session, operation, row, install, render)

    async def reach_deleted(self, operation: InstallOperation) -> None:
        """Nothing of the install is left.

        Raises:
            BulkheadError: ABORTED when the operation does not hold the install's lock.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            row, install, _ = await _hold(session, operation)
            if install is None:
                return
            await forget_install(session, install)
            row.response = {"type": row.type, "install_id": install.id}
            await end_operation(session, operation, row, OperationState.SUCCEEDED)

    async def cluster_objects_of(self, operation: InstallOperation) -> list[dict[str, str]]:
        """Return what of cluster scope any render of the install may have applied.

        Each is `{api_version, kind, name, namespace}`, with an empty namespace where it has none.
        """
        async with self._database.workspace(operation.workspace_id) as session:
            items = func.jsonb_array_elements(col(RenderRow.plan)["cluster_objects"])
            # Not the plans themselves: there may be hundreds, of a megabyte each.
            query = select(items).where(RenderRow.install_id == operation.install_id).distinct()
            found = [dict(item) for item in await session.exec(query)]
            return sorted(found, key=lambda item: sorted(item.items()))

    async def note_kept(self, operation: InstallOperation, kept: Sequence[str]) -> None:
        """Audit what of cluster scope stays on the cluster although it should not; sentences."""
        async with self._database.workspace(operation.workspace_id) as session:
            add_audit_event(
                session,
                operation.caller,
                "install.keep_objects",
                "install",
                operation.install_id,
                outcome="succeeded",
                details={"operation_id": operation.operation_id, "objects": list(kept)},
            )

    async def remove_references(self, operation: InstallOperation) -> None:
        """No secret has the install for a consumer any more."""
        async with self._database.workspace(operation.workspace_id) as session:
            await remove_references(session, [operation.install_id])


def _take_values(
    operation: InstallOperation, row: OperationRow, install: InstallRow, render: RenderRow
) -> None:
    """Have the install want what was deployed, unless nobody of its own people asked for that.

    A correction, or a rollout that is taken back, brings older values; what was changed since then
    is for the next render.
    """
    by_itself = operation.caller.kind is PrincipalKind.SYSTEM
    if not (by_itself and row.type is OperationType.INSTALL_RESTORE):
        install.values = render.values


async def _reach_version(session: AsyncSession, install: InstallRow, render: RenderRow) -> None:
    install.current_version_id = render.package_version_id
    install.state = state_by_health(install)
    # What a vendor may know of an install.
    await session.execute(
        update(GrantRow)
        .where(col(GrantRow.install_id) == install.id, col(GrantRow.revoked_at).is_(None))
        .values(
            current_version_id=install.current_version_id,
            health=install.health,
            updated_at=func.now(),
        )
    )


async def _succeed(
    session: AsyncSession,
    operation: InstallOperation,
    row: OperationRow,
    install: InstallRow,
    render: RenderRow,
) -> None:
    row.response = {
        "type": row.type,
        "install_id": install.id,
        "install_render_id": render.id,
        "render_hash": render.render_hash,
        "skipped": render.state is RenderState.SKIPPED,
        "argo_app_name": install_namespace_of(install.id),
        "argo_app_namespace": install_namespace_of(install.id),
    }
    install.active_operation_id = None
    note_change(install)
    await end_operation(session, operation, row, OperationState.SUCCEEDED)


async def _hold(
    session: AsyncSession, operation: InstallOperation
) -> tuple[OperationRow, InstallRow | None, RenderRow | None]:
    """Lock the rows; no install when the operation has ended and nothing is left to do."""
    row, install = await hold(session, operation)
    if row.state is not OperationState.RUNNING:
        return row, None, None
    if not isinstance(install, InstallRow) or install.active_operation_id != row.id:
        raise taken_over()
    return row, install, await render_of(session, install, row.request.get("render_id"))
