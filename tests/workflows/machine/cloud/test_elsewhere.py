"""The workflows of machines at AWS and at Google, and storms of refusals at each provider."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from domain.cloud import SERVER, SNAPSHOT, Provider
from domain.names import workflow_id_of
from domain.operation import OperationState, OperationType, Step
from domain.owned_operation import MachineOperation
from tests.clouds import aws_case, gcp_case, hcloud_case
from tests.clouds.case import LocalAccount, ProviderCase
from tests.durability import Moment, cases_of, survives_repeats, unwinds_every_cancellation
from tests.workflows.conftest import Injected
from tests.workflows.dying_worker import end_despite_a_kill, running_worker
from tests.workflows.hetzner import Hetzner
from tests.workflows.machine.cloud.customer import Customer
from tests.workflows.machine.cloud.elsewhere import CustomerElsewhere
from tests.workflows.machine.cloud.scenarios import Creating, Deleting, until
from tests.workflows.machine.cloud.sleeping import Resuming, Suspending
from tests.workflows.machine.cloud.test_accounts import bring_token, until_parked
from tests.workflows.machine.fleet import Fleet

Kind = type[Creating | Deleting]
ELSEWHERE = [aws_case.CASE, gcp_case.CASE]
EVERYWHERE = [hcloud_case.CASE, *ELSEWHERE]
STORM_SECONDS = 12
# What is done to the calls that remove a copy of a disk. AWS's takes two, and the first attempt
# comes to its end between them.
REMOVES_A_COPY: dict[Provider, dict[str, Any]] = {
    Provider.HCLOUD: {"kind": "slow", "delay_seconds": 0, "call": "DELETE /v1/images/"},
    Provider.AWS: {"kind": "unavailable", "call": "POST / DeleteSnapshot$"},
    Provider.GCP: {"kind": "slow", "delay_seconds": 0, "call": "DELETE .*/images/"},
}

pytestmark = [pytest.mark.full, pytest.mark.timeout(1200)]


@pytest_asyncio.fixture
async def elsewhere(
    request: pytest.FixtureRequest, cloud_fleet: Fleet, hetzner: Hetzner
) -> AsyncIterator[Customer]:
    """Give a customer of the provider that a test is parametrized with."""
    case: ProviderCase = request.param
    is_hetzner = case.provider is Provider.HCLOUD
    customer = (
        Customer(cloud_fleet, hetzner)
        if is_hetzner
        else CustomerElsewhere(cloud_fleet, hetzner, case)
    )
    await customer.open()
    yield customer
    customer.close()


def provider_of(case: ProviderCase) -> str:
    return str(case.provider)


async def is_making_a_server(customer: Customer) -> bool:
    """Tell whether the account has a server that the engine still works on."""
    there = any(thing.resource == SERVER for thing in await customer.has())
    return there and ("machine", "changing") in await customer.stacks()


async def is_copying(customer: Customer) -> bool:
    """Tell whether the account has a copy of a disk, whole or not."""
    return any(thing.resource == SNAPSHOT for thing in await customer.has())


async def planned_for(scenario: Creating | Deleting, queue: str) -> MachineOperation:
    """Plan an operation whose steps run on a queue alone, those of its cluster's host too."""
    await scenario.plan()
    operation = scenario.operation
    plane = replace(operation.control_plane, host=queue)
    return replace(operation, machine=replace(operation.machine, control_plane=plane))


def api_of(customer: Customer) -> LocalAccount:
    """Return the customer's account as what its provider's API can be disturbed with."""
    if isinstance(customer, CustomerElsewhere):
        return customer.account
    url = customer.hetzner.url
    return LocalAccount(case=hcloud_case.CASE, url=url, credential=customer.credential)


@pytest.mark.parametrize("elsewhere", ELSEWHERE, indirect=True, ids=provider_of)
async def test_a_machine_comes_sleeps_wakes_and_goes(elsewhere: Customer) -> None:
    suspending, resuming = Suspending(elsewhere), Resuming(elsewhere)
    for scenario in (suspending, resuming):
        resuming.machine_id = suspending.machine_id
        await scenario.plan()
        await scenario.begin()
        await scenario.succeed(scenario.operation)
        await scenario.verify_done()
    await elsewhere.give_back()


@pytest.mark.parametrize("elsewhere", EVERYWHERE, indirect=True, ids=provider_of)
async def test_a_suspension_that_is_cancelled_while_the_disk_is_copied_keeps_nothing(
    elsewhere: Customer, hetzner: Hetzner
) -> None:
    scenario, api = Suspending(elsewhere), api_of(elsewhere)
    operation_id = await scenario.plan()
    hetzner.servers.copying.clear()
    try:
        await scenario.begin()
        await until(lambda: is_copying(elsewhere))
        # Not before: what is removed is asked for beforehand, too.
        api.disturb(**REMOVES_A_COPY[elsewhere.provider])
        await scenario.cancel(operation_id)

        async def is_being_removed() -> bool:
            return bool(api.faults()[0]["struck"])

        await until(is_being_removed)
    finally:
        hetzner.servers.copying.set()
        api.heal()
    assert await scenario.end_of(operation_id, 1) is OperationState.CANCELLED
    await scenario.verify_undone()
    await scenario.verify_looked_at()
    await scenario.clean_up()


@pytest.mark.parametrize("kind", [Creating, Deleting])
@pytest.mark.parametrize("elsewhere", ELSEWHERE, indirect=True, ids=provider_of)
async def test_an_operation_succeeds_though_every_activity_runs_twice(
    kind: Kind, injected: Injected, elsewhere: Customer
) -> None:
    await survives_repeats(kind(elsewhere), injected.injector)


@pytest.mark.parametrize("elsewhere", ELSEWHERE, indirect=True, ids=provider_of)
async def test_a_server_that_was_removed_by_hand_holds_no_delete_up(elsewhere: Customer) -> None:
    scenario = Deleting(elsewhere)
    made = await scenario.make()
    (server,) = [thing for thing in await elsewhere.has() if thing.resource == SERVER]
    await asyncio.to_thread(elsewhere.cloud.remove, server)
    scenario.requested = await elsewhere.fleet.request(OperationType.MACHINE_DELETE, made.owner_id)
    await scenario.start(OperationType.MACHINE_DELETE, scenario.operation)
    await scenario.succeed(scenario.operation)
    await scenario.verify_done()


@pytest.mark.parametrize("elsewhere", ELSEWHERE, indirect=True, ids=provider_of)
async def test_a_delete_waits_for_a_credential_that_is_accepted(elsewhere: Customer) -> None:
    scenario, api = Deleting(elsewhere), api_of(elsewhere)
    made = await scenario.make()
    deletion = scenario.requested = await elsewhere.fleet.request(
        OperationType.MACHINE_DELETE, made.owner_id
    )
    try:
        api.disturb(kind="credential")
        await scenario.start(OperationType.MACHINE_DELETE, deletion)
        await until_parked(elsewhere, deletion)
        await bring_token(elsewhere, OperationType.MACHINE_DELETE, deletion)
    finally:
        api.heal()
    await scenario.succeed(deletion)
    await scenario.verify_done()


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("elsewhere", ELSEWHERE, indirect=True, ids=provider_of)
async def test_a_cancel_at_every_step_is_undone(injected: Injected, elsewhere: Customer) -> None:
    scenario = Creating(elsewhere)
    await unwinds_every_cancellation(scenario, injected.injector, cases_of(scenario))


@pytest.mark.parametrize("elsewhere", EVERYWHERE, indirect=True, ids=provider_of)
async def test_a_cancel_while_the_engine_makes_the_server_is_undone(elsewhere: Customer) -> None:
    scenario = Creating(elsewhere)
    operation_id = await scenario.plan()
    await scenario.begin()
    await until(lambda: is_making_a_server(elsewhere))
    await scenario.cancel(operation_id)
    assert await scenario.end_of(operation_id, 1) is OperationState.CANCELLED
    await scenario.verify_undone()


# Between the provider's effect and its record: where something could be made twice or forgotten.
@pytest.mark.parametrize(
    ("kind", "step"),
    [
        (Creating, Step.ENSURE_NETWORK),
        (Creating, Step.CREATE_SERVER),
        (Deleting, Step.REMOVE_SERVER),
        (Deleting, Step.RELEASE_NETWORK),
    ],
)
@pytest.mark.parametrize("elsewhere", ELSEWHERE, indirect=True, ids=provider_of)
async def test_an_operation_completes_although_its_worker_is_killed_after_a_step(
    kind: Kind, step: Step, elsewhere: Customer, hetzner: Hetzner
) -> None:
    scenario, queue = kind(elsewhere), f"dying-{uuid4().hex}"
    operation = await planned_for(scenario, queue)
    platform, what = elsewhere.fleet.platform, scenario.operation_type
    case = (step, Moment.AFTER)
    state = await end_despite_a_kill(platform, what, operation, queue, case, hetzner)
    assert state is OperationState.SUCCEEDED
    await scenario.verify_done()
    await scenario.clean_up()


@pytest.mark.parametrize("elsewhere", ELSEWHERE, indirect=True, ids=provider_of)
async def test_a_worker_that_is_killed_while_the_engine_makes_the_server_makes_no_second_one(
    elsewhere: Customer, hetzner: Hetzner
) -> None:
    scenario, queue = Creating(elsewhere), f"dying-{uuid4().hex}"
    operation = await planned_for(scenario, queue)
    platform, what = elsewhere.fleet.platform, scenario.operation_type
    await platform.client.start_workflow(
        scenario.workflow,
        operation,
        id=workflow_id_of(what, operation.owner_id, operation.operation_id),
        task_queue=queue,
    )
    with running_worker(platform.servers, queue, hetzner) as dying:
        await until(lambda: is_making_a_server(elsewhere))
        dying.kill()
    with running_worker(platform.servers, queue, hetzner):
        await scenario.succeed(operation)
    await scenario.verify_done()
    await scenario.clean_up()


@pytest.mark.parametrize("elsewhere", EVERYWHERE, indirect=True, ids=provider_of)
async def test_a_storm_of_refusals_is_sat_out(elsewhere: Customer) -> None:
    scenario, api = Deleting(elsewhere), api_of(elsewhere)

    def storm(kind: str) -> None:
        api.heal()
        api.disturb(kind=kind, seconds=STORM_SECONDS)

    try:
        made = await elsewhere.plan()
        storm("rate_limit")
        await scenario.start(OperationType.MACHINE_CREATE, made)
        await scenario.succeed(made)
        (first,) = api.faults()
        await elsewhere.verify_whole()
        await elsewhere.rest()
        deletion = scenario.requested = await elsewhere.fleet.request(
            OperationType.MACHINE_DELETE, made.owner_id
        )
        storm("unavailable")
        await scenario.start(OperationType.MACHINE_DELETE, deletion)
        await scenario.succeed(deletion)
        (second,) = api.faults()
    finally:
        api.heal()
    assert first["struck"] > 0
    assert second["struck"] > 0
    await scenario.verify_done()
