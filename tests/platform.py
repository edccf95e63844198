"""A worker on real servers inside the test process, and clusters asked for as the API does."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio.client import Client
from temporalio.worker import Interceptor

from domain.caller import Caller, PrincipalKind, Role
from domain.cluster import (
    CONTROL_PLANE_MEMORY_BYTES,
    ClusterProvider,
    ClusterState,
    HostedControlPlane,
    NetworkProfile,
)
from domain.identifiers import Prefix, new_id
from domain.names import workflow_id_of
from domain.operation import OperationState, OperationType
from domain.owned_operation import (
    ClusterOperation,
    InstallOperation,
    MachineOperation,
    MachinePoolOperation,
    PackageOperation,
    SecretOperation,
    WorkerBootstrapOperation,
)
from infra.control_planes.processes import ProcessBackend
from infra.database.engine import Database, DatabaseRole
from infra.database.records.operation import (
    cluster_operation_of,
    plan_operation,
    request_cancellation,
)
from infra.database.records.placement import register_host
from infra.database.tables import (
    ClusterRow,
    OperationRow,
    OperationStepRow,
    RegionRow,
    WorkspaceRow,
)
from infra.openbao.client import OpenBao
from infra.openbao.policies import WORKER
from infra.settings import (
    HelmSettings,
    OutboundSettings,
    ProviderSettings,
    StackSettings,
    WorkerSettings,
)
from infra.temporal.client import TemporalConnection
from infra.temporal.start import cancel_operation, start_operation
from infra.waiting import when_available
from tests.servers import Servers
from tests.stalls import why_it_stands
from worker import WorkerProcess

POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Requested:
    """A cluster and the operation that was asked for it."""

    cluster: HostedControlPlane
    operation_id: str

    @property
    def workspace_id(self) -> str:
        return self.cluster.workspace_id


# An operation that was asked for, whoever owns it.
Asked = (
    Requested
    | InstallOperation
    | MachineOperation
    | MachinePoolOperation
    | PackageOperation
    | SecretOperation
    | WorkerBootstrapOperation
)


class Platform:
    """What a test asks of Bulkhead below its API, and how it looks at what came of it."""

    def __init__(self, servers: Servers, connection: TemporalConnection, client: Client) -> None:
        self.servers = servers
        self.connection = connection
        self.client = client
        self.api = Database(servers.database, DatabaseRole.API)
        self.openbao = OpenBao(servers.openbao("worker"))
        self.backend = ProcessBackend(servers.control_planes, self.openbao)
        # The workers; one that has ended before the tests did was broken.
        self.serving: Sequence[asyncio.Task[None]] = ()
        # What tests have no more use for, by its state and with its owner: one a state.
        self.spare: dict[ClusterState, tuple[HostedControlPlane, Caller]] = {}

    async def new_workspace(self) -> Caller:
        """Make a workspace with one region and return its owner."""
        caller = Caller(
            kind=PrincipalKind.USER,
            principal_id=new_id(Prefix.USER),
            workspace_id=new_id(Prefix.WORKSPACE),
            role=Role.OWNER,
        )
        async with self.api.workspace(caller.workspace_id) as session:
            session.add(
                WorkspaceRow(id=caller.workspace_id, name="test", slug=caller.workspace_id[-30:])
            )
            await session.flush()
            session.add(
                RegionRow(workspace_id=caller.workspace_id, id=new_id(Prefix.REGION), name="here")
            )
        return caller

    async def request_cluster(self, caller: Caller) -> Requested:
        """Ask for a new cluster."""
        planned = await self.plan_cluster(caller)
        await start_operation(self.client, OperationType.CLUSTER_CREATE, planned)
        return Requested(cluster=planned.control_plane, operation_id=planned.operation_id)

    async def plan_cluster(self, caller: Caller, host: str | None = None) -> ClusterOperation:
        """Write the rows of a new cluster and its operation, and start nothing.

        With `host` nothing is placed: the cluster is for a worker that makes no control plane.
        """
        async with self.api.workspace(caller.workspace_id) as session:
            cluster = await self.new_cluster(session, caller, host)
            session.add(cluster)
            operation = self._plan(session, OperationType.CLUSTER_CREATE, cluster, caller)
            await session.flush()
            return cluster_operation_of(operation)

    async def new_cluster(
        self, session: AsyncSession, caller: Caller, host: str | None = None
    ) -> ClusterRow:
        """Return the row of a new cluster; see `plan_cluster`."""
        cluster_id = new_id(Prefix.CLUSTER)
        region = (await session.exec(select(RegionRow))).one()
        slot = 0
        if host is None:
            placed = await session.execute(
                text("SELECT host, slot FROM reserve_slot(:cluster, :memory)"),
                {"cluster": cluster_id, "memory": CONTROL_PLANE_MEMORY_BYTES},
            )
            host, slot = placed.one()
        return ClusterRow(
            workspace_id=caller.workspace_id,
            id=cluster_id,
            name="test",
            region_id=region.id,
            provider=ClusterProvider.MANAGED_KAAS,
            network_profile=NetworkProfile.LINUX_CILIUM,
            state=ClusterState.PENDING,
            host=host,
            slot=slot,
        )

    async def request(
        self, operation_type: OperationType, cluster: HostedControlPlane, caller: Caller
    ) -> Requested:
        """Ask for an operation on a cluster; a delete takes the lock over as the API lets it."""
        async with self.api.workspace(cluster.workspace_id) as session:
            row = (
                await session.exec(
                    select(ClusterRow).where(ClusterRow.id == cluster.cluster_id).with_for_update()
                )
            ).one()
            predecessor = row.active_operation_id
            if operation_type is OperationType.CLUSTER_DELETE:
                row.state = ClusterState.DELETING
                if predecessor is not None:
                    await request_cancellation(session, predecessor, caller.kind)
            else:
                assert predecessor is None
            if operation_type is OperationType.CLUSTER_RESUME:
                await session.execute(
                    text("SELECT claim_slot_memory(:cluster, :memory)"),
                    {"cluster": row.id, "memory": CONTROL_PLANE_MEMORY_BYTES},
                )
            operation = self._plan(session, operation_type, row, caller, predecessor)
            await session.flush()
        return await self._start(operation)

    async def cancel(self, requested: Asked) -> bool:
        """Ask an operation to stop, as the API does. False: it can only go forward by now."""
        async with self.api.workspace(requested.workspace_id) as session:
            accepted = await request_cancellation(
                session, requested.operation_id, PrincipalKind.USER
            )
            operation = await self.operation(requested, session)
        if accepted:
            await cancel_operation(
                self.client, operation.type, operation.owner_id, requested.operation_id
            )
        return accepted

    async def end_of(self, requested: Asked, within_seconds: float) -> OperationState:
        """Wait for an operation's end; fail with its steps when it does not come in time."""
        deadline = time.monotonic() + within_seconds
        # The first look counts however long it takes: what has ended before has ended.
        operation = await self.operation(requested)
        while operation.state is OperationState.RUNNING:
            for worker in self.serving:
                if worker.done():
                    # By itself, because something in it broke, which is raised here.
                    worker.result()
            await asyncio.sleep(POLL_SECONDS)
            operation = await self.operation(requested)
            if time.monotonic() > deadline:
                raise AssertionError(await self._stands(operation, requested, within_seconds))
        return operation.state

    async def _stands(self, operation: OperationRow, requested: Asked, seconds: float) -> str:
        """Return why an operation has not ended in time."""
        steps = await self.steps(requested)
        states = {step.name: (step.status, step.error_message) for step in steps}
        workflow_id = workflow_id_of(operation.type, operation.owner_id, operation.id)
        log = self.servers.home / "supervisor" / "logs" / "temporal.temporal.log"
        why = await why_it_stands(self.client, workflow_id, log)
        return f"{operation.state} after {seconds} s: {states}\n{why}"

    async def succeed(self, requested: Asked) -> None:
        """Wait until an operation has succeeded."""
        state = await self.end_of(requested, 120)
        operation = await self.operation(requested)
        assert state is OperationState.SUCCEEDED, operation.error

    async def operation(
        self, requested: Asked, session: AsyncSession | None = None
    ) -> OperationRow:
        """Read an operation's row."""
        key = (requested.workspace_id, requested.operation_id)
        if session is not None:
            return await session.get_one(OperationRow, key)
        async with self.api.workspace(requested.workspace_id) as own:
            return await own.get_one(OperationRow, key)

    async def steps(self, requested: Asked) -> list[OperationStepRow]:
        """Read an operation's steps in their order."""
        async with self.api.workspace(requested.workspace_id) as session:
            query = select(OperationStepRow).where(
                OperationStepRow.operation_id == requested.operation_id
            )
            rows = await session.exec(query.order_by(col(OperationStepRow.position)))
            return list(rows)

    async def row(self, cluster: HostedControlPlane) -> ClusterRow | None:
        """Read a cluster's row, None when it is gone."""
        async with self.api.workspace(cluster.workspace_id) as session:
            return await session.get(ClusterRow, (cluster.workspace_id, cluster.cluster_id))

    async def remains(self, cluster: HostedControlPlane) -> dict[str, Any]:
        """Look everywhere for what is left of a cluster; empty when nothing is."""
        found: dict[str, Any] = {
            kind: things
            for kind, things in (
                await asyncio.to_thread(self.backend.find_remains, cluster)
            ).items()
            if things
        }
        secrets = await asyncio.to_thread(self.openbao.find_leftovers, cluster)
        if secrets:
            found["secrets"] = secrets
        if await self.row(cluster) is not None:
            found["row"] = cluster.cluster_id
        with self.servers.administrator() as administrator:
            slots = administrator.execute(
                "SELECT slot FROM control_plane_slots WHERE cluster_id = %s", (cluster.cluster_id,)
            ).fetchall()
        if slots:
            found["slot"] = slots
        return found

    async def running(self, cluster: HostedControlPlane) -> list[str]:
        """Return the components of a cluster that have a process."""
        description = await asyncio.to_thread(self.backend.describe, cluster)
        return [status.component.value for status in description.components if status.pid]

    async def delete(self, cluster: HostedControlPlane, caller: Caller) -> None:
        """Remove a cluster for good, if it is there."""
        if await self.row(cluster) is not None:
            await self.succeed(await self.request(OperationType.CLUSTER_DELETE, cluster, caller))

    async def close(self) -> None:
        """Close what the platform holds open."""
        await self.api.close()
        self.openbao.close()
        self.connection.close()

    def _plan(
        self,
        session: AsyncSession,
        operation_type: OperationType,
        cluster: ClusterRow,
        caller: Caller,
        predecessor: str | None = None,
    ) -> OperationRow:
        return plan_operation(
            session,
            operation_type,
            cluster,
            caller,
            request={"type": operation_type, "cluster_id": cluster.id},
            predecessor_operation_id=predecessor,
        )

    async def _start(self, operation: OperationRow) -> Requested:
        planned = cluster_operation_of(operation)
        if operation.predecessor_operation_id is not None:
            before = Requested(
                cluster=planned.control_plane, operation_id=operation.predecessor_operation_id
            )
            row = await self.operation(before)
            await cancel_operation(self.client, row.type, row.owner_id, row.id)
        await start_operation(self.client, operation.type, planned)
        return Requested(cluster=planned.control_plane, operation_id=operation.id)


@contextlib.asynccontextmanager
async def running_platform(
    servers: Servers,
    *interceptors: Interceptor,
    providers: ProviderSettings | None = None,
    stacks: StackSettings | None = None,
    helm: HelmSettings | None = None,
) -> AsyncIterator[Platform]:
    """Run a worker on the servers for as long as the context lasts."""
    settings = WorkerSettings(
        database=servers.database,
        temporal=servers.temporal,
        openbao=servers.openbao("worker"),
        secret_store=servers.stack.secret_store,
        control_planes=servers.control_planes,
        outbound=OutboundSettings.model_validate({"allowed_networks": ["127.0.0.0/8", "::1/128"]}),
        providers=providers or ProviderSettings(),
        stacks=stacks,
        helm=helm,
    )
    connection = TemporalConnection(servers.temporal, servers.openbao("worker"), WORKER)
    # As a worker does: what is bounded for requests may take longer while a machine is busy.
    client = await when_available(connection.client)
    platform = Platform(servers, connection, client)
    process = WorkerProcess(settings, interceptors)
    registrar = Database(servers.database, DatabaseRole.WORKER)
    await when_available(lambda: register_host(registrar, servers.control_planes))
    await registrar.close()
    workers = process.workers(client)
    # Not entered as contexts: what breaks a worker is raised by cancelling the task that entered
    # it, and the task that sets a fixture up has ended long before.
    platform.serving = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        yield platform
    finally:
        await asyncio.gather(*(worker.shutdown() for worker in workers))
        await process.close()
        await platform.close()
    await asyncio.gather(*platform.serving)
