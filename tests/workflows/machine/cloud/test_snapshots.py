"""Disks that are kept: while the provider copies one, and when it does not let one go."""

import asyncio
from functools import partial
from uuid import uuid4

import pytest

from domain.cloud import SERVER
from domain.identifiers import Prefix
from domain.names import node_name_of
from domain.operation import OperationState, OperationType
from infra.database.tables import LeakRow, StackRow
from infra.kubernetes.volumes import forget_attachment
from tests.workflows.hetzner import Hetzner
from tests.workflows.machine.cloud.customer import Customer
from tests.workflows.machine.cloud.scenarios import until
from tests.workflows.machine.cloud.sleeping import Suspending, WakingUp
from tests.workflows.machine.cloud.test_visits import console, reads_of, run

ATTACHMENTS = "/apis/storage.k8s.io/v1/volumeattachments"


def protect(customer: Customer, *, on: bool) -> None:
    """Let the customer's snapshots not be removed, or be removed again."""
    for image in console(customer).images.get_all(type=["snapshot"]):
        image.change_protection(delete=on).wait_until_finished()


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_cancelled_suspension_says_that_its_snapshot_is_left_when_it_is_held(
    customer: Customer, hetzner: Hetzner
) -> None:
    scenario = Suspending(customer)
    operation_id = await scenario.plan()
    hetzner.servers.copying.clear()
    await scenario.begin()

    async def copies() -> bool:
        return "snapshot" in await customer.kinds()

    await until(copies)
    await asyncio.to_thread(protect, customer, on=True)
    await scenario.cancel(operation_id)
    hetzner.servers.copying.set()
    assert await scenario.end_of(operation_id, 1) is OperationState.CANCELLED
    inventory = await customer.inventory_of(scenario.operation)
    assert [one["kind"] for one in inventory.resources if not one["wanted"]] == ["snapshot"]
    assert inventory.left == 1
    await asyncio.to_thread(protect, customer, on=False)
    await run(customer, "SweepLeaks")
    await scenario.verify_undone()
    await scenario.clean_up()


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_snapshot_that_the_provider_does_not_let_go_holds_no_delete_up(
    customer: Customer,
) -> None:
    sleeping = WakingUp(customer)
    await sleeping.suspended()
    await asyncio.to_thread(protect, customer, on=True)
    # Each suspension leaves a stack behind; the account is opened once for all of them.
    (stack,) = await customer.rows(StackRow, StackRow.machine_id == sleeping.machine_id)
    for _ in range(4):
        # Older than the one of which the snapshot is.
        older = f"{Prefix.STACK}_00000000{uuid4().hex[8:]}"
        await customer.fleet.execute(
            "UPDATE stacks SET kind = 'machine', machine_id = %s, id = %s WHERE id = %s",
            sleeping.machine_id,
            older,
            await customer.removed_stack(),
        )
    deletion = await customer.fleet.request(OperationType.MACHINE_DELETE, sleeping.machine_id)
    await sleeping.start(OperationType.MACHINE_DELETE, deletion)
    await sleeping.succeed(deletion)
    reads = await reads_of(customer, deletion.operation_id)
    leaks = await customer.rows(LeakRow, LeakRow.compute_config_id == customer.config_id)
    assert [(leak.resolved_at, leak.stack_id) for leak in leaks] == [(None, stack.id)]
    assert (await customer.inventory_of(deletion)).left == 1
    # For the snapshot, the network and the inventory.
    assert len(reads) <= 4
    await asyncio.to_thread(protect, customer, on=False)
    await run(customer, "SweepLeaks")
    await customer.verify_empty()


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_server_is_stopped_when_its_volumes_have_left_it(customer: Customer) -> None:
    scenario, fleet = Suspending(customer), customer.fleet
    await scenario.plan()
    attachment = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "VolumeAttachment",
        "metadata": {"name": "disk"},
        "spec": {
            "attacher": "example.com",
            "nodeName": node_name_of(scenario.machine_id),
            "source": {"persistentVolumeName": "none"},
        },
    }
    await fleet.ask(lambda client: client.create(ATTACHMENTS, attachment))
    await scenario.begin()

    async def waits() -> bool:
        waiting_for = (await fleet.operation(scenario.operation.operation_id)).waiting_for
        return "volumes to be detached" in (waiting_for or "")

    await until(waits)
    (server,) = [thing for thing in await customer.has() if thing.resource == SERVER]
    told = await asyncio.to_thread(customer.cloud.describe, server.id)
    assert told is not None
    assert told["status"] == "running"
    await fleet.ask(partial(forget_attachment, name="disk"))
    await scenario.succeed(scenario.operation)
    await scenario.verify_done()
    await scenario.clean_up()
