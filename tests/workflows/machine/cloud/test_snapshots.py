"""Disks that are kept: while the provider copies one, and when it does not let one go."""

import asyncio
from uuid import uuid4

import pytest
from hcloud import Client

import infra.clouds.hcloud.cloud
from domain.identifiers import Prefix
from domain.operation import OperationState, OperationType, Step, StepStatus
from infra.database.tables import LeakRow, StackRow
from tests.workflows.hetzner import Hetzner
from tests.workflows.machine.cloud.customer import Customer
from tests.workflows.machine.cloud.scenarios import until
from tests.workflows.machine.cloud.sleeping import Suspending, WakingUp
from tests.workflows.machine.cloud.test_accounts import statuses
from tests.workflows.machine.cloud.test_visits import reads_of, run


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_suspension_is_cancelled_while_the_provider_copies_the_disk(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = Suspending(customer)
    # No copy ever ends.
    monkeypatch.setattr(infra.clouds.hcloud.cloud, "_AVAILABLE", "never")
    operation_id = await scenario.request()

    async def copies() -> bool:
        running = (await statuses(scenario)).get(Step.TAKE_SNAPSHOT) is StepStatus.RUNNING
        return running and "snapshot" in await customer.kinds()

    await until(copies)
    await scenario.cancel(operation_id)
    async with asyncio.timeout(60):
        state = await scenario.end_of(operation_id, 60)
    assert state is OperationState.CANCELLED
    await scenario.verify_undone()
    await scenario.clean_up()


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_snapshot_that_the_provider_does_not_let_go_holds_no_delete_up(
    customer: Customer, hetzner: Hetzner
) -> None:
    sleeping = WakingUp(customer)
    await sleeping.suspended()
    client = Client(token=customer.eye, api_endpoint=hetzner.providers.hcloud_url)

    def protect(on: bool) -> None:  # noqa: FBT001 - a switch
        for image in client.images.get_all(type=["snapshot"]):
            image.change_protection(delete=on).wait_until_finished()

    await asyncio.to_thread(protect, True)
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
    await asyncio.to_thread(protect, False)
    await run(customer, "SweepLeaks")
    await customer.verify_empty()
