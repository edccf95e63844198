"""Renders, plans and applies installs on the clusters of one host.

Megabytes of objects are worked on in threads: the worker's heart beats in its event loop.
It writes no row: activities do. What a chart puts into Secrets passes through memory alone: to
OpenBao, from there to helm, and nowhere else.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError, Reason
from domain.names import install_namespace_of, install_user_of
from domain.pod_security import level_of
from domain.secret_use import with_object_names
from infra.database.tables import InstallRow, PackageVersionRow, RenderRow
from infra.helm.archive import looks_up
from infra.helm.chart_access import ChartAccess
from infra.helm.manifest import (
    SecretData,
    hooks_of,
    is_kept,
    key_of,
    redact,
    render_hash,
    restore,
    split,
    texts_of,
)
from infra.helm.program import ClusterAccess, Helm
from infra.helm.release_chart import check_size, release_chart, release_size
from infra.helm.releases import Release
from infra.installs.applier import ClusterObjects, Reference, remove_release_objects
from infra.installs.identities import is_prepared, prepare_namespace, refuse_reserved
from infra.installs.planner import Plan, Wanted, conflicts, make_plan
from infra.installs.secret_echoes import carried_texts, refuse_echoes
from infra.kubernetes.client import KubernetesClient, Object
from infra.kubernetes.discovery import Discovery
from infra.machines.clusters import HostClusters
from infra.openbao.install_vault import InstallVault

# What `helm list` shows of a render whose chart nobody noted.
_NO_CHART: Final = {"name": "bulkhead", "semver": "0.0.0", "app_version": ""}

Result = TypeVar("Result")

# OpenBao keeps an entry in one piece of at most 1 MiB.
_SECRET_BYTES: Final = 700_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendering:
    """What a version and values came to.

    Attributes:
        manifest: the objects, sorted, with a keyed digest for each datum of a Secret.
        data: what these stand for; nowhere but in memory and in OpenBao.
        render_hash: the same whenever it came to the same.
        chart: the chart's `name`, `semver` and `app_version`.
    """

    manifest: list[Object]
    data: SecretData = field(repr=False)
    render_hash: str
    chart: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What a version would do to an install, of which nothing was written or changed."""

    render_hash: str
    plan: dict[str, Any]
    plan_digest: str
    needs_approval: bool
    is_unchanged: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployed:
    """A render as helm gets it.

    Attributes:
        chart: the chart's `name`, `semver` and `app_version`.
        manifest: the objects with digests of what is in Secrets.
        objects: the same with the data.
        hidden: the data as texts, which no error may repeat.
    """

    chart: dict[str, str]
    manifest: list[Object]
    objects: list[Object] = field(repr=False)
    hidden: set[str] = field(repr=False)

    @property
    def of_release(self) -> list[Object]:
        """The objects in the install's namespace, hooks among them."""
        return [found for found in self.objects if is_in_namespace(found)]

    @property
    def of_cluster(self) -> list[Object]:
        """The objects of cluster scope."""
        return [found for found in self.objects if not is_in_namespace(found)]


def is_in_namespace(manifest: Object) -> bool:
    """Tell whether a rendered object is in the install's namespace, and not of the cluster."""
    return bool(manifest["metadata"].get("namespace"))


class Deployer:
    """The installs on one host's clusters. Every method may be repeated."""

    def __init__(
        self, clusters: HostClusters, vault: InstallVault, charts: ChartAccess, helm: Helm
    ) -> None:
        self.clusters = clusters
        self.cluster_objects = ClusterObjects(clusters)
        self._vault = vault
        self._charts = charts
        self._helm = helm

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

    async def render(
        self,
        plane: HostedControlPlane,
        install: InstallRow,
        version: PackageVersionRow,
        values: dict[str, Any],
        *,
        operation_id: str,
    ) -> Rendering:
        """Render a version with a customer's values over the version's own.

        Raises:
            BulkheadError: INVALID_ARGUMENT for values that the chart's schema refuses, and for
                templates that fail; FAILED_PRECONDITION for what the cluster does not serve;
                DEPENDENCY_UNAVAILABLE when registry or API server do not answer.
        """
        chart = await self._charts.chart_of(
            version.workspace_id, version.ref, version.chart_digest, operation_id=operation_id
        )
        carried: dict[str, str] = {}
        if await asyncio.to_thread(looks_up, chart.archive):
            carried = await self.clusters.ask(
                plane, lambda client: carried_texts(client, install.id)
            )
        found = await self._helm.template(
            chart.archive,
            with_object_names(merged(version.default_values, values)),
            _release_of(install.id),
            await self._access(plane, install.id),
            is_upgrade=install.current_render_id is not None,
            hidden=carried,
        )
        space = install_namespace_of(install.id)
        parts = await self.clusters.ask(
            plane, lambda client: split(found, Discovery(client), space)
        )
        refuse_reserved(parts.namespaced)
        key = await asyncio.to_thread(self._vault.render_key, install.workspace_id, install.id)
        about = {"name": chart.name, "semver": chart.semver, "app_version": chart.app_version}
        objects = [*parts.namespaced, *parts.cluster]
        rendering = await asyncio.to_thread(_rendering, objects, key, about)
        await asyncio.to_thread(refuse_echoes, rendering.manifest, carried)
        return rendering

    async def keep(self, install: InstallRow, render_id: str, data: SecretData) -> None:
        """Keep what a render puts into Secrets.

        Raises:
            BulkheadError: FAILED_PRECONDITION when it is more than OpenBao takes.
        """
        size = sum(
            len(name) + len(text)
            for fields in data.values()
            for texts in fields.values()
            for name, text in texts.items()
        )
        if size > _SECRET_BYTES:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"The chart puts {size:,} bytes into Secrets, and at most {_SECRET_BYTES:,} are "
                "kept for one render. Split the chart, or take large files out of its Secrets.",
                metadata={"bytes": str(size), "limit": str(_SECRET_BYTES)},
            )
        await asyncio.to_thread(
            self._vault.keep_render, install.workspace_id, install.id, render_id, data
        )

    async def data_of(self, render: RenderRow) -> SecretData:
        """Return what a render puts into Secrets."""
        return await asyncio.to_thread(
            self._vault.render_data, render.workspace_id, render.install_id, render.id
        )

    async def forget(self, install: InstallRow, render_id: str) -> None:
        """Keep no more what a render puts into Secrets."""
        await asyncio.to_thread(
            self._vault.forget_render, install.workspace_id, install.id, render_id
        )

    async def load(self, render: RenderRow) -> Deployed:
        """Return a stored render with the data of its Secrets.

        Raises:
            BulkheadError: FAILED_PRECONDITION when they are not kept any more.
        """
        chart = (render.plan or {}).get("chart") or _NO_CHART
        data = await self.data_of(render)
        return await asyncio.to_thread(_deployed, chart, render.manifest or [], data)

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
        rendering = await self.render(plane, install, version, values, operation_id=operation_id)
        deployed = await asyncio.to_thread(
            _deployed, rendering.chart, rendering.manifest, rendering.data
        )
        plan = await self.plan(plane, install.id, deployed, good)
        return Preview(
            render_hash=rendering.render_hash,
            plan={**plan.as_json(), "chart": rendering.chart},
            plan_digest=plan.digest(rendering.render_hash, version.id, values),
            needs_approval=plan.needs_approval,
            is_unchanged=good is not None and good.render_hash == rendering.render_hash,
        )

    async def apply_release(
        self,
        plane: HostedControlPlane,
        install_id: str,
        deployed: Deployed,
        *,
        replaced: frozenset[str],
        seconds: float,
    ) -> int:
        """Have helm bring the release to a render; return its revision.

        Args:
            plane: of the install's cluster.
            install_id: which.
            deployed: the render.
            replaced: the objects that have to go before.
            seconds: how long its hooks may take.

        Raises:
            BulkheadError: FAILED_PRECONDITION when helm or a hook fails;
                DEPENDENCY_UNAVAILABLE when the API server does not answer.
        """
        # Before helm: what the render does not say of its pods must not find an open door.
        await self.prepare(plane, install_id, deployed.manifest)
        going = [found for found in deployed.of_release if key_of(found) in replaced]
        await self._remove(plane, install_id, [one for one in going if not hooks_of(one)])
        return await self._helm.upgrade(
            await asyncio.to_thread(release_chart, *_about(deployed.chart), deployed.of_release),
            _release_of(install_id),
            await self._access(plane, install_id),
            seconds=seconds,
            hidden=deployed.hidden,
        )

    async def restore_release(
        self,
        plane: HostedControlPlane,
        install_id: str,
        good: Deployed,
        failed: Sequence[Object],
        *,
        seconds: float,
    ) -> int:
        """Bring the release back to what is deployed, without its hooks; return its revision.

        What the failed render added goes: helm compares with what it deployed last, and does not
        know of it.
        """
        await self.prepare(plane, install_id, good.manifest)
        in_the_way = await self._ask_as_deployer(
            plane, install_id, lambda client: conflicts(client, install_id, good.of_release)
        )
        await self._remove(plane, install_id, in_the_way)
        revision = await self._helm.upgrade(
            await asyncio.to_thread(release_chart, *_about(good.chart), good.of_release),
            _release_of(install_id),
            await self._access(plane, install_id),
            seconds=seconds,
            with_hooks=False,
            hidden=good.hidden,
        )
        kept = {key_of(found) for found in good.of_release if not hooks_of(found)}
        added = [
            found
            for found in failed
            if is_in_namespace(found) and key_of(found) not in kept and not is_kept(found)
        ]
        await self._remove(plane, install_id, added)
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
            _release_of(install_id),
            await self._access(plane, install_id),
            seconds=seconds,
            with_hooks=hooks,
            hidden=texts_of({} if good is None else await self.data_of(good)),
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
            What stays although it should go, and why.
        """
        wanted = [] if good is None else good.of_cluster
        await self.cluster_objects.apply(plane, install_id, wanted)
        names = {(found["kind"], found["metadata"]["name"]) for found in wanted}
        going = [one for one in references if (one["kind"], one["name"]) not in names]
        return await self.cluster_objects.remove(plane, install_id, going)

    async def _remove(
        self, plane: HostedControlPlane, install_id: str, manifests: Sequence[Object]
    ) -> None:
        if manifests:
            await self._ask_as_deployer(
                plane,
                install_id,
                lambda client: remove_release_objects(client, install_id, manifests),
            )

    async def _ask_as_deployer(
        self,
        plane: HostedControlPlane,
        install_id: str,
        work: Callable[[KubernetesClient], Result],
    ) -> Result:
        return await self.clusters.ask_as(plane, install_user_of(install_id), work)

    async def _access(self, plane: HostedControlPlane, install_id: str) -> ClusterAccess:
        login = await self.clusters.login_as(plane, install_user_of(install_id))
        return ClusterAccess(self.clusters.url_of(plane), login)


def _rendering(objects: list[Object], key: bytes, chart: dict[str, str]) -> Rendering:
    manifest, data = redact(objects, key)
    return Rendering(manifest=manifest, data=data, render_hash=render_hash(manifest), chart=chart)


def _deployed(chart: dict[str, str], manifest: list[Object], data: SecretData) -> Deployed:
    objects = restore(manifest, data)
    return Deployed(chart=chart, manifest=manifest, objects=objects, hidden=texts_of(data))


def merged(defaults: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return values over defaults as helm lays them: mappings into each other, the rest anew."""
    found = dict(defaults)
    for name, value in values.items():
        before = found.get(name)
        if isinstance(before, dict) and isinstance(value, dict) and "$secret" not in value:
            found[name] = merged(before, value)
        else:
            found[name] = value
    return found


def _release_of(install_id: str) -> Release:
    space = install_namespace_of(install_id)
    return Release(space, space)


def _about(chart: dict[str, str]) -> tuple[str, str, str]:
    return chart["name"], chart["semver"], chart.get("app_version", "")
