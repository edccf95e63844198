"""What machines' operations wait for, and what they say when it does not come."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.testing import ActivityEnvironment

from activities.machines import MachineActivities, WithinSeconds
from activities.nodes import NodeActivities
from domain.cluster import Component
from domain.errors import BulkheadError, Reason
from domain.machine import MachineHealth, MachineState
from domain.names import node_name_of
from domain.operation import OperationState, OperationType
from domain.owned_operation import MachineOperation
from infra.database.engine import Database, DatabaseRole
from infra.database.records.endings import OperationRecords
from infra.database.records.machine import MachineRecords
from infra.database.records.worker_bootstrap import WorkerBootstrapRecords
from infra.kubernetes.client import Object
from infra.kubernetes.drain import waiting_of
from infra.kubernetes.nodes import list_nodes
from tests.workflows.machine.fleet import BUDGETS, PODS, Fleet
from tests.workflows.machine.scenarios import new_pod

ATTACHMENTS = "/apis/storage.k8s.io/v1/volumeattachments"

# What a test waits for comes sooner or later, on a machine on which much else runs.
COMES_WITHIN_SECONDS = 60.0
# Long enough for kubectl to start there, and to say what keeps a pod.
DRAINS_FOR_SECONDS = 12


class Activities:
    """The activities of a worker, for one attempt at a time outside any workflow."""

    def __init__(self, fleet: Fleet, database: Database) -> None:
        machines, operations = MachineRecords(database), OperationRecords(database)
        self.machines = MachineActivities(machines, WorkerBootstrapRecords(database), operations)
        self.nodes = NodeActivities(
            fleet.clusters,
            fleet.platform.backend,
            machines,
            operations,
            fleet.platform.servers.control_planes.programs_dir / "kubectl",
        )


@pytest_asyncio.fixture
async def activities(fleet: Fleet) -> AsyncIterator[Activities]:
    database = Database(fleet.platform.servers.database, DatabaseRole.WORKER)
    yield Activities(fleet, database)
    await database.close()


def within(operation: MachineOperation, seconds: int) -> WithinSeconds:
    return WithinSeconds(operation=operation, seconds=seconds)


async def waits_for(fleet: Fleet, operation: MachineOperation, pattern: str) -> None:
    """Wait until the operation says that it waits for this."""
    said: str | None = None
    try:
        async with asyncio.timeout(COMES_WITHIN_SECONDS):
            while True:
                said = (await fleet.operation(operation.operation_id)).waiting_for
                if said is not None and re.search(pattern, said):
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(said) from None


async def test_a_join_says_at_each_stage_what_it_waits_for(fleet: Fleet) -> None:
    operation = await fleet.join()
    server = fleet.server_of(operation)
    server.phase, server.message, server.ready = "downloaded", "kubelet", False
    server.has_kubelet = False
    await fleet.start(OperationType.MACHINE_CREATE, operation)
    await waits_for(fleet, operation, "has not reported yet")
    async with server:
        await waits_for(fleet, operation, "last report at .*: downloaded, kubelet")
        server.phase, server.message = "failed", "no space left"
        await waits_for(fleet, operation, r"command to be run again .*\(failed, no space left\)")
        await fleet.change(operation, health=MachineHealth.CLOCK_OFF, clock_offset_seconds=4000)
        server.phase, server.message = "downloaded", None
        await waits_for(fleet, operation, "clock of the server to be right; it is 4000 s off")
        await fleet.change(operation, clock_offset_seconds=0)
        server.phase = "kubelet_started"
        await waits_for(fleet, operation, "kubelet to make its node")
        server.has_kubelet = True
        await waits_for(fleet, operation, "node to be ready; container runtime is down")
        server.ready = True
        await fleet.platform.succeed(operation)
    ended = await fleet.operation(operation.operation_id)
    assert ended.waiting_for is None
    assert ended.response == {
        "type": "machine.create",
        "machine_id": operation.owner_id,
        "provider_id": operation.owner_id,
    }
    await fleet.forget(operation)


async def test_a_join_that_takes_too_long_says_how_far_the_server_came(
    fleet: Fleet, activities: Activities
) -> None:
    operation = await fleet.join()
    await fleet.change(
        operation, reported_phase="failed", reported_code=23, reported_message="no space left"
    )
    environment = ActivityEnvironment()
    with pytest.raises(BulkheadError) as failure:
        await environment.run(activities.machines.await_bootstrapped, within(operation, 1))
    assert failure.value.reason is Reason.DEADLINE_EXCEEDED
    assert not failure.value.retryable
    assert "server-1 did not finish its installation" in failure.value.message
    assert failure.value.metadata == {"phase": "failed"}
    with pytest.raises(BulkheadError, match="made no node in the cluster"):
        await environment.run(activities.machines.await_joined, within(operation, 1))
    await abandon(fleet, operation)
    await fleet.forget(operation)


async def test_a_server_that_joined_while_the_platform_was_down_is_not_expelled(
    fleet: Fleet, activities: Activities
) -> None:
    operation = await fleet.join()
    server = fleet.server_of(operation)
    server.phase, server.has_kubelet, server.ready = "downloaded", False, False
    # An attempt that was scheduled decades ago.
    environment, wait = ActivityEnvironment(), within(operation, 300)
    async with server:
        attempt = asyncio.create_task(environment.run(activities.machines.await_bootstrapped, wait))
        await waits_for(fleet, operation, "to install its services")
        server.phase = "running"
        await attempt
        attempt = asyncio.create_task(environment.run(activities.machines.await_joined, wait))
        await waits_for(fleet, operation, "to make its node")
        server.has_kubelet = True
        await attempt
        attempt = asyncio.create_task(environment.run(activities.machines.await_ready, wait))
        await waits_for(fleet, operation, "to be ready")
        server.ready = True
        await attempt
    await abandon(fleet, operation)
    await fleet.forget(operation)


async def test_a_delete_takes_a_join_over(fleet: Fleet) -> None:
    joining = await fleet.join()
    server = fleet.server_of(joining)
    server.ready = False
    async with server:
        await fleet.start(OperationType.MACHINE_CREATE, joining)
        await waits_for(fleet, joining, "node to be ready")
        deleting = await fleet.request(OperationType.MACHINE_DELETE, joining.owner_id)
        await fleet.start(OperationType.MACHINE_DELETE, deleting)
        await fleet.platform.succeed(deleting)
    assert await fleet.platform.end_of(joining, 1) is OperationState.CANCELLED
    assert await fleet.remains(joining) == {}


async def run_guarded(fleet: Fleet, node: str) -> None:
    """Have a pod run that the strict budget guards."""
    pod = new_pod(node, "guarded", app="guarded")
    await fleet.ask(lambda client: client.create(PODS, pod))
    path = f"{PODS}/guarded"
    async with asyncio.timeout(COMES_WITHIN_SECONDS):
        while (await fleet.ask(lambda client: client.get(path)))["status"]["phase"] == "Pending":  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.1)


@pytest.fixture
def guarded() -> Object:
    """Return a budget that allows no disruption."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "strict"},
        "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "guarded"}}},
    }


async def test_a_drain_honours_budgets_until_its_deadline(
    fleet: Fleet, activities: Activities, guarded: Object
) -> None:
    active = await fleet.have_active()
    async with fleet.server_of(active) as server:
        await fleet.until(active.owner_id, lambda row: row.node_ready is True)
        await fleet.ask(lambda client: client.create(BUDGETS, guarded))
        await run_guarded(fleet, server.node)
        await fleet.ask(lambda client: client.create(PODS, new_pod(server.node, "free")))
        operation = await fleet.request(OperationType.MACHINE_DELETE, active.owner_id)
        draining = asyncio.create_task(
            ActivityEnvironment().run(
                activities.nodes.drain_node, within(operation, DRAINS_FOR_SECONDS)
            )
        )
        await waits_for(fleet, operation, "pod default/guarded: its PodDisruptionBudget")
        assert await fleet.ask(lambda client: client.find(f"{PODS}/guarded")) is not None
        [kubectl] = kubectls()
        command = arguments_of(kubectl)
        assert any(argument.startswith(b"--kubeconfig=/dev/fd/") for argument in command)
        await draining
        assert await fleet.ask(lambda client: client.list_all(PODS)) == []
        row = await fleet.operation(operation.operation_id)
        assert row.placement["pods_deleted_without_eviction"] == ["default/guarded"]
        await fleet.ask(lambda client: client.delete(f"{BUDGETS}/strict"))
        await fleet.start(OperationType.MACHINE_DELETE, operation)
        await fleet.platform.succeed(operation)
    ended = await fleet.operation(operation.operation_id)
    assert ended.response is not None
    assert ended.response["pods_deleted_without_eviction"] == ["default/guarded"]


async def test_a_drain_that_is_cancelled_ends_kubectl(
    fleet: Fleet, activities: Activities, guarded: Object
) -> None:
    active = await fleet.have_active()
    async with fleet.server_of(active) as server:
        await server.ensure_node()
        await fleet.ask(lambda client: client.create(BUDGETS, guarded))
        await run_guarded(fleet, server.node)
        operation = await fleet.request(OperationType.MACHINE_DELETE, active.owner_id)
        draining = asyncio.create_task(
            ActivityEnvironment().run(activities.nodes.drain_node, within(operation, 60))
        )
        await waits_for(fleet, operation, "PodDisruptionBudget")
        draining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await draining
        assert list(kubectls()) == []
        await fleet.ask(lambda client: client.delete(f"{BUDGETS}/strict"))
        await fleet.ask(lambda client: client.delete(f"{PODS}/guarded", grace_seconds=0))
    await fleet.change(active, active_operation_id=None, state=MachineState.ACTIVE)
    await abandon(fleet, operation)
    await fleet.forget(active)


async def test_volumes_that_nobody_detaches_are_forgotten_at_the_deadline(
    fleet: Fleet, activities: Activities
) -> None:
    active = await fleet.have_active()
    operation = await fleet.request(OperationType.MACHINE_DELETE, active.owner_id)
    async with fleet.server_of(active) as server:
        await server.ensure_node()
        attachment = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "VolumeAttachment",
            "metadata": {"name": "disk", "finalizers": ["example.com/driver"]},
            "spec": {
                "attacher": "example.com",
                "nodeName": server.node,
                "source": {"persistentVolumeName": "none"},
            },
        }
        await fleet.ask(lambda client: client.create(ATTACHMENTS, attachment))
        detaching = asyncio.create_task(
            ActivityEnvironment().run(activities.nodes.detach_volumes, within(operation, 6))
        )
        await waits_for(fleet, operation, "volumes to be detached by their driver: disk")
        await detaching
        assert await fleet.ask(lambda client: client.list_all(ATTACHMENTS)) == []
    row = await fleet.operation(operation.operation_id)
    assert row.placement["volumes_detached_by_force"] == ["disk"]
    await abandon(fleet, operation)
    await fleet.forget(active)


@pytest.mark.full
async def test_a_delete_waits_for_a_cluster_that_is_suspended(fleet: Fleet) -> None:
    platform = fleet.platform
    active = await fleet.have_active()
    async with fleet.server_of(active) as server:
        await fleet.until(active.owner_id, lambda row: row.node_ready is True)
        server.has_kubelet = False
        suspend = await platform.request(OperationType.CLUSTER_SUSPEND, fleet.cluster, fleet.owner)
        await platform.succeed(suspend)
        operation = await fleet.request(OperationType.MACHINE_DELETE, active.owner_id)
        await fleet.start(OperationType.MACHINE_DELETE, operation)
        await waits_for(fleet, operation, "API server of the cluster to answer; it is suspended")
        resume = await platform.request(OperationType.CLUSTER_RESUME, fleet.cluster, fleet.owner)
        await platform.succeed(resume)
        await platform.succeed(operation)
    assert await fleet.remains(active) == {}


async def test_a_delete_by_force_goes_on_without_its_cluster(fleet: Fleet) -> None:
    platform = fleet.platform
    active = await fleet.have_active()
    node = node_name_of(active.owner_id)
    async with fleet.server_of(active) as server:
        await fleet.until(active.owner_id, lambda row: row.node_ready is True)
        server.has_kubelet = False
        suspend = await platform.request(OperationType.CLUSTER_SUSPEND, fleet.cluster, fleet.owner)
        await platform.succeed(suspend)
        operation = await fleet.request(OperationType.MACHINE_DELETE, active.owner_id)
        await fleet.start(OperationType.MACHINE_DELETE, operation)
        await waits_for(fleet, operation, "API server of the cluster to answer")
        await fleet.execute(
            """UPDATE operations SET placement = placement || '{"forced": true}' WHERE id = %s""",
            operation.operation_id,
        )
        await platform.succeed(operation)
    ended = await fleet.operation(operation.operation_id)
    assert ended.response is not None
    assert ended.response["server_uninstalled"] is True
    assert set(ended.response["steps_skipped"]) == {
        "cordon_node",
        "drain_node",
        "detach_volumes",
        "remove_node",
        "revoke_credentials",
        "verify_removed",
    }
    assert "not asked" in ended.response["evidence"]["cluster"]
    # Should the cluster come back, its keeper finds the node of nobody.
    resume = await platform.request(OperationType.CLUSTER_RESUME, fleet.cluster, fleet.owner)
    await platform.succeed(resume)
    async with asyncio.timeout(COMES_WITHIN_SECONDS):
        while node in await fleet.ask(list_nodes):  # noqa: ASYNC110 - the cluster is another process
            await asyncio.sleep(0.1)


async def test_an_undo_ends_when_its_machine_is_gone(fleet: Fleet, activities: Activities) -> None:
    operation = await fleet.join()
    async with fleet.server_of(operation) as server:
        await server.ensure_node()
    await fleet.forget(operation)
    await ActivityEnvironment().run(activities.nodes.expel_machine, operation)
    await abandon(fleet, operation)


@pytest.mark.full
async def test_a_delete_cuts_the_tunnel_of_a_machine_that_had_a_token(fleet: Fleet) -> None:
    def tunnel() -> int | None:
        description = fleet.platform.backend.describe(fleet.cluster)
        return {status.component: status.pid for status in description.components}[
            Component.TUNNEL_SERVER
        ]

    active = await fleet.have_active()
    async with fleet.server_of(active):
        await fleet.change(active, tunnel_token_expires_at=datetime.now(UTC))
        before = await asyncio.to_thread(tunnel)
        operation = await fleet.request(OperationType.MACHINE_DELETE, active.owner_id)
        await fleet.start(OperationType.MACHINE_DELETE, operation)
        assert await fleet.platform.end_of(operation, 90) is OperationState.SUCCEEDED
    assert await asyncio.to_thread(tunnel) not in {before, None}
    ended = await fleet.operation(operation.operation_id)
    assert ended.response is not None
    assert ended.response["evidence"]["tunnel"] == "cut"


@pytest.mark.parametrize(
    ("line", "waiting"),
    [
        ("evicting pod kube-system/dns-1", "pod kube-system/dns-1 to end"),
        ("node/mch-1 drained", None),
        ("Warning: ignoring DaemonSet-managed Pods: kube-system/proxy", None),
    ],
)
def test_what_kubectl_says_becomes_what_is_waited_for(line: str, waiting: str | None) -> None:
    assert waiting_of(line) == waiting


def kubectls() -> Iterator[int]:
    """Return the processes of this one that run kubectl."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "Name:\tkubectl\n" in text and f"PPid:\t{os.getpid()}\n" in text:
            yield int(status.parent.name)


def arguments_of(process: int) -> list[bytes]:
    """Return the command line of a process."""
    return Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")


async def abandon(fleet: Fleet, operation: MachineOperation) -> None:
    """End an operation that no workflow carries out."""
    await fleet.execute(
        "UPDATE operations SET state = 'FAILED', completed_at = now() WHERE id = %s",
        operation.operation_id,
    )
