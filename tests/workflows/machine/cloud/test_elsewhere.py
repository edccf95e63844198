"""The workflows of machines at AWS and at Google, and storms of refusals at each provider."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import pytest
import pytest_asyncio

from domain.cloud import SERVER, Provider
from domain.operation import OperationState, OperationType, Step
from tests.clouds import aws_case, gcp_case, hcloud_case
from tests.clouds.case import LocalAccount, ProviderCase
from tests.durability import Moment, cases_of, survives_repeats, unwinds_every_cancellation
from tests.workflows.conftest import Injected
from tests.workflows.dying_worker import end_despite_a_kill
from tests.workflows.hetzner import Hetzner
from tests.workflows.machine.cloud.customer import Customer
from tests.workflows.machine.cloud.elsewhere import CustomerElsewhere
from tests.workflows.machine.cloud.scenarios import Creating, Deleting
from tests.workflows.machine.cloud.sleeping import Resuming, Suspending
from tests.workflows.machine.cloud.test_accounts import bring_token, until_parked
from tests.workflows.machine.fleet import Fleet

ELSEWHERE = [aws_case.CASE, gcp_case.CASE]
STORM_SECONDS = 12

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


@pytest.mark.parametrize("elsewhere", ELSEWHERE, indirect=True, ids=provider_of)
async def test_a_delete_goes_though_every_activity_runs_twice(
    injected: Injected, elsewhere: Customer
) -> None:
    await survives_repeats(Deleting(elsewhere), injected.injector)


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


@pytest.mark.parametrize("elsewhere", ELSEWHERE, indirect=True, ids=provider_of)
async def test_a_create_completes_although_its_worker_is_killed(
    elsewhere: Customer, hetzner: Hetzner
) -> None:
    scenario, queue = Creating(elsewhere), f"dying-{uuid4().hex}"
    await scenario.plan()
    operation = scenario.operation
    plane = replace(operation.control_plane, host=queue)
    operation = replace(operation, machine=replace(operation.machine, control_plane=plane))
    case = (Step.CREATE_SERVER, Moment.AFTER)
    platform, kind = elsewhere.fleet.platform, scenario.operation_type
    state = await end_despite_a_kill(platform, kind, operation, queue, case, hetzner)
    assert state is OperationState.SUCCEEDED
    await scenario.verify_done()
    await scenario.clean_up()


@pytest.mark.parametrize(
    "elsewhere", [hcloud_case.CASE, *ELSEWHERE], indirect=True, ids=provider_of
)
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
