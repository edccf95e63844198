"""Accounts of others, and what others have in an account."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
from hcloud.images import Image
from hcloud.server_types import ServerType

import domain.inventory
from domain.cloud import Tag
from domain.operation import OperationType, Step
from domain.owned_operation import MachineOperation
from infra.database.tables import ComputeConfigRow
from tests.workflows.hetzner import Hetzner
from tests.workflows.machine.cloud.customer import SIZE, Customer
from tests.workflows.machine.cloud.scenarios import Creating, Deleting, until
from tests.workflows.machine.cloud.test_accounts import bring_token, until_parked
from tests.workflows.machine.cloud.test_visits import console, leaks, run


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_token_of_another_project_proves_nothing_about_a_deleted_machine(
    customer: Customer,
) -> None:
    scenario, project = Deleting(customer), customer.project
    made = await scenario.make()
    there = await customer.kinds()
    customer.project = uuid4().hex
    await customer.bring_token()
    customer.project = project
    await run(customer, "ReconcileMachines")
    await run(customer, "SweepLeaks")
    (config,) = await customer.rows(ComputeConfigRow, ComputeConfigRow.id == customer.config_id)
    assert "another account" in (config.problem or "")
    assert (await scenario.row(made)).server_missing_since is None
    deletion = scenario.requested = await customer.fleet.request(
        OperationType.MACHINE_DELETE, made.owner_id
    )
    await scenario.start(OperationType.MACHINE_DELETE, deletion)
    await until_parked(customer, deletion)
    assert await customer.kinds() == there
    steps = {step.name: step for step in await scenario.platform.steps(deletion)}
    assert "another account" in (steps[Step.REMOVE_SERVER].error_message or "")
    # Of the right project, and never seen before.
    await bring_token(customer, OperationType.MACHINE_DELETE, deletion)
    await scenario.succeed(deletion)
    await scenario.verify_done()


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_what_a_first_run_left_half_made_is_looked_for_in_its_own_project(
    customer: Customer, hetzner: Hetzner
) -> None:
    scenario, project = Creating(customer), customer.project
    # The token dies while there is a network, and no more of it.
    call = "actions/add_subnet$"
    await asyncio.to_thread(lambda: hetzner.fault("slow", call=call, delay_seconds=8))
    made = scenario.requested = await customer.plan()
    await scenario.start(OperationType.MACHINE_CREATE, made)

    async def is_there() -> bool:
        return "network" in await customer.kinds()

    await until(is_there)
    await asyncio.to_thread(hetzner.revoke, customer.token)
    await until_parked(customer, made)
    hetzner.heal()
    customer.project = uuid4().hex
    elsewhere = await asyncio.to_thread(hetzner.new_token, customer.project)
    await bring_token(customer, OperationType.MACHINE_CREATE, made)
    customer.project = project
    await until_refused(customer, made)
    assert await asyncio.to_thread(hetzner.has, elsewhere, customer.fleet.owner.workspace_id) == []
    await bring_token(customer, OperationType.MACHINE_CREATE, made)
    await scenario.succeed(made)
    await scenario.verify_done()
    await scenario.clean_up()


async def test_a_token_of_another_project_closes_no_finding(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain.inventory, "YOUNG_FOR", timedelta(seconds=-60))
    stack_id, project = await customer.removed_stack(), customer.project
    hand = console(customer).networks

    def make() -> int:
        labels: dict[str, str] = {Tag.STACK: stack_id}
        labels[Tag.WORKSPACE] = customer.fleet.owner.workspace_id
        made = hand.create(name="held", ip_range="10.9.0.0/16", labels=labels)
        made.change_protection(delete=True).wait_until_finished()
        assert made.id is not None
        return made.id

    network = await asyncio.to_thread(make)
    await run(customer, "SweepLeaks")
    customer.project = uuid4().hex
    await customer.bring_token()
    customer.project = project
    await run(customer, "SweepLeaks")
    (leak,) = await leaks(customer)
    assert leak.resolved_at is None
    assert "another account" in (leak.last_error or "")

    # Of the right project, and never seen before: by what it finds it is known.
    await customer.bring_token()
    await run(customer, "SweepLeaks")

    def free() -> None:
        hand.get_by_id(network).change_protection(delete=False).wait_until_finished()

    await asyncio.to_thread(free)
    await run(customer, "SweepLeaks")
    (leak,) = await leaks(customer)
    assert leak.resolved_at is not None
    await customer.verify_empty()


async def until_refused(customer: Customer, operation: MachineOperation) -> None:
    """Wait until an operation says that its credential is of another account."""

    async def is_refused() -> bool:
        steps = await customer.fleet.platform.steps(operation)
        messages = [step.error_message or "" for step in steps]
        return any("another account" in message for message in messages)

    await until(is_refused)


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_server_that_a_person_gave_our_labels_is_for_a_person_to_look_at(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain.inventory, "YOUNG_FOR", timedelta(seconds=-60))
    scenario = Deleting(customer)
    made = await scenario.make()
    await customer.fleet.execute(
        "UPDATE cloud_intents SET found_at = found_at - interval '1 hour' WHERE operation_id = %s",
        made.operation_id,
    )
    (server,) = [thing for thing in await customer.has() if thing.kind == "server"]
    hand = console(customer).servers

    def copy() -> int:
        image, size = Image(name="debian-12"), ServerType(name=SIZE)
        new = hand.create(name="mine", server_type=size, image=image, labels=dict(server.tags))
        new.action.wait_until_finished()
        assert new.server.id is not None
        return new.server.id

    copied = await asyncio.to_thread(copy)
    deletion = scenario.requested = await customer.fleet.request(
        OperationType.MACHINE_DELETE, made.owner_id
    )
    await scenario.start(OperationType.MACHINE_DELETE, deletion)
    await scenario.succeed(deletion)
    assert [thing.name for thing in await customer.has()] == ["mine"]
    assert (await customer.inventory_of(deletion)).left == 1
    await run(customer, "SweepLeaks")
    (leak,) = await leaks(customer)
    assert (leak.cloud_id, leak.resolved_at) == (str(copied), None)
    # Nobody has tried to remove it.
    assert (leak.attempts, leak.last_error) == (0, None)
    assert await customer.kinds() == ["server"]
    await asyncio.to_thread(lambda: hand.get_by_id(copied).delete().wait_until_finished())
    await run(customer, "SweepLeaks")
    await customer.verify_empty()
