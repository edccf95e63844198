"""Plans and applies renders on the clusters of one host.

Megabytes of objects are worked on in threads: the worker's heart beats in its event loop.
It writes no row: activities do.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from domain.cluster import HostedControlPlane
from domain.install import Change, ObjectScope
from domain.names import install_user_of
from domain.pod_security import level_of
from infra.database.tables import InstallRow, PackageVersionRow, RenderRow
from infra.helm.manifest import texts_of
from infra.helm.program import Helm
from infra.helm.release_chart import check_size, release_chart, release_size
from infra.installs.applier import ClusterObjects, Reference
from infra.installs.identities import access_of, is_prepared, prepare_namespace, release_of
from infra.installs.plan import Plan, identity_of, reference_of, uids_in
from infra.installs.planner import Wanted, make_plan
from infra.installs.release_objects import (
    added_by,
    make_way,
    remove_release_objects,
    remove_replaced,
)
from infra.installs.renders import Deployed, Renders
from infra.kubernetes.client import KubernetesClient, Object
from infra.machines.clusters import HostClusters

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What a version would do to an install, of which nothing was written or changed."""

    render_hash: str
    plan: dict[str, Any]
    plan_digest: str
    needs_approval: bool
    is_unchanged: bool


class Deployer:
    """The installs on one host's clusters. Every method may be repeated.

    Who has helm apply, restore or remove a release does it in a `place`.
    """

    def __init__(self, clusters: HostClusters, renders: Renders, helm: Helm) -> None:
        self.clusters = clusters
        self.cluster_objects = ClusterObjects(clusters)
        self.renders = renders
        self._helm = helm

    def place(self, workspace_id: str) -> AbstractAsyncContextManager[bool]:
        """Have one of the host's places for helm, as `Helm.place`."""
        return self._helm.place(workspace_id)

    async def prepare(
        self, plane: HostedControlPlane, install_id: str, manifest: Sequence[Object] | None
    ) -> None:
        """Have the install's namespace and its users' rights there.

        Args:
            plane: of the install's cluster.
            install_id: which.
            manifest: a render whose plan is approved where that is needed: pods may ask of their
                nodes what its pods do. None, or empty: what any chart's may.
        """
        level = level_of(manifest or [])
        await self.clusters.ask(plane, lambda client: prepare_namespace(client, install_id, level))

    async def plan(
        self, plane: HostedControlPlane, install_id: str, deployed: Deployed, good: RenderRow | None
    ) -> Plan:
        """Ask the cluster what applying a render would do, in place of the one that is deployed.

        Raises:
            BulkheadError: FAILED_PRECONDITION for a release that is too large, and what the
                cluster does not take; as `KubernetesClient` when it does not answer.
        """
        size = await asyncio.to_thread(release_size, *_about(deployed.chart), deployed.of_release)
        check_size(size)
        wanted = Wanted(
            namespaced=deployed.of_release,
            cluster=deployed.of_cluster,
            before=(good.manifest if good is not None else None) or [],
            release_bytes=size,
        )
        return await self.clusters.ask(plane, lambda client: make_plan(client, install_id, wanted))

    async def preview(
        self,
        plane: HostedControlPlane,
        install: InstallRow,
        version: PackageVersionRow,
        values: dict[str, Any],
        good: RenderRow | None,
        *,
        operation_id: str,
    ) -> Preview:
        """Return what a version would do to an install that is deployed; nothing is written.

        Args:
            plane: of the install's cluster.
            install: which.
            version: of the package, from the vendor's workspace.
            values: the customer's.
            good: the install's current render.
            operation_id: what the chart is needed for, in audit lines of its registry's secret.

        Raises:
            BulkheadError: as `render` and `plan`.
        """
        rendering = await self.renders.render(
            plane, install, version, values, operation_id=operation_id
        )
        deployed = await asyncio.to_thread(
            Deployed.of, rendering.chart, rendering.manifest, rendering.data
        )
        plan = await self.plan(plane, install.id, deployed, good)
        return Preview(
            render_hash=rendering.render_hash,
            plan={**plan.as_json(), "chart": rendering.chart},
            plan_digest=plan.digest(install.plan_key, rendering.render_hash, version.id, values),
            needs_approval=plan.needs_approval,
            is_unchanged=good is not None and good.render_hash == rendering.render_hash,
        )

    async def apply_release(
        self,
        plane: HostedControlPlane,
        install_id: str,
        deployed: Deployed,
        *,
        replaced: Mapping[str, str],
        seconds: float,
    ) -> int:
        """Have helm bring the release to a render; return its revision.

        Args:
            plane: of the install's cluster.
            install_id: which.
            deployed: the render.
            replaced: the uids of objects that have to go before, by key.
            seconds: how long its hooks may take.

        Raises:
            BulkheadError: FAILED_PRECONDITION when helm or a hook fails;
                DEPENDENCY_UNAVAILABLE when the API server does not answer.
        """
        # Before helm: what the render does not say of its pods must not find an open door.
        _, access, archive = await asyncio.gather(
            self.prepare(plane, install_id, deployed.manifest),
            access_of(self.clusters, plane, install_id),
            asyncio.to_thread(release_chart, *_about(deployed.chart), deployed.of_release),
        )
        await self._ask_as_deployer(
            plane,
            install_id,
            lambda client: remove_replaced(client, install_id, deployed.of_release, replaced),
        )
        return await self._helm.upgrade(
            archive, release_of(install_id), access, seconds=seconds, hidden=deployed.hidden
        )

    async def restore_release(
        self,
        plane: HostedControlPlane,
        install_id: str,
        good: Deployed,
        failed: RenderRow | None,
        *,
        seconds: float,
    ) -> int:
        """Bring the release back to what is deployed, without its hooks; return its revision.

        What the failed render added goes: helm compares with what it deployed last, and does not
        know of it. What was there before it was planned stays, whoever made it.
        """
        plan = None if failed is None else failed.plan
        replaced = uids_in(plan, Change.REPLACED, ObjectScope.NAMESPACE)
        await self.prepare(plane, install_id, good.manifest)
        release = await self._ask_as_deployer(
            plane,
            install_id,
            lambda client: make_way(client, install_id, good.of_release, replaced),
        )
        revision = await self._helm.upgrade(
            await asyncio.to_thread(release_chart, *_about(good.chart), release),
            release_of(install_id),
            await access_of(self.clusters, plane, install_id),
            seconds=seconds,
            with_hooks=False,
            hidden=good.hidden,
        )
        objects = (None if failed is None else failed.manifest) or []
        added = uids_in(plan, Change.ADDED, ObjectScope.NAMESPACE)
        going = added_by(objects, added, good.of_release)
        await self._ask_as_deployer(
            plane, install_id, lambda client: remove_release_objects(client, install_id, going)
        )
        return revision

    async def uninstall(
        self,
        plane: HostedControlPlane,
        install_id: str,
        *,
        seconds: float,
        hooks: bool,
        good: RenderRow | None = None,
    ) -> None:
        """Have helm remove the release; what is not there is fine.

        Args:
            plane: of the install's cluster.
            install_id: which.
            seconds: how long its hooks may take.
            hooks: whether they are run.
            good: what is deployed, whose Secrets no error may repeat.
        """
        if not await self.clusters.ask(plane, lambda client: is_prepared(client, install_id)):
            return
        # Whatever ran there may have taken the deployer's rights.
        await self.prepare(plane, install_id, None if good is None else good.manifest)
        await self._helm.uninstall(
            release_of(install_id),
            await access_of(self.clusters, plane, install_id),
            seconds=seconds,
            with_hooks=hooks,
            hidden=texts_of({} if good is None else await self.renders.data_of(good)),
        )

    async def restore_cluster_objects(
        self,
        plane: HostedControlPlane,
        install_id: str,
        good: Deployed | None,
        references: Sequence[Reference],
    ) -> list[str]:
        """Have the objects of cluster scope as they are deployed, and no other of the install.

        Args:
            plane: of the install's cluster.
            install_id: which.
            good: what is deployed; None: nothing is.
            references: everything of cluster scope that the install ever had.

        Returns:
            What stays as it should not, and why.
        """
        wanted = [] if good is None else good.of_cluster
        changed = await self.cluster_objects.restore(plane, install_id, wanted)
        has = {identity_of(reference_of(found)) for found in wanted}
        going = [one for one in references if identity_of(one) not in has]
        return [*changed, *await self.cluster_objects.remove(plane, install_id, going)]

    async def _ask_as_deployer(
        self,
        plane: HostedControlPlane,
        install_id: str,
        work: Callable[[KubernetesClient], Result],
    ) -> Result:
        return await self.clusters.ask_as(plane, install_user_of(install_id), work)


def _about(chart: dict[str, str]) -> tuple[str, str, str]:
    return chart["name"], chart["semver"], chart.get("app_version", "")
