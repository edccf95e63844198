"""How each operation on a machine is asked for, and what must be true afterwards."""

import contextlib
import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from domain.identifiers import Prefix, new_id
from domain.machine import Instruction, MachineStage, MachineState
from domain.names import node_name_of
from domain.operation import OPERATIONS, OperationState, OperationType, Step
from domain.owned_operation import MachineOperation, WorkerBootstrapOperation
from infra.database.records.operation import bootstrap_operation_of, plan_operation
from infra.database.tables import WorkerBootstrapRow
from infra.kubernetes.nodes import list_nodes, set_schedulable
from infra.temporal.start import start_operation
from tests.workflows.machine.fleet import Fleet
from tests.workflows.machine.servers import Server


class MachineScenario(ABC):
    """What the scenarios have in common: one machine at a time, whose server runs."""

    operation_type: OperationType

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.platform = fleet.platform
        self.facts = OPERATIONS[self.operation_type]
        self.workflow = self.facts.workflow
        self.forward_only = self.facts.forward_only
        self.steps: Sequence[str] = [
            step for step in self.facts.steps if step is not Step.AWAIT_PREDECESSOR
        ]
        self.requested: MachineOperation | None = None
        self._running = contextlib.AsyncExitStack()

    @abstractmethod
    async def prepare(self) -> MachineOperation: ...

    @abstractmethod
    async def verify_done(self) -> None: ...

    @abstractmethod
    async def verify_undone(self) -> None: ...

    async def plan(self) -> str:
        self.requested = await self.prepare()
        return self.requested.operation_id

    async def request(self) -> str:
        operation_id = await self.plan()
        await self.fleet.start(self.operation_type, self.operation)
        return operation_id

    @property
    def operation(self) -> MachineOperation:
        assert self.requested is not None
        return self.requested

    @property
    def owner_id(self) -> str:
        return self.operation.owner_id

    async def cancel(self, operation_id: str) -> None:
        assert self.operation.operation_id == operation_id
        assert await self.platform.cancel(self.operation)

    async def end_of(self, operation_id: str, within_seconds: float) -> OperationState:
        assert self.operation.operation_id == operation_id
        return await self.platform.end_of(self.operation, within_seconds)

    async def clean_up(self) -> None:
        await self._running.aclose()
        if self.requested is not None:
            await self.fleet.forget(self.requested)

    async def switch_on(self, operation: MachineOperation) -> Server:
        return await self._running.enter_async_context(self.fleet.server_of(operation))

    async def joined(self) -> tuple[MachineOperation, Server]:
        """Have a machine whose node the keeper has seen."""
        operation = await self.fleet.have_active()
        server = await self.switch_on(operation)
        await self.fleet.until(operation.owner_id, lambda row: row.node_ready is True)
        return operation, server

    async def verify_row(self, state: MachineState, *, schedulable: bool = True) -> None:
        row = await self.fleet.row(self.owner_id)
        assert row is not None
        assert (row.state, row.active_operation_id) == (state, None)
        assert (row.schedulable, row.instruction) == (schedulable, Instruction.NONE)
        nodes = await self.fleet.ask(list_nodes)
        assert nodes[node_name_of(self.owner_id)].schedulable is schedulable


class Bootstrapping(MachineScenario):
    """A server that has exchanged its token."""

    operation_type = OperationType.MACHINE_CREATE

    async def prepare(self) -> MachineOperation:
        operation = await self.fleet.join()
        await self.switch_on(operation)
        return operation

    async def verify_done(self) -> None:
        await self.verify_row(MachineState.ACTIVE)
        row = await self.fleet.row(self.owner_id)
        assert row is not None
        assert row.stage is MachineStage.READY

    async def verify_undone(self) -> None:
        assert await self.fleet.remains(self.operation) == {}


class DeletingMachine(MachineScenario):
    """A machine with a pod, that shall go; forward only."""

    operation_type = OperationType.MACHINE_DELETE

    async def prepare(self) -> MachineOperation:
        operation, server = await self.joined()
        await self.fleet.ask(
            lambda client: client.create(
                "/api/v1/namespaces/default/pods", new_pod(server.node, "resident-")
            )
        )
        return await self.fleet.request(self.operation_type, operation.owner_id)

    async def verify_done(self) -> None:
        assert await self.fleet.remains(self.operation) == {}
        node = node_name_of(self.owner_id)
        pods = await self.fleet.ask(
            lambda client: client.list_all("/api/v1/pods", fieldSelector=f"spec.nodeName={node}")
        )
        assert pods == []
        ended = await self.fleet.operation(self.operation.operation_id)
        assert ended.response is not None
        assert ended.response["evidence"] == {
            "node": "none",
            "lease": "none",
            "certificate_requests": "none",
            "tunnel": "never connected",
        }
        assert ended.response["server_uninstalled"] is True
        assert ended.response["pods_deleted_without_eviction"] == []

    async def verify_undone(self) -> None:
        raise AssertionError


class Cordoning(MachineScenario):
    """A machine that shall take no new pods."""

    operation_type = OperationType.MACHINE_CORDON

    async def prepare(self) -> MachineOperation:
        operation, _ = await self.joined()
        return await self.fleet.request(self.operation_type, operation.owner_id)

    async def verify_done(self) -> None:
        await self.verify_row(MachineState.ACTIVE, schedulable=False)

    async def verify_undone(self) -> None:
        await self.verify_row(MachineState.ACTIVE)


class Uncordoning(MachineScenario):
    """A cordoned machine that shall take new pods again."""

    operation_type = OperationType.MACHINE_UNCORDON

    async def prepare(self) -> MachineOperation:
        operation, server = await self.joined()
        await self.fleet.change(operation, schedulable=False)
        await self.fleet.ask(lambda client: set_schedulable(client, server.node, schedulable=False))
        return await self.fleet.request(self.operation_type, operation.owner_id)

    async def verify_done(self) -> None:
        await self.verify_row(MachineState.ACTIVE)

    async def verify_undone(self) -> None:
        await self.verify_row(MachineState.ACTIVE, schedulable=False)


class Repairing(MachineScenario):
    """A machine whose node is not ready until its server restarts its services."""

    operation_type = OperationType.MACHINE_REPAIR

    async def prepare(self) -> MachineOperation:
        operation, self.server = await self.joined()
        self.server.ready = False
        await self.fleet.until(operation.owner_id, lambda row: row.node_ready is False)
        return await self.fleet.request(self.operation_type, operation.owner_id)

    async def verify_done(self) -> None:
        await self.verify_row(MachineState.ACTIVE)
        assert self.server.told == [Instruction.RESTART]

    async def verify_undone(self) -> None:
        await self.verify_row(MachineState.ACTIVE)


class RevokingBootstrap:
    """A right to join that shall end; forward only."""

    operation_type = OperationType.CLUSTER_WORKER_BOOTSTRAP_REVOKE

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.platform = fleet.platform
        self.facts = OPERATIONS[self.operation_type]
        self.workflow = self.facts.workflow
        self.forward_only = True
        self.steps: Sequence[str] = self.facts.steps
        self.requested: WorkerBootstrapOperation | None = None

    @property
    def operation(self) -> WorkerBootstrapOperation:
        assert self.requested is not None
        return self.requested

    @property
    def owner_id(self) -> str:
        return self.operation.owner_id

    async def request(self) -> str:
        operation_id = await self.plan()
        await start_operation(self.platform.client, self.operation_type, self.operation)
        return operation_id

    async def plan(self) -> str:
        owner, cluster = self.fleet.owner, self.fleet.cluster
        bootstrap = WorkerBootstrapRow(
            workspace_id=owner.workspace_id,
            id=new_id(Prefix.WORKER_BOOTSTRAP),
            cluster_id=cluster.cluster_id,
            token_hash=secrets.token_bytes(32),
            created_by=owner.principal_id,
            expires_at=datetime.now(UTC) + timedelta(minutes=15),
        )
        async with self.platform.api.workspace(owner.workspace_id) as session:
            session.add(bootstrap)
            kind = self.operation_type
            row = plan_operation(session, kind, bootstrap, owner, request={"type": kind})
            await session.flush()
            self.requested = bootstrap_operation_of(row)
        return self.requested.operation_id

    async def cancel(self, operation_id: str) -> None:
        raise AssertionError(operation_id)

    async def end_of(self, operation_id: str, within_seconds: float) -> OperationState:
        assert self.operation.operation_id == operation_id
        return await self.platform.end_of(self.operation, within_seconds)

    async def verify_done(self) -> None:
        operation = self.operation
        async with self.platform.api.workspace(operation.workspace_id) as session:
            key = (operation.workspace_id, operation.bootstrap_id)
            row = await session.get_one(WorkerBootstrapRow, key)
        assert row.revoked_at is not None
        assert (row.active_operation_id, row.version) == (None, 3)
        ended = await self.platform.operation(operation)
        assert ended.response is not None
        assert "joins no server any more" in ended.response["note"]

    async def verify_undone(self) -> None:
        raise AssertionError

    async def clean_up(self) -> None:
        await self.fleet.execute(
            "DELETE FROM worker_bootstraps WHERE id = %s", self.operation.bootstrap_id
        )


def new_pod(node: str, name: str, **labels: str) -> dict[str, object]:
    """Return a pod that is bound to a node; names that end with a dash are completed."""
    naming = {"generateName": name} if name.endswith("-") else {"name": name}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**naming, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "none"}]},
    }
