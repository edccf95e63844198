"""What a customer's account may do to operations: refuse, have no room, lose a server."""

import asyncio
from datetime import timedelta

import pytest
from hcloud import Client
from psycopg import sql

from domain.compute import Choice
from domain.errors import Reason
from domain.machine import MachineKind
from domain.names import workflow_id_of
from domain.operation import (
    CREDENTIAL_CHANGED,
    WAITING_FOR_CREDENTIAL,
    OperationState,
    OperationType,
    Step,
    StepStatus,
)
from domain.owned_operation import MachineOperation
from infra.database.tables import CloudIntentRow, ComputePolicyRow, InventoryRow, LeakRow
from infra.stacks.backend import table_of
from tests.durability import Fault, Moment
from tests.workflows.conftest import Injected
from tests.workflows.hetzner import Hetzner
from tests.workflows.machine.cloud.customer import PLACE, SIZE, Customer
from tests.workflows.machine.cloud.scenarios import (
    RUNS_WITHIN_SECONDS,
    CloudScenario,
    Creating,
    Deleting,
    until,
)
from tests.workflows.machine.cloud.test_visits import run

OTHER_PLACE = "nbg1"


async def until_parked(customer: Customer, operation: MachineOperation) -> None:
    async def is_parked() -> bool:
        row = await customer.fleet.operation(operation.operation_id)
        return row.waiting_for == WAITING_FOR_CREDENTIAL

    await until(is_parked)


async def bring_token(customer: Customer, kind: OperationType, operation: MachineOperation) -> None:
    """Add a version to the secret, and wake who waits for it, as the API does."""
    await customer.bring_token()
    handle = customer.fleet.platform.client.get_workflow_handle(
        workflow_id_of(kind, operation.owner_id, operation.operation_id)
    )
    await handle.signal(CREDENTIAL_CHANGED)


async def statuses(scenario: CloudScenario) -> dict[str, StepStatus]:
    return {step.name: step.status for step in await scenario.platform.steps(scenario.operation)}


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_machine_falls_back_to_a_place_with_capacity_and_goes_despite_a_dead_token(
    customer: Customer, hetzner: Hetzner
) -> None:
    scenario = Deleting(customer)
    made = scenario.requested = await customer.plan(
        Choice(place=PLACE, instance_type=SIZE), Choice(place=OTHER_PLACE, instance_type=SIZE)
    )
    await asyncio.to_thread(hetzner.fault, "capacity", place=PLACE)
    await scenario.start(OperationType.MACHINE_CREATE, made)
    await scenario.succeed(made)
    row = await scenario.row(made)
    assert (row.place, row.instance_type) == (OTHER_PLACE, SIZE)
    # Nothing is left of the place that was tried first.
    assert await customer.stacks() == [
        ("machine", "present"),
        ("machine", "removed"),
        ("network", "present"),
        ("network", "removed"),
    ]
    assert {thing.place for thing in await customer.has()} <= {OTHER_PLACE, "eu-central", ""}
    done = await statuses(scenario)
    assert done[Step.CREATE_SERVER] is StepStatus.COMPLETED

    await asyncio.to_thread(hetzner.revoke, customer.token)
    deletion = scenario.requested = await customer.fleet.request(
        OperationType.MACHINE_DELETE, made.owner_id
    )
    await scenario.start(OperationType.MACHINE_DELETE, deletion)
    await until_parked(customer, deletion)
    assert "server" in await customer.kinds()
    await bring_token(customer, OperationType.MACHINE_DELETE, deletion)
    await scenario.succeed(deletion)
    await scenario.verify_done()


async def test_a_create_waits_for_a_token_and_a_cancel_ends_that(
    customer: Customer, hetzner: Hetzner
) -> None:
    scenario = Creating(customer)
    await asyncio.to_thread(hetzner.revoke, customer.token)
    operation_id = await scenario.request()
    await until_parked(customer, scenario.operation)
    await scenario.cancel(operation_id)
    assert await scenario.end_of(operation_id, 60) is OperationState.CANCELLED
    await scenario.verify_undone()


async def test_a_place_that_the_workspace_does_not_allow_is_not_asked_for(
    customer: Customer,
) -> None:
    scenario, owner = Creating(customer), customer.fleet.owner
    async with customer.fleet.platform.api.workspace(owner.workspace_id) as session:
        session.add(
            ComputePolicyRow(
                workspace_id=owner.workspace_id, allowed_places=[f"hcloud/{OTHER_PLACE}"]
            )
        )
    try:
        operation_id = await scenario.request()
        assert await scenario.end_of(operation_id, 60) is OperationState.FAILED
    finally:
        await customer.fleet.execute(
            "DELETE FROM compute_policies WHERE workspace_id = %s", owner.workspace_id
        )
    ended = await customer.fleet.operation(operation_id)
    assert ended.error is not None
    assert ended.error["reason"] == Reason.FAILED_PRECONDITION
    assert await customer.stacks() == []
    await scenario.verify_undone()


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_server_that_was_removed_by_hand_holds_no_delete_up(
    customer: Customer, hetzner: Hetzner
) -> None:
    scenario = Deleting(customer)
    made = await scenario.make()
    (server,) = [thing for thing in await customer.has() if thing.kind == "server"]
    await asyncio.to_thread(hetzner.cloud(customer.eye).remove, server)
    scenario.requested = await customer.fleet.request(OperationType.MACHINE_DELETE, made.owner_id)
    await scenario.start(OperationType.MACHINE_DELETE, scenario.operation)
    await scenario.succeed(scenario.operation)
    await scenario.verify_done()


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_server_that_never_calls_is_taken_back_by_a_delete(
    customer: Customer, hetzner: Hetzner
) -> None:
    hetzner.servers.silent = True
    scenario = Deleting(customer)
    made = await customer.plan()
    await scenario.start(OperationType.MACHINE_CREATE, made)

    async def waits_for_it() -> bool:
        waiting = (await customer.fleet.operation(made.operation_id)).waiting_for
        return waiting is not None and "bootstrap token" in waiting

    await until(waits_for_it)
    scenario.requested = await customer.fleet.request(OperationType.MACHINE_DELETE, made.owner_id)
    await scenario.start(OperationType.MACHINE_DELETE, scenario.operation)
    assert await scenario.platform.end_of(made, RUNS_WITHIN_SECONDS) is OperationState.CANCELLED
    await scenario.succeed(scenario.operation)
    await scenario.verify_done()


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_credential_that_dies_in_the_middle_is_replaced_and_the_create_goes_on(
    injected: Injected, customer: Customer, hetzner: Hetzner
) -> None:
    scenario = Creating(customer)

    async def die() -> None:
        await asyncio.to_thread(hetzner.revoke, customer.token)

    workflow = scenario.facts.workflow_for(MachineKind.CLOUD)
    injected.injector.fault = Fault(workflow, Step.CREATE_SERVER, Moment.BEFORE, die)
    try:
        await scenario.request()
        await until_parked(customer, scenario.operation)
        await bring_token(customer, OperationType.MACHINE_CREATE, scenario.operation)
        await scenario.succeed(scenario.operation)
    finally:
        injected.injector.fault = None
    await scenario.verify_done()
    await scenario.clean_up()


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("step", "made"),
    [(Step.ENSURE_NETWORK, set[str]()), (Step.CREATE_SERVER, {"network"})],
    ids=["network", "server"],
)
async def test_a_place_that_was_forbidden_while_a_create_waited_gets_nothing_more(
    injected: Injected, customer: Customer, hetzner: Hetzner, step: Step, made: set[str]
) -> None:
    scenario, owner = Creating(customer), customer.fleet.owner

    async def die() -> None:
        await asyncio.to_thread(hetzner.revoke, customer.token)

    workflow = scenario.facts.workflow_for(MachineKind.CLOUD)
    injected.injector.fault = Fault(workflow, step, Moment.BEFORE, die)
    try:
        operation_id = await scenario.request()
        await until_parked(customer, scenario.operation)
        async with customer.fleet.platform.api.workspace(owner.workspace_id) as session:
            places = [f"hcloud/{OTHER_PLACE}"]
            session.add(ComputePolicyRow(workspace_id=owner.workspace_id, allowed_places=places))
        await bring_token(customer, OperationType.MACHINE_CREATE, scenario.operation)
        assert await scenario.end_of(operation_id, 60) is OperationState.FAILED
    finally:
        injected.injector.fault = None
        await customer.fleet.execute(
            "DELETE FROM compute_policies WHERE workspace_id = %s", owner.workspace_id
        )
    intents = await customer.rows(CloudIntentRow, CloudIntentRow.operation_id == operation_id)
    kinds = {intent.kind for intent in intents if intent.cloud_id}
    assert kinds & {"network", "server"} == made
    await scenario.verify_undone()


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_what_the_provider_does_not_let_go_is_kept_as_a_finding(
    customer: Customer, hetzner: Hetzner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.stacks.WRITTEN_OFF_AFTER", timedelta(0))
    scenario = Deleting(customer)
    made = await scenario.make()
    assert await asyncio.to_thread(kept_states, customer) > 0
    await asyncio.to_thread(protect, hetzner, customer, True)
    scenario.requested = await customer.fleet.request(OperationType.MACHINE_DELETE, made.owner_id)
    await scenario.start(OperationType.MACHINE_DELETE, scenario.operation)
    await scenario.succeed(scenario.operation)
    ended = await customer.fleet.operation(scenario.operation.operation_id)
    assert ended.response is not None
    kinds = [thing["kind"] for thing in ended.response["inventory"]["resources"]]
    assert "server" in kinds
    leaks = await customer.rows(LeakRow, LeakRow.compute_config_id == customer.config_id)
    assert sorted(leak.kind for leak in leaks if leak.resolved_at is None) == sorted(kinds)
    inventory: InventoryRow = await customer.inventory_of(scenario.operation)
    assert inventory.left == len(kinds)
    assert await asyncio.to_thread(kept_states, customer) == 0
    await asyncio.to_thread(protect, hetzner, customer, False)
    await run(customer, "SweepLeaks")
    await customer.verify_empty()


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_provider_that_hangs_is_not_waited_for_by_a_delete_that_shows_no_step(
    customer: Customer, hetzner: Hetzner
) -> None:
    scenario = Deleting(customer)
    made = await scenario.make()
    call = "GET /v1/servers/"
    await asyncio.to_thread(lambda: hetzner.fault("slow", call=call, delay_seconds=60))
    deletion = scenario.requested = await customer.fleet.request(
        OperationType.MACHINE_DELETE, made.owner_id
    )
    await scenario.start(OperationType.MACHINE_DELETE, deletion)
    async with asyncio.timeout(20):
        while set((await statuses(scenario)).values()) == {StepStatus.PENDING}:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    hetzner.heal()
    await scenario.succeed(deletion)
    await scenario.verify_done()


def kept_states(customer: Customer) -> int:
    """Count what Pulumi keeps of the stacks of the customer's account."""
    name = table_of(customer.fleet.owner.workspace_id)
    query = sql.SQL(
        "SELECT count(DISTINCT s.id) FROM stacks s JOIN compute_configs c"
        " ON c.id = %s AND c.secret_id = s.secret_id"
        " JOIN {} p ON strpos(p.key, '.pulumi/stacks/') > 0"
        " AND strpos(p.key, split_part(s.id, '_', 2)) > 0"
    ).format(sql.Identifier(name, name))
    with customer.fleet.platform.servers.administrator() as administrator:
        ((count,),) = administrator.execute(query, (customer.config_id,)).fetchall()
    return int(count)


def protect(hetzner: Hetzner, customer: Customer, on: bool) -> None:  # noqa: FBT001 - a switch
    """Switch the protection of the customer's servers on or off, as a person does."""
    client = Client(token=customer.eye, api_endpoint=hetzner.providers.hcloud_url)
    for server in client.servers.get_all():
        server.change_protection(delete=on, rebuild=on).wait_until_finished()
