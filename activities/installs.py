"""Installs on the clusters of one control-plane host: what their workflows do, step by step.

No argument and no result holds values, objects or the data of a Secret: they are in rows and in
OpenBao, and each activity reads what it needs.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from temporalio import activity

from activities.install_steps import POLL_SECONDS, InstallSteps
from activities.progress import note_progress
from activities.records import worker_is_stopping
from domain.errors import BulkheadError, Reason
from domain.install import Change, Health, ObjectScope
from domain.names import install_namespace_of
from domain.owned_operation import InstallOperation
from domain.rollout_failures import UnhealthyObject
from infra.database.records.install import APPROVED_PLAN_DIGEST
from infra.installs.plan import identity_of, uids_in
from infra.installs.secret_objects import extract_references
from infra.installs.sight import Seen, health_of, look_at_objects
from infra.kubernetes.discovery import Discovery

if TYPE_CHECKING:
    from typing import Any

    from domain.kstatus import ObjectStatus
    from infra.database.records.install_sight import InstallSight
    from infra.installs.plan import Plan


# Pods that are there within seconds are what most updates wait for; a look takes about 15 ms.
_SOON = timedelta(seconds=5)
_POLL_AT_FIRST_SECONDS = 0.15


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """What a rendering came to; `skipped`: to what is deployed, and that is enough."""

    skipped: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """What the workflow decides by.

    Attributes:
        digest: of the plan.
        waits: nobody has approved it, and somebody must.
        has_cluster_objects: the render has objects of cluster scope.
        leaves_behind: something that is there goes only when the render is healthy.
        has_secrets: the render's values refer to secrets; plans before this was noted may.
    """

    digest: str
    waits: bool
    has_cluster_objects: bool
    leaves_behind: bool
    has_secrets: bool = True


class InstallActivities(InstallSteps):
    """Renders, plans and applies installs, and takes that back."""

    @activity.defn
    async def prepare_namespace(self, operation: InstallOperation) -> None:
        """Make the install's namespace and the rights of its users there."""
        await asyncio.to_thread(self._vault.ensure_readers, operation.control_plane)
        async with self._reaching(operation):
            await self._deployer.prepare(operation.control_plane, operation.install_id, None)

    @activity.defn
    async def render_chart(self, operation: InstallOperation) -> Rendered:
        """Bring version and values to objects, and store them without the data of Secrets.

        Raises:
            BulkheadError: INVALID_ARGUMENT for values or templates that fail; others as
                `Deployer.render`.
        """
        sight = await self._records.look(operation)
        render = sight.deploying
        async with self._reaching(operation):
            if sight.source is not None:
                manifest, digest = sight.source.manifest or [], sight.source.render_hash or ""
                chart = (sight.source.plan or {}).get("chart", {})
                data = await self._deployer.renders.data_of(sight.source)
            else:
                if sight.good is not None:
                    # The first time, the step before has just done it.
                    await self._deployer.prepare(
                        operation.control_plane, operation.install_id, sight.good.manifest
                    )
                rendering = await self._deployer.renders.render(
                    operation.control_plane,
                    sight.install,
                    await self._records.version_of(sight.install, render.package_version_id),
                    render.values,
                    operation_id=operation.operation_id,
                )
                manifest, digest = rendering.manifest, rendering.render_hash
                chart, data = rendering.chart, rendering.data
        skipped = bool(
            sight.request.get("skip_unchanged")
            and sight.good is not None
            and sight.good.render_hash == digest
        )
        if not skipped:
            await self._deployer.renders.keep(sight.install, render.id, data)
        old = await self._records.keep_rendered(operation, manifest, digest, chart)
        if old:
            await self._empty(operation, sight, old)
        return Rendered(skipped=skipped)

    @activity.defn
    async def forget_render(self, operation: InstallOperation) -> None:
        """Keep no more what a render that is not deployed puts into Secrets."""
        sight = await self._records.look(operation)
        is_good = sight.good is not None and sight.good.id == sight.deploying.id
        if not is_good:
            await self._deployer.renders.forget(sight.install, sight.deploying.id)

    @activity.defn
    async def plan_changes(self, operation: InstallOperation) -> Planned:
        """Find out what applying the render would do, and store it.

        Raises:
            BulkheadError: FAILED_PRECONDITION for what the cluster does not take, for a release
                that is too large, and for an operation that was approved with another plan.
        """
        sight = await self._records.look(operation)
        async with self._reaching(operation):
            return await self._plan(operation, sight)

    @activity.defn
    async def confirm_approval(self, operation: InstallOperation) -> bool:
        """Plan once more; False: it would do something else by now, and is shown anew."""
        sight = await self._records.look(operation)
        async with self._reaching(operation):
            planned = await self._plan(operation, sight)
        if planned.waits:
            await self._records.note_stale(
                operation,
                "The plan changed since it was approved: the cluster is not as it was. Look at it "
                f"again and approve {planned.digest}.",
            )
        return not planned.waits

    @activity.defn
    async def sync_secrets(self, operation: InstallOperation) -> None:
        """Write the Kubernetes Secrets that the render's values refer to; those before stay."""
        sight = await self._records.begin_sync(operation)
        async with self._reaching(operation):
            await self._secrets.sync(operation, extract_references(sight.deploying.values))

    @activity.defn
    async def restore_secrets(self, operation: InstallOperation) -> None:
        """Remove the Kubernetes Secrets to which what is deployed does not refer."""
        sight = await self._records.look(operation)
        if sight.good is None or await self._cluster_goes(operation):
            return
        async with self._reaching(operation):
            # What is deployed refers to what is still there: nothing is removed before its time.
            await self._secrets.prune(operation, extract_references(sight.good.values))

    @activity.defn
    async def apply_cluster_objects(self, operation: InstallOperation) -> None:
        """Apply the render's objects of cluster scope, CRDs first; those before stay for now."""
        sight = await self._records.begin_sync(operation)
        async with self._reaching(operation):
            deployed = await self._deployer.renders.load(sight.deploying)
            await self._deployer.cluster_objects.apply(
                operation.control_plane,
                operation.install_id,
                deployed.of_cluster,
                uids_in(sight.deploying.plan, Change.REPLACED, ObjectScope.CLUSTER),
            )

    @activity.defn
    async def restore_cluster_objects(self, operation: InstallOperation) -> None:
        """Have the objects of cluster scope that are deployed, and no other of the install."""
        if await self._cluster_goes(operation):
            return
        sight = await self._records.look(operation)
        async with self._reaching(operation):
            await self._settle_cluster_objects(operation, sight.good)

    @activity.defn
    async def apply_release(self, operation: InstallOperation) -> None:
        """Have helm bring the release to the render.

        Raises:
            BulkheadError: FAILED_PRECONDITION when helm or a hook fails.
        """
        async with self._deploying(operation), self._reaching(operation):
            sight = await self._records.begin_sync(operation)
            render = sight.deploying
            deployed = await self._deployer.renders.load(render)
            note_progress("Helm applies the release and runs its hooks.")
            revision = await self._deployer.apply_release(
                operation.control_plane,
                operation.install_id,
                deployed,
                replaced=uids_in(render.plan, Change.REPLACED, ObjectScope.NAMESPACE),
                seconds=self._settings.hook_seconds,
            )
        await self._records.keep_revision(operation, revision)

    @activity.defn
    async def restore_release(self, operation: InstallOperation) -> None:
        """Bring the release back to what is deployed; remove it when nothing is."""
        if await self._cluster_goes(operation):
            return
        sight = await self._records.look(operation)
        plane, install_id = operation.control_plane, operation.install_id
        seconds = self._settings.hook_seconds
        async with self._deploying(operation), self._reaching(operation):
            if sight.good is None:
                await self._uninstall_without_hooks(operation)
                return
            revision = await self._deployer.restore_release(
                plane,
                install_id,
                await self._deployer.renders.load(sight.good),
                sight.render,
                seconds=seconds,
            )
        await self._records.keep_restored_revision(operation, revision)

    @activity.defn
    async def wait_until_healthy(self, operation: InstallOperation) -> None:
        """Wait until every object of the render is as it should be.

        Raises:
            BulkheadError: FAILED_PRECONDITION when it was degraded for too long, or is not healthy
                at the deadline; both say which object and why.
        """
        sight = await self._records.look(operation)
        manifest = sight.deploying.manifest or []
        began = activity.info().scheduled_time
        deadline = began + timedelta(seconds=self._settings.healthy_seconds)
        degraded_since: datetime | None = None
        async with self._reaching(operation):
            while True:
                if activity.is_worker_shutdown():
                    raise worker_is_stopping()
                now = datetime.now(UTC)
                seen = await self._look(operation, manifest, now)
                status = health_of(seen)
                if status.health in {Health.HEALTHY, Health.SUSPENDED}:
                    return
                if status.health is not Health.DEGRADED:
                    degraded_since = None
                degraded_since = degraded_since or (
                    now if status.health is Health.DEGRADED else None
                )
                lasts = degraded_since is not None and now - degraded_since > timedelta(
                    seconds=self._settings.degraded_seconds
                )
                if lasts or now > deadline:
                    await self._note_unhealthy(operation, seen, status)
                    raise _unhealthy(status, now - began)
                note_progress(f"{status.health}: {status.reason}")
                is_fresh = now - began < _SOON
                await asyncio.sleep(_POLL_AT_FIRST_SECONDS if is_fresh else POLL_SECONDS)

    @activity.defn
    async def remove_left_behind(self, operation: InstallOperation) -> None:
        """Remove what was deployed before and is not any more, now that the render is healthy."""
        sight = await self._records.look(operation)
        async with self._reaching(operation):
            await self._settle_cluster_objects(operation, sight.deploying)
            await self._secrets.prune(operation, extract_references(sight.deploying.values))

    async def _empty(
        self, operation: InstallOperation, sight: InstallSight, render_ids: list[str]
    ) -> None:
        for render_id in render_ids:
            await self._deployer.renders.forget(sight.install, render_id)
        await self._records.empty(operation, render_ids)

    async def _plan(self, operation: InstallOperation, sight: InstallSight) -> Planned:
        render = sight.deploying
        deployed = await self._deployer.renders.load(render)
        plan = await self._deployer.plan(
            operation.control_plane, operation.install_id, deployed, sight.good
        )
        digest = plan.digest(
            sight.install.plan_key,
            render.render_hash or "",
            render.package_version_id,
            render.values,
        )
        wanted = sight.request.get(APPROVED_PLAN_DIGEST)
        if wanted is not None and wanted != digest:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"The plan is stale: {wanted} was approved, and it would now be {digest}. Plan and "
                "approve it again.",
                metadata={"plan_digest": digest},
            )
        # A vendor's rollout may approve what becomes of its own installs, never of a customer's.
        is_own = sight.install.package_workspace_id == operation.workspace_id
        approved = await self._records.keep_planned(
            operation,
            {**plan.as_json(), "chart": deployed.chart},
            digest,
            approved=wanted is not None and is_own,
        )
        return Planned(
            digest=digest,
            waits=plan.needs_approval and approved != digest,
            has_secrets=bool(extract_references(render.values)),
            has_cluster_objects=bool(plan.cluster_objects),
            leaves_behind=_leaves_behind(plan, sight),
        )

    async def _look(
        self, operation: InstallOperation, manifest: list[dict[str, Any]], now: datetime
    ) -> list[Seen]:
        space = install_namespace_of(operation.install_id)
        return await self._deployer.clusters.ask(
            operation.control_plane,
            lambda client: look_at_objects(client, Discovery(client), manifest, space, now),
        )

    async def _note_unhealthy(
        self,
        operation: InstallOperation,
        seen: list[Seen],
        status: ObjectStatus,
    ) -> None:
        worst = next((one for one in seen if one.status.health is status.health), None)
        if worst is not None:
            kind, said = str(worst.wanted["kind"]), worst.status.reason
            unhealthy = UnhealthyObject.of(kind, status.health, said)
            await self._records.note_unhealthy(operation, unhealthy)


def _leaves_behind(plan: Plan, sight: InstallSight) -> bool:
    if sight.good is None:
        return False
    before = set(extract_references(sight.good.values))
    goes = before - set(extract_references(sight.deploying.values))
    had = {identity_of(found) for found in (sight.good.plan or {}).get("cluster_objects", [])}
    has = {identity_of(found) for found in plan.cluster_objects}
    return bool(goes or had - has)


def _unhealthy(status: ObjectStatus, after: timedelta) -> BulkheadError:
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"The install did not become healthy within {after.total_seconds():.0f} s: {status.reason}",
        metadata={"health": status.health},
    )
