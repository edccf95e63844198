"""Rows of installs and a real cluster, without the workflows that deploy."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlmodel import SQLModel, col, select

from domain.cluster import ClusterProvider, ClusterState, HostedControlPlane
from domain.identifiers import Prefix, new_id
from domain.install import Consent, DriftState, Health, InstallState, RenderState, Sync
from domain.names import install_namespace_of
from domain.package import Channel, SourceKind
from infra.database.engine import Database, DatabaseRole
from infra.database.records.install_drift import InstallDriftRecords
from infra.database.tables import (
    ClusterRow,
    EmergencyStopRow,
    GrantRow,
    InstallDriftRow,
    InstallRow,
    PackageRow,
    RegionRow,
    RenderRow,
    WorkspaceRow,
)
from infra.helm.manifest import redact
from infra.installs.identities import prepare_namespace
from infra.installs.observer import InstallObserver
from infra.installs.ownership import RELEASE_MANAGER, as_release
from infra.kubernetes.client import KubernetesClient, Object
from infra.kubernetes.discovery import Discovery
from infra.machines.clusters import HostClusters
from infra.settings import DatabaseSettings
from tests.infra.control_planes.host import Host

Change = dict[str, Any]


class World:
    """One workspace with one cluster; each test has installs of its own."""

    def __init__(self, settings: DatabaseSettings, host: Host, cluster: HostedControlPlane) -> None:
        self.host = host
        self.cluster = cluster
        self.workspace = host.workspace_id
        self.vendor = new_id(Prefix.WORKSPACE)
        self.package = new_id(Prefix.PACKAGE)
        self.product = new_id(Prefix.PRODUCT)
        self.region = new_id(Prefix.REGION)
        self.database = Database(settings, DatabaseRole.WORKER)
        self.sweeper = Database(settings, DatabaseRole.SWEEPER)
        self._api = Database(settings, DatabaseRole.API)
        self.clusters = HostClusters(host.settings, host.openbao)
        self.drift = InstallDriftRecords(self.database, self.sweeper)
        # What observers of these tests take for now.
        self.now = datetime.now(UTC)

    async def prepare(self) -> None:
        """Make what every install refers to."""
        for workspace in (self.workspace, self.vendor):
            async with self._api.workspace(workspace) as session:
                session.add(WorkspaceRow(id=workspace, name="test", slug=workspace[-30:]))
        await self.add(
            self.vendor,
            PackageRow(
                workspace_id=self.vendor,
                id=self.package,
                name="web",
                source_kind=SourceKind.OCI,
                source_url="oci://registry.test/web",
            ),
        )
        await self.add(
            self.workspace, RegionRow(workspace_id=self.workspace, id=self.region, name="here")
        )
        await self.add(
            self.workspace,
            ClusterRow(
                workspace_id=self.workspace,
                id=self.cluster.cluster_id,
                name="test",
                region_id=self.region,
                provider=ClusterProvider.MANAGED_KAAS,
                network_profile=self.cluster.network_profile,
                state=ClusterState.ACTIVE,
                host=self.cluster.host,
                slot=self.cluster.slot,
            ),
        )

    async def close(self) -> None:
        """Close what is open."""
        self.clusters.close()
        for database in (self.database, self.sweeper, self._api):
            await database.close()

    def observer(self) -> InstallObserver:
        """Return an observer whose clock is `now`."""
        return InstallObserver(
            self.database,
            self.sweeper,
            self.clusters,
            self.host.settings.host,
            clock=lambda: self.now,
        )

    async def watch(self, observer: InstallObserver, *, seconds: float, step: float = 10) -> None:
        """Let time pass, with a look each step."""
        for _ in range(int(seconds / step) + 1):
            await observer.look_at_all()
            self.now += timedelta(seconds=step)

    async def deploy(self, *objects: Object, **columns: Any) -> str:  # noqa: ANN401 - columns
        """Have an install with these objects on the cluster, as helm would have them there."""
        install_id, render_id = new_id(Prefix.INSTALL), new_id(Prefix.RENDER)
        space = install_namespace_of(install_id)
        placed = [{**one, "metadata": {"namespace": space, **one["metadata"]}} for one in objects]
        key = self.host.openbao.installs.render_key(self.workspace, install_id)
        await self.clusters.ask(self.cluster, lambda client: _apply(client, install_id, placed))
        version = new_id(Prefix.PACKAGE_VERSION)
        wanted = {
            "state": InstallState.HEALTHY,
            "health": Health.UNKNOWN,
            "sync": Sync.UNKNOWN,
            "channel": Channel.STABLE,
        }
        install = InstallRow(
            workspace_id=self.workspace,
            id=install_id,
            cluster_id=self.cluster.cluster_id,
            region_id=self.region,
            package_workspace_id=self.vendor,
            package_id=self.package,
            product_id=self.product,
            desired_version_id=version,
            current_version_id=version,
            current_render_id=render_id,
            values={},
            labels={},
            **{**wanted, **columns},
        )
        await self.add(self.workspace, install)
        render = RenderRow(
            workspace_id=self.workspace,
            id=render_id,
            install_id=install_id,
            package_version_id=version,
            state=RenderState.DEPLOYED,
            values={},
            manifest=redact(placed, key)[0],
        )
        await self.add(self.workspace, render)
        return install_id

    async def add_to_render(self, install_id: str, extra: Object) -> None:
        """Have one more object in the render, which nobody applied."""
        current = (await self.install(install_id)).current_render_id
        async with self.database.workspace(self.workspace) as session:
            render = await session.get_one(RenderRow, (self.workspace, current))
            render.manifest = [*(render.manifest or ()), extra]
            session.add(render)

    async def grant(self, install_id: str) -> str:
        """Have a grant on an install."""
        grant = GrantRow(
            workspace_id=self.workspace,
            id=new_id(Prefix.GRANT),
            install_id=install_id,
            cluster_id=self.cluster.cluster_id,
            region_id=self.region,
            vendor_workspace_id=self.vendor,
            product_id=self.product,
            labels={},
            channel=Channel.STABLE,
            consent=Consent.AUTOMATIC,
            health=Health.UNKNOWN,
        )
        await self.add(self.workspace, grant)
        return grant.id

    async def granted(self, grant_id: str) -> GrantRow:
        """Read a grant as its vendor does."""
        async with self.database.workspace(self.vendor) as session:
            query = select(GrantRow).where(GrantRow.id == grant_id)
            return (await session.exec(query)).one()

    async def install(self, install_id: str) -> InstallRow:
        """Read an install."""
        async with self.database.workspace(self.workspace) as session:
            return await session.get_one(InstallRow, (self.workspace, install_id))

    async def change(self, install_id: str, **columns: Any) -> None:  # noqa: ANN401 - columns
        """Write columns of an install."""
        async with self.database.workspace(self.workspace) as session:
            row = await session.get_one(InstallRow, (self.workspace, install_id))
            for name, value in columns.items():
                setattr(row, name, value)
            session.add(row)

    async def forget_installs(self) -> None:
        """Remove the rows of all installs; what they have on the cluster stays."""
        async with self.database.workspace(self.workspace) as session:
            await session.execute(text("DELETE FROM installs"))

    async def lift(self, stop_id: str) -> None:
        """Lift an emergency stop."""
        async with self._api.workspace(self.workspace) as session:
            row = await session.get_one(EmergencyStopRow, (self.workspace, stop_id))
            row.lifted_at = datetime.now(UTC)
            session.add(row)

    async def findings(self, install_id: str) -> dict[str, tuple[DriftState, list[Change]]]:
        """Return the newest finding of each object, by its kind and name."""
        async with self.database.workspace(self.workspace) as session:
            query = select(InstallDriftRow).where(InstallDriftRow.install_id == install_id)
            rows = await session.exec(query.order_by(col(InstallDriftRow.first_seen_at)))
            return {
                "/".join(row.object_key.split("/")[1::2]): (row.state, row.delta) for row in rows
            }

    async def version_of_row(self, install_id: str) -> str:
        """Return what changes with every write of an install's row."""
        async with self.database.workspace(self.workspace) as session:
            query = text("SELECT xmin::text || ctid::text FROM installs WHERE id = :id")
            found: str = (await session.execute(query, {"id": install_id})).scalar_one()
            return found

    async def add(self, workspace: str, row: SQLModel) -> None:
        """Add a row, as the API does."""
        async with self._api.workspace(workspace) as session:
            session.add(row)


def _apply(client: KubernetesClient, install_id: str, objects: list[Object]) -> None:
    prepare_namespace(client, install_id)
    discovery = Discovery(client)
    for one in objects:
        path = discovery.path_of(one, install_namespace_of(install_id))
        assert path is not None
        client.apply(path, as_release(one, install_id), manager=RELEASE_MANAGER)
