"""What versions and values come to, and where that is kept.

What a chart puts into Secrets passes through memory alone: to OpenBao, and from there back.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Self

from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError, Reason
from domain.names import install_namespace_of
from domain.secret_use import with_object_names
from infra.database.tables import InstallRow, PackageVersionRow, RenderRow
from infra.helm.chart_access import ChartAccess
from infra.helm.manifest import SecretData, is_secret, redact, render_hash, restore, split, texts_of
from infra.helm.program import Helm
from infra.installs.crds import CRD, kinds_brought_by
from infra.installs.identities import access_of, refuse_reserved, release_of
from infra.installs.secret_echoes import carried_texts, echoes_in, refuse_echoes
from infra.kubernetes.client import KubernetesClient, Object
from infra.kubernetes.discovery import Discovery
from infra.machines.clusters import HostClusters
from infra.openbao.install_vault import InstallVault

# What `helm list` shows of a render whose chart nobody noted.
_NO_CHART: Final = {"name": "bulkhead", "semver": "0.0.0", "app_version": ""}

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

    @classmethod
    def of(cls, objects: list[Object], key: bytes, chart: dict[str, str]) -> Self:
        """Take the data of Secrets out of objects, and leave digests by a key in its place."""
        manifest, data = redact(objects, key)
        return cls(manifest=manifest, data=data, render_hash=render_hash(manifest), chart=chart)


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

    @classmethod
    def of(cls, chart: dict[str, str], manifest: list[Object], data: SecretData) -> Self:
        """Put the data of Secrets back into objects."""
        objects = restore(manifest, data)
        return cls(chart=chart, manifest=manifest, objects=objects, hidden=texts_of(data))

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


class Renders:
    """Renders of the installs on one host's clusters. Every method may be repeated."""

    def __init__(
        self, clusters: HostClusters, vault: InstallVault, charts: ChartAccess, helm: Helm
    ) -> None:
        self._clusters = clusters
        self._vault = vault
        self._charts = charts
        self._helm = helm

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
        # Not beside the chart, which may take a while to come: what is in Secrets shall be read
        # as late as it can be before templates look for them.
        access, key, carried = await asyncio.gather(
            access_of(self._clusters, plane, install.id),
            asyncio.to_thread(self._vault.render_key, install.workspace_id, install.id),
            self._clusters.ask(plane, lambda client: carried_texts(client, install.id)),
        )
        template = partial(
            self._helm.template,
            chart.archive,
            with_object_names(merged(version.default_values, values)),
            release_of(install.id),
            is_upgrade=install.current_render_id is not None,
            hidden=carried,
            workspace_id=plane.workspace_id,
        )
        found = await template(access)
        space = install_namespace_of(install.id)
        parts = await self._clusters.ask(
            plane, lambda client: split(found, Discovery(client), space)
        )
        refuse_reserved(parts.namespaced)
        about = {"name": chart.name, "semver": chart.semver, "app_version": chart.app_version}
        objects = [*parts.namespaced, *parts.cluster]
        rendering = await asyncio.to_thread(Rendering.of, objects, key, about)
        echoes = await asyncio.to_thread(echoes_in, rendering.manifest, carried)
        if echoes:
            unseeing = await self._without_lookups(plane, template)
            await asyncio.to_thread(refuse_echoes, echoes, unseeing)
        return rendering

    async def _without_lookups(
        self, plane: HostedControlPlane, template: Callable[..., Awaitable[list[Object]]]
    ) -> list[Object]:
        """Return what a chart comes to when nobody is asked; nothing when it then fails."""
        version, kinds = await self._clusters.ask(plane, _capabilities)
        try:
            return await template(kube_version=version, api_versions=kinds)
        except BulkheadError as error:
            if error.retryable:
                raise
            return []

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
        if not any(is_secret(found) for found in render.manifest or []):
            return {}
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
        return await asyncio.to_thread(Deployed.of, chart, render.manifest or [], data)


def _capabilities(client: KubernetesClient) -> tuple[str, list[str]]:
    """Return what templates see of a cluster: its version, and the kinds that CRDs brought."""
    crds = client.list_all("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
    kinds = kinds_brought_by({"kind": CRD, **found} for found in crds)
    versions = {version for version, _ in kinds} | {"/".join(kind) for kind in kinds}
    return str(client.get("/version")["gitVersion"]), sorted(versions)


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
