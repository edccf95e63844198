"""One cluster with machines that are asked for as the API does, and looked at afterwards."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any, LiteralString, TypeVar

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio.service import RPCError

from domain.caller import Caller
from domain.cluster import HostedControlPlane
from domain.identifiers import Prefix, new_id
from domain.machine import (
    NODE_USER_PREFIX,
    ClusterMachine,
    Instruction,
    MachineHealth,
    MachineKind,
    MachineStage,
    MachineState,
)
from domain.names import node_name_of, workflow_id_of
from domain.operation import OperationState, OperationType, OwnerType
from domain.owned_operation import MachineOperation
from infra.database.engine import Database, DatabaseRole
from infra.database.queries.worker_bootstrap import consume_bootstrap, enter_by_token
from infra.database.records.operation import (
    machine_operation_of,
    plan_operation,
    request_cancellation,
)
from infra.database.tables import (
    ClusterRow,
    MachineRow,
    OperationRow,
    StackRow,
    WorkerBootstrapRow,
)
from infra.kubernetes.client import KubernetesClient
from infra.kubernetes.nodes import list_nodes, remains_of, remove_node
from infra.kubernetes.signing_requests import list_requests, remove
from infra.kubernetes.volumes import attachments_of, forget_attachment
from infra.machines.clusters import HostClusters
from infra.machines.keeper import MachineKeeper
from infra.temporal.outbox import Outbox
from infra.temporal.start import cancel_operation, start_operation
from tests.platform import POLL_SECONDS, Platform
from tests.workflows.machine.servers import ADDRESS, Server

Result = TypeVar("Result")

PODS = "/api/v1/namespaces/default/pods"
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"


class Fleet:
    """The machines of one cluster."""

    def __init__(
        self, platform: Platform, clusters: HostClusters, cluster: HostedControlPlane, owner: Caller
    ) -> None:
        self.platform = platform
        self.clusters = clusters
        self.cluster = cluster
        self.owner = owner

    def server_of(self, operation: MachineOperation) -> Server:
        """Return the server of a machine, off."""
        return Server(self.platform, self.clusters, operation)

    async def ask(self, work: Callable[[KubernetesClient], Result]) -> Result:
        """Ask the cluster as its administrator."""
        return await self.clusters.ask(self.cluster, work)

    async def serve(self, token_hash: bytes) -> None:
        """Be the server that was made with a token: exchange it, report, and run a kubelet.

        A token that is not good (any more) ends it, as it ends a server's script.
        """
        async with self.platform.api.transaction() as session:
            bootstrap = await enter_by_token(session, token_hash)
            if bootstrap is None or bootstrap.machine_id is None:
                return
            operation = await self._attach(session, bootstrap)
        if operation is not None:
            async with self.server_of(operation):
                await asyncio.Event().wait()

    async def wake(self, stack_id: str) -> None:
        """Be the server of a stack, whose disk is that of a machine which joined before."""
        async with self.platform.api.workspace(self.owner.workspace_id) as session:
            stack = await session.get_one(StackRow, (self.owner.workspace_id, stack_id))
            machine = await self.row(stack.machine_id or "")
        await self._wake(machine)

    async def wake_by_token(self, token_hash: bytes) -> None:
        """Be a server again whose disk is that of a machine which joined by a token."""
        async with self.platform.api.workspace(self.owner.workspace_id) as session:
            query = select(WorkerBootstrapRow).where(WorkerBootstrapRow.token_hash == token_hash)
            bootstrap = (await session.exec(query)).one_or_none()
        await self._wake(await self.row(bootstrap.machine_id or "") if bootstrap else None)

    async def _wake(self, machine: MachineRow | None) -> None:
        if machine is not None and machine.identity_key is not None:
            known = ClusterMachine(
                machine_id=machine.id, control_plane=self.cluster, kind=MachineKind.CLOUD
            )
            operation = MachineOperation(operation_id="-", machine=known, caller=self.owner)
            async with self.server_of(operation):
                await asyncio.Event().wait()

    async def _attach(
        self, session: AsyncSession, bootstrap: WorkerBootstrapRow
    ) -> MachineOperation | None:
        """Write what the exchange of a made server's token writes."""
        key = (bootstrap.workspace_id, bootstrap.machine_id)
        machine = await session.get(MachineRow, key, with_for_update=True)
        if machine is None or not await consume_bootstrap(session, bootstrap.id, machine.id):
            return None
        machine.identity_key = "-"
        machine.identity_key_hash = sha256(machine.id.encode()).digest()
        row = await session.get_one(
            OperationRow, (machine.workspace_id, machine.active_operation_id)
        )
        return machine_operation_of(row)

    async def join(self) -> MachineOperation:
        """Write what the exchange of a token writes, and start nothing."""
        async with self.platform.api.workspace(self.owner.workspace_id) as session:
            cluster = (
                await session.exec(
                    select(ClusterRow).where(ClusterRow.id == self.cluster.cluster_id)
                )
            ).one()
            machine = new_machine(self.cluster)
            session.add(machine)
            kind = OperationType.MACHINE_CREATE
            request = {"type": kind, "cluster_id": cluster.id}
            operation = plan_operation(
                session, kind, machine, self.owner, request=request, cluster=cluster
            )
            await session.flush()
            return machine_operation_of(operation)

    async def have_active(self) -> MachineOperation:
        """Have a machine that joined before; the operation that did it has ended."""
        operation = await self.join()
        await self.change(
            operation,
            active_operation_id=None,
            state=MachineState.ACTIVE,
            stage=MachineStage.READY,
        )
        await self.execute(
            "UPDATE operations SET state = 'SUCCEEDED', completed_at = now() WHERE id = %s",
            operation.operation_id,
        )
        return operation

    async def execute(self, statement: LiteralString, *parameters: object) -> None:
        """Write as the superuser, in a thread: others in this loop hold locks that it waits for."""

        def write() -> None:
            with self.platform.servers.administrator() as administrator:
                administrator.execute(statement, parameters)

        await asyncio.to_thread(write)

    async def request(self, kind: OperationType, machine_id: str) -> MachineOperation:
        """Ask for an operation on a machine; a delete takes the lock over as the API lets it."""
        async with self.platform.api.workspace(self.owner.workspace_id) as session:
            machine = (
                await session.exec(
                    select(MachineRow).where(MachineRow.id == machine_id).with_for_update()
                )
            ).one()
            cluster = await session.get_one(
                ClusterRow, (self.owner.workspace_id, machine.cluster_id)
            )
            predecessor = machine.active_operation_id
            if kind is OperationType.MACHINE_DELETE:
                machine.state = MachineState.DELETING
                if predecessor is not None:
                    await request_cancellation(session, predecessor, self.owner.kind)
            else:
                assert predecessor is None
            row = plan_operation(
                session,
                kind,
                machine,
                self.owner,
                request={"type": kind, "machine_id": machine_id},
                predecessor_operation_id=predecessor,
                cluster=cluster,
            )
            await session.flush()
            operation = machine_operation_of(row)
        if predecessor is not None:
            before = await self.operation(predecessor)
            await cancel_operation(self.platform.client, before.type, before.owner_id, predecessor)
        return operation

    async def start(self, kind: OperationType, operation: MachineOperation) -> None:
        """Start the workflow of an operation."""
        await start_operation(self.platform.client, kind, operation)

    async def operation(self, operation_id: str) -> OperationRow:
        """Read an operation's row."""
        async with self.platform.api.workspace(self.owner.workspace_id) as session:
            return await session.get_one(OperationRow, (self.owner.workspace_id, operation_id))

    async def row(self, machine_id: str) -> MachineRow | None:
        """Read a machine's row, None when it is gone."""
        async with self.platform.api.workspace(self.owner.workspace_id) as session:
            return await session.get(MachineRow, (self.owner.workspace_id, machine_id))

    async def change(self, operation: MachineOperation, **values: object) -> None:
        """Write a machine's columns."""
        async with self.platform.api.workspace(self.owner.workspace_id) as session:
            key = (self.owner.workspace_id, operation.owner_id)
            row = await session.get_one(MachineRow, key, with_for_update=True)
            for name, value in values.items():
                setattr(row, name, value)

    async def until(
        self, machine_id: str, holds: Callable[[MachineRow], bool], within_seconds: float = 60
    ) -> MachineRow:
        """Wait until something holds of a machine's row."""
        async with asyncio.timeout(within_seconds):
            while True:
                row = await self.row(machine_id)
                assert row is not None
                if holds(row):
                    return row
                await asyncio.sleep(POLL_SECONDS)

    async def remains(self, operation: MachineOperation) -> dict[str, Any]:
        """Look everywhere for what is left of a machine; empty when nothing is."""
        name = node_name_of(operation.owner_id)
        found: dict[str, Any] = await self.ask(lambda client: remains_of(client, name))
        found["row"] = await self.row(operation.owner_id)
        return {kind: thing for kind, thing in found.items() if thing}

    async def forget(self, operation: MachineOperation) -> None:
        """Remove a machine whose operations have ended, without a workflow.

        Its requests go first: what it asked for would else be a stranger's, whose denials share
        one budget of audit lines.
        """
        node = node_name_of(operation.owner_id)
        await self.ask(partial(_remove_requests, user=NODE_USER_PREFIX + node))
        await self.execute("DELETE FROM machines WHERE id = %s", operation.owner_id)
        await self.ask(lambda client: remove_node(client, node))

    async def tidy(self) -> None:
        """Remove what a test that failed left: the next one shall find an empty cluster."""
        cluster_id = self.cluster.cluster_id
        async with self.platform.api.workspace(self.owner.workspace_id) as session:
            query = select(OperationRow).where(
                OperationRow.owner_type == OwnerType.MACHINE,
                OperationRow.state == OperationState.RUNNING,
                col(OperationRow.placement)["cluster_id"].astext == cluster_id,
            )
            running = (await session.exec(query)).all()
        for row in running:
            # Its rows first: what was lost while they say that it runs, the platform takes back.
            await self.execute(
                "UPDATE operations SET state = 'FAILED', completed_at = now() WHERE id = %s", row.id
            )
            workflow_id = workflow_id_of(row.type, row.owner_id, row.id)
            with contextlib.suppress(RPCError):
                await self.platform.client.get_workflow_handle(workflow_id).terminate()
        await self.ask(_remove_requests)
        await self.execute("DELETE FROM machines WHERE cluster_id = %s", cluster_id)
        await self.ask(_remove_workloads)


def _remove_requests(client: KubernetesClient, user: str | None = None) -> None:
    found = list_requests(client)
    remove(client, [request for request in found if user in {None, request.username}])


def _remove_workloads(client: KubernetesClient) -> None:
    for budget in client.list_all(BUDGETS):
        client.delete(f"{BUDGETS}/{budget['metadata']['name']}")
    for pod in client.list_all(PODS):
        client.delete(f"{PODS}/{pod['metadata']['name']}", grace_seconds=0)
    for name in list_nodes(client):
        for attachment in attachments_of(client, name):
            forget_attachment(client, attachment)
        remove_node(client, name)


def new_machine(cluster: HostedControlPlane) -> MachineRow:
    """Return the row of a server that has just exchanged its token."""
    machine_id = new_id(Prefix.MACHINE)
    return MachineRow(
        workspace_id=cluster.workspace_id,
        id=machine_id,
        cluster_id=cluster.cluster_id,
        kind=MachineKind.OWN_SERVER,
        state=MachineState.PROVISIONING,
        stage=MachineStage.PROVISIONED,
        identity_key="-",
        identity_key_hash=sha256(machine_id.encode()).digest(),
        operating_system="linux",
        architecture="amd64",
        hostname="server-1",
        addresses=[ADDRESS],
        artifact_set="test",
        instruction=Instruction.NONE,
        # Sooner than that of a certificate which a test asks for.
        serving_certificate_expires_at=datetime.now(UTC) + timedelta(minutes=30),
        health=MachineHealth.UNKNOWN,
        health_candidate=MachineHealth.UNKNOWN,
    )


@contextlib.asynccontextmanager
async def running_fleet(platform: Platform) -> AsyncIterator[Fleet]:
    """Make a cluster and look after its machines for as long as the context lasts."""
    owner = await platform.new_workspace()
    requested = await platform.request_cluster(owner)
    await platform.succeed(requested)
    servers = platform.servers
    clusters = HostClusters(servers.control_planes, platform.openbao)
    worker = Database(servers.database, DatabaseRole.WORKER)
    sweeper = Database(servers.database, DatabaseRole.SWEEPER)
    outbox = Outbox(worker, sweeper, platform.connection)
    host = servers.control_planes.host
    keeper = MachineKeeper(worker, sweeper, clusters, outbox, host, every_seconds=0.3)
    keeping = asyncio.create_task(keeper.run())
    fleet = Fleet(platform, clusters, requested.cluster, owner)
    try:
        yield fleet
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})
        clusters.close()
        # What a failed test left, which a cluster with machines would not be deleted with.
        await fleet.execute("DELETE FROM machines WHERE workspace_id = %s", owner.workspace_id)
        await platform.delete(requested.cluster, owner)
        await worker.close()
        await sweeper.close()
