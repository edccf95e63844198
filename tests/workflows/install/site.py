"""A cluster with a simulated node, a vendor's charts, and installs as the API asks for them."""

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from sqlmodel import select

from domain.caller import Caller
from domain.cluster import HostedControlPlane
from domain.identifiers import Prefix, new_id, opaque_part
from domain.install import Health, InstallState, Sync
from domain.names import install_namespace_of, workflow_id_of
from domain.operation import OperationState, OperationType
from domain.owned_operation import InstallOperation
from domain.package import Channel, SourceKind
from domain.secret import SecretKind, SecretValue
from infra.database.records.install_plan import Deployment, plan_deployment
from infra.database.records.new_rows import NewRows
from infra.database.records.operation import (
    install_operation_of,
    plan_operation,
    request_cancellation,
)
from infra.database.records.secret import begin_secret, complete_version, place_of
from infra.database.tables import (
    ClusterRow,
    InstallRow,
    OperationRow,
    PackageRow,
    PackageVersionRow,
    RenderRow,
)
from infra.helm.archive import read_archive
from infra.helm.chart_cache import ChartCache
from infra.installs.identities import (
    remains_of,
    remove_namespace,
    withdraw_cluster_rights,
)
from infra.kubernetes.client import KubernetesClient, Object
from infra.kubernetes.install_namespaces import INSTALL_LABEL
from infra.kubernetes.kubeconfig import kubeconfig
from infra.kubernetes.logins import Login
from infra.machines.clusters import HostClusters
from infra.openbao.authorities import Authority
from infra.openbao.client import OpenBao
from infra.openbao.leaf import LeafSpec, make_leaf
from infra.temporal.start import cancel_operation, start_operation
from infra.tools import ensure
from tests import charts
from tests.platform import Platform
from tests.workflows.install.deploying import helm_settings

Result = TypeVar("Result")

# What of cluster scope the tests' charts have.
_OF_CLUSTER = (
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
)

_STAGES = Path(__file__).with_name("simulated-pods.yaml")


@dataclass(frozen=True)
class Published:
    """A version of a package of the vendor's."""

    workspace_id: str
    package_id: str
    version_id: str


class Site:
    """The installs on one cluster."""

    def __init__(
        self,
        platform: Platform,
        clusters: HostClusters,
        cluster: HostedControlPlane,
        owner: Caller,
        vendor: Caller,
    ) -> None:
        self.platform = platform
        self.clusters = clusters
        self.cluster = cluster
        self.owner = owner
        self.vendor = vendor
        self._cache = ChartCache(helm_settings(platform.servers.home).cache_dir)
        self._packages: dict[str, str] = {}

    def on(self, cluster: HostedControlPlane) -> "Site":
        """Return the same on another cluster of the owner's."""
        site = Site(self.platform, self.clusters, cluster, self.owner, self.vendor)
        site._packages = self._packages
        return site

    async def ask(self, work: Callable[[KubernetesClient], Result]) -> Result:
        """Ask the cluster as its administrator."""
        return await self.clusters.ask(self.cluster, work)

    async def find(self, install_id: str, path: str) -> Object | None:
        """Return an object of an install's namespace, such as `configmaps/config`."""
        group = "/apis/apps/v1" if path.startswith("deployments") else "/api/v1"
        where = f"{group}/namespaces/{install_namespace_of(install_id)}/{path}"
        return await self.ask(lambda client: client.find(where))

    async def publish(
        self,
        name: str,
        version: str = "1.0.0",
        *,
        files: Mapping[str, str] | None = None,
        package: str | None = None,
    ) -> Published:
        """Have the vendor publish a chart of the tests' as one more version of its package.

        All tests share the package that is called like the chart. One to which it matters which
        version is the newest names a package of its own.
        """
        called = package or name
        content = charts.archive(name, version, files=files)
        chart = read_archive(content, f"oci://charts.test/{name}")
        await asyncio.to_thread(self._cache.write, content)
        workspace = self.vendor.workspace_id
        async with self.platform.api.workspace(workspace) as session:
            package_id = self._packages.get(called)
            if package_id is None:
                package_id = self._packages[called] = new_id(Prefix.PACKAGE)
                session.add(
                    PackageRow(
                        workspace_id=workspace,
                        id=package_id,
                        name=called,
                        source_kind=SourceKind.OCI,
                        source_url=f"oci://charts.test/{name}",
                    )
                )
                await session.flush()
            row = PackageVersionRow(
                workspace_id=workspace,
                id=new_id(Prefix.PACKAGE_VERSION),
                package_id=package_id,
                semver=f"{version}+{new_id(Prefix.REQUEST)[-12:]}",
                sort_key=version,
                channel=Channel.STABLE,
                ref=f"oci://charts.test/{name}@{chart.digest}",
                chart_digest=chart.digest,
                input_schema=chart.schema,
                default_values={},
                compatibility={},
            )
            session.add(row)
        return Published(workspace, package_id, row.id)

    async def plan_create(
        self, published: Published, values: dict[str, Any] | None = None
    ) -> InstallOperation:
        """Write the rows of a new install and its operation, and start nothing."""
        async with self.platform.api.workspace(self.owner.workspace_id) as session:
            cluster = await self._cluster(session)
            install = InstallRow(
                workspace_id=self.owner.workspace_id,
                id=new_id(Prefix.INSTALL),
                cluster_id=cluster.id,
                region_id=cluster.region_id,
                package_workspace_id=published.workspace_id,
                package_id=published.package_id,
                desired_version_id=published.version_id,
                values=values or {},
                labels={},
                channel=Channel.STABLE,
                state=InstallState.PENDING,
                health=Health.UNKNOWN,
                sync=Sync.UNKNOWN,
            )
            session.add(install)
            await session.flush()
            operation, _ = plan_deployment(
                session,
                install,
                cluster,
                self.owner,
                OperationType.INSTALL_CREATE,
                Deployment(version_id=published.version_id, values=values or {}),
            )
            await session.flush()
            return install_operation_of(operation)

    async def create(
        self, published: Published, values: dict[str, Any] | None = None
    ) -> InstallOperation:
        """Ask for a new install."""
        operation = await self.plan_create(published, values)
        await self.start(OperationType.INSTALL_CREATE, operation)
        return operation

    async def installed(self, published: Published, values: dict[str, Any] | None = None) -> str:
        """Have an install that is deployed; return its id."""
        operation = await self.create(published, values)
        await self.platform.succeed(operation)
        return operation.install_id

    async def plan_update(
        self,
        install_id: str,
        version_id: str,
        values: dict[str, Any] | None = None,
        *,
        restored_from: str | None = None,
        skip_unchanged: bool = True,
        request: dict[str, Any] | None = None,
    ) -> InstallOperation:
        """Write the rows of an update, or a restore, and start nothing."""
        kind = OperationType.INSTALL_RESTORE if restored_from else OperationType.INSTALL_RENDER
        async with self.platform.api.workspace(self.owner.workspace_id) as session:
            cluster = await self._cluster(session)
            install = await session.get_one(
                InstallRow, (self.owner.workspace_id, install_id), with_for_update=True
            )
            assert install.active_operation_id is None
            operation, _ = plan_deployment(
                session,
                install,
                cluster,
                self.owner,
                kind,
                Deployment(
                    version_id=version_id,
                    values=install.values if values is None else values,
                    restored_from=restored_from,
                    skip_unchanged=skip_unchanged,
                ),
                request=request,
            )
            await session.flush()
            return install_operation_of(operation)

    async def update(
        self,
        install_id: str,
        published: Published,
        values: dict[str, Any] | None = None,
        *,
        request: dict[str, Any] | None = None,
    ) -> InstallOperation:
        """Ask for an update of an install."""
        operation = await self.plan_update(
            install_id, published.version_id, values, request=request
        )
        await self.start(OperationType.INSTALL_RENDER, operation)
        return operation

    async def restore(self, install_id: str, render: RenderRow) -> InstallOperation:
        """Ask that an earlier render is deployed once more."""
        operation = await self.plan_update(
            install_id, render.package_version_id, render.values, restored_from=render.id
        )
        await self.start(OperationType.INSTALL_RESTORE, operation)
        return operation

    async def plan_delete(self, install_id: str) -> InstallOperation:
        """Write the rows of a delete, which takes the lock over, and start nothing."""
        async with self.platform.api.workspace(self.owner.workspace_id) as session:
            cluster = await self._cluster(session)
            install = await session.get_one(
                InstallRow, (self.owner.workspace_id, install_id), with_for_update=True
            )
            predecessor = install.active_operation_id
            if predecessor is not None:
                await request_cancellation(session, predecessor, self.owner.kind)
            operation = plan_operation(
                session,
                OperationType.INSTALL_DELETE,
                install,
                self.owner,
                request={"type": OperationType.INSTALL_DELETE, "install_id": install_id},
                predecessor_operation_id=predecessor,
                cluster=cluster,
            )
            await session.flush()
            return install_operation_of(operation)

    async def delete(self, install_id: str) -> InstallOperation:
        """Ask that an install goes."""
        operation = await self.plan_delete(install_id)
        if operation.predecessor_operation_id is not None:
            row = await self.platform.operation(operation)
            client = self.platform.client
            async with self.platform.api.workspace(operation.workspace_id) as session:
                before = await session.get_one(
                    OperationRow, (operation.workspace_id, row.predecessor_operation_id)
                )
            await cancel_operation(client, before.type, before.owner_id, before.id)
        await self.start(OperationType.INSTALL_DELETE, operation)
        return operation

    async def start(self, kind: OperationType, operation: InstallOperation) -> None:
        """Start the workflow of a planned operation."""
        await start_operation(self.platform.client, kind, operation)

    async def approve(self, operation: InstallOperation, digest: str | None = None) -> None:
        """Approve the plan of an operation, by its newest digest, as the API does."""
        render = await self.render_of(operation)
        async with self.platform.api.workspace(operation.workspace_id) as session:
            row = await session.get_one(RenderRow, (operation.workspace_id, render.id))
            row.approved_digest = digest or row.plan_digest
            row.approved_by = self.owner.principal_id
        kind = (await self.platform.operation(operation)).type
        handle = self.platform.client.get_workflow_handle(workflow_of(kind, operation))
        await handle.signal("approval_given")

    async def waiting(self, operation: InstallOperation, text: str, within: float = 60) -> None:
        """Wait until an operation says that it waits for something."""
        async with asyncio.timeout(within):
            while text not in ((await self.platform.operation(operation)).waiting_for or ""):
                row = await self.platform.operation(operation)
                assert row.state is OperationState.RUNNING, (row.state, row.error)
                await asyncio.sleep(0.1)

    async def at_step(self, operation: InstallOperation, name: str, within: float = 60) -> None:
        """Wait until a step of an operation runs."""
        async with asyncio.timeout(within):
            while True:
                steps = await self.platform.steps(operation)
                if any((step.name, str(step.status)) == (name, "running") for step in steps):
                    return
                await asyncio.sleep(0.1)

    async def row(self, install_id: str) -> InstallRow | None:
        """Read an install's row, None when it is gone."""
        async with self.platform.api.workspace(self.owner.workspace_id) as session:
            return await session.get(InstallRow, (self.owner.workspace_id, install_id))

    async def known(self, install_id: str) -> InstallRow:
        """Read an install's row, which is there."""
        row = await self.row(install_id)
        assert row is not None
        return row

    async def render_of(self, operation: InstallOperation) -> RenderRow:
        """Read the render of an operation."""
        async with self.platform.api.workspace(operation.workspace_id) as session:
            query = select(RenderRow).where(RenderRow.operation_id == operation.operation_id)
            return (await session.exec(query)).one()

    async def current_render(self, install_id: str) -> RenderRow:
        """Read the render that is deployed."""
        row = await self.known(install_id)
        async with self.platform.api.workspace(self.owner.workspace_id) as session:
            key = (self.owner.workspace_id, row.current_render_id)
            return await session.get_one(RenderRow, key)

    async def remains(self, install_id: str) -> dict[str, Any]:
        """Look everywhere for what is left of an install; empty when nothing is."""
        found: dict[str, Any] = await self.ask(lambda client: remains_of(client, install_id))
        found["keys"] = await asyncio.to_thread(
            self.platform.openbao.installs.leftovers, self.owner.workspace_id, install_id
        )
        found["row"] = await self.row(install_id)
        label = f"{INSTALL_LABEL}={opaque_part(install_id)}"

        def of_cluster(client: KubernetesClient) -> list[str]:
            return [
                thing["metadata"]["name"]
                for collection in _OF_CLUSTER
                for thing in client.list_all(collection, labelSelector=label)
            ]

        found["cluster_objects"] = await self.ask(of_cluster)
        with self.platform.servers.administrator() as administrator:
            found["references"] = administrator.execute(
                "SELECT secret_id FROM secret_references WHERE consumer_id = %s", (install_id,)
            ).fetchall()
        return {kind: thing for kind, thing in found.items() if thing}

    async def new_secret(self, value: str) -> str:
        """Store a secret in the customer's workspace, and return its id."""
        await asyncio.to_thread(self.platform.openbao.ensure_secret_space, self.owner.workspace_id)
        async with self.platform.api.workspace(self.owner.workspace_id) as session:
            version = await begin_secret(
                session, NewRows(), self.owner, name=uuid4().hex, kind=SecretKind.GENERIC
            )
        place = place_of(version)
        stored = SecretValue.of_text(value)
        await asyncio.to_thread(self.platform.openbao.values.write, place, stored)
        async with self.platform.api.workspace(self.owner.workspace_id) as session:
            await complete_version(session, place)
        return version.secret_id

    async def forget(self, install_id: str) -> None:
        """Remove an install whose operations have ended, without a workflow or a wait."""
        with self.platform.servers.administrator() as administrator:
            administrator.execute(
                "DELETE FROM secret_references WHERE consumer_id = %s", (install_id,)
            )
            administrator.execute("DELETE FROM installs WHERE id = %s", (install_id,))
        label = f"{INSTALL_LABEL}={opaque_part(install_id)}"

        def remove(client: KubernetesClient) -> None:
            remove_namespace(client, install_id)
            withdraw_cluster_rights(client, install_id)
            for collection in _OF_CLUSTER:
                for found in client.list_all(collection, labelSelector=label):
                    client.delete(f"{collection}/{found['metadata']['name']}")

        await self.ask(remove)
        await asyncio.to_thread(
            self.platform.openbao.installs.forget_install, self.owner.workspace_id, install_id
        )

    async def _cluster(self, session: Any) -> ClusterRow:  # noqa: ANN401 - of SQLModel
        query = select(ClusterRow).where(ClusterRow.id == self.cluster.cluster_id)
        found: ClusterRow = (await session.exec(query)).one()
        return found


def workflow_of(kind: OperationType, operation: InstallOperation) -> str:
    """Return the id of an operation's workflow."""
    return workflow_id_of(kind, operation.install_id, operation.operation_id)


@contextlib.asynccontextmanager
async def running_site(platform: Platform) -> AsyncIterator[Site]:
    """Make a cluster with a simulated node for as long as the context lasts."""
    owner, vendor = await platform.new_workspace(), await platform.new_workspace()
    requested = await platform.request_cluster(owner)
    await platform.succeed(requested)
    clusters = HostClusters(platform.servers.control_planes, platform.openbao)
    site = Site(platform, clusters, requested.cluster, owner, vendor)
    login = await asyncio.to_thread(simulators_login, platform.openbao, requested.cluster)
    folder = platform.servers.home / "kwok"
    folder.mkdir(exist_ok=True)
    config = folder / "kubeconfig"
    config.write_bytes(kubeconfig(clusters.url_of(requested.cluster), login))
    try:
        await site.ask(lambda client: client.create("/api/v1/nodes", simulated_node()))
        with simulating(config, folder):
            yield site
    finally:
        await platform.delete(requested.cluster, owner)
        clusters.close()


@contextlib.contextmanager
def simulating(config: Path, folder: Path) -> Iterator[None]:
    """Let a cluster's nodes and their pods look alive."""
    command = [
        *(str(ensure(["kwok"])["kwok"]), f"--kubeconfig={config}", f"--config={_STAGES}"),
        *("--manage-all-nodes=true", "--node-lease-duration-seconds=40"),
    ]
    if guard := shutil.which("setpriv"):
        command = [guard, "--pdeathsig", "TERM", *command]
    with (
        (folder / "kwok.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as process,
    ):
        try:
            yield
        finally:
            process.terminate()


def simulators_login(openbao: OpenBao, cluster: HostedControlPlane) -> Login:
    """Return a login of an administrator that outlives the tests; a program has it for its life."""
    leaf = LeafSpec(
        authority=Authority.KUBERNETES,
        common_name="kwok",
        organization="system:masters",
        usages=("ClientAuth",),
    )
    key, certificate = make_leaf(
        lambda request, usages: openbao.sign(
            cluster, leaf.authority, request, usages=usages, lifetime_seconds=24 * 3600
        ),
        leaf,
    )
    return Login(openbao.certificate_of(cluster, leaf.authority), certificate, key)


def simulated_node() -> Object:
    """Return a node as it is asked for; nothing of it exists."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "simulated", "labels": {"kubernetes.io/hostname": "simulated"}},
    }
