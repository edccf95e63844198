"""What the clock and requests find in an account: offers, drift, lost servers, and leaks."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hcloud import Client
from sqlmodel import col

import domain.inventory
from domain.cloud import CloudResource, Tag, resource_name
from domain.compute import DriftRequest, DriftState, PreflightRequest, SuspensionState
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.machine import MachineHealth, MachineState
from domain.names import CONTROL_TASK_QUEUE
from domain.stack import StackState
from infra.clouds.visits import LEAKS, MACHINES
from infra.database.records.new_rows import NewRows
from infra.database.records.suspension import plan_resumption
from infra.database.tables import (
    AuditEventRow,
    ClusterRow,
    ComputeConfigRow,
    DriftReportRow,
    LeakRow,
    SecretVersionRow,
    SuspensionEventRow,
)
from infra.temporal.waits import detect_drift, preflight
from tests.workflows.machine.cloud.customer import PLACE, SIZE, Customer
from tests.workflows.machine.cloud.scenarios import Creating
from tests.workflows.stops import stopped


async def run(customer: Customer, workflow: str) -> None:
    """Have the clock start a pass."""
    await customer.fleet.platform.client.execute_workflow(
        workflow, id=f"{workflow}/{uuid4()}", task_queue=CONTROL_TASK_QUEUE
    )


def console(customer: Customer) -> Client:
    """Open the account as its owner's browser does."""
    url = f"{customer.hetzner.url}/v1"
    return Client(token=customer.eye, api_endpoint=url, poll_interval=0.05)


async def reads_of(customer: Customer, operation_id: str) -> list[AuditEventRow]:
    """Return the audit lines of the customer's credential that were written for something."""
    (config,) = await customer.rows(ComputeConfigRow, ComputeConfigRow.id == customer.config_id)
    lines = await customer.rows(
        AuditEventRow,
        AuditEventRow.action == "secret_version.access",
        AuditEventRow.resource_id == config.secret_id,
    )
    return [line for line in lines if line.details["operation_id"] == operation_id]


async def server_of(customer: Customer) -> CloudResource:
    (server,) = [thing for thing in await customer.has() if thing.kind == "server"]
    return server


async def report(customer: Customer, machine_id: str) -> DriftReportRow:
    """Ask for a report of a machine's drift, and read it."""
    request = DriftRequest(
        workspace_id=customer.fleet.owner.workspace_id,
        machine_id=machine_id,
        report_id=new_id(Prefix.DRIFT_REPORT),
        caller=customer.fleet.owner,
    )
    await detect_drift(customer.fleet.platform.client, request)
    (row,) = await customer.rows(DriftReportRow, DriftReportRow.id == request.report_id)
    assert isinstance(row, DriftReportRow)
    return row


async def leaks(customer: Customer) -> list[LeakRow]:
    rows = await customer.rows(LeakRow, LeakRow.compute_config_id == customer.config_id)
    return sorted(rows, key=lambda row: row.id)


async def test_an_account_offers_sizes_with_prices(customer: Customer) -> None:
    request = PreflightRequest(
        workspace_id=customer.fleet.owner.workspace_id,
        compute_config_id=customer.config_id,
        places=[PLACE],
        caller=customer.fleet.owner,
    )
    found = await preflight(customer.fleet.platform.client, new_id(Prefix.REQUEST), request)
    (offer,) = found.places
    (size,) = [one for one in offer.instance_types if one.name == SIZE]
    assert size.available
    assert size.price_per_hour is not None
    assert size.currency == "EUR"
    # The credential was read for whoever asked.
    (read,) = await reads_of(customer, "preflight-machines")
    assert read.actor_id == customer.fleet.owner.principal_id


async def test_an_account_without_machines_is_not_asked_for_servers(customer: Customer) -> None:
    await run(customer, "ReconcileMachines")
    assert await reads_of(customer, MACHINES) == []
    await run(customer, "SweepLeaks")
    assert len(await reads_of(customer, LEAKS)) == 1


async def test_what_a_person_does_in_the_console_is_found_and_not_undone(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = Creating(customer)
    operation = scenario.requested = await scenario.make()
    monkeypatch.setattr(domain.inventory, "YOUNG_FOR", timedelta(seconds=-60))
    await run(customer, "SweepLeaks")
    assert await leaks(customer) == []
    assert (await report(customer, operation.owner_id)).state is DriftState.IN_SYNC
    server = await server_of(customer)
    hand = console(customer).servers
    await asyncio.to_thread(lambda: hand.get_by_id(int(server.id)).update(name="renamed"))
    drifted = await report(customer, operation.owner_id)
    assert drifted.state is DriftState.DRIFTED
    assert "server" in drifted.delta
    assert drifted.provider_snapshot["raw_attrs"]["name"] == "renamed"
    assert (await server_of(customer)).name == "renamed"
    await asyncio.to_thread(lambda: hand.get_by_id(int(server.id)).delete().wait_until_finished())
    await run(customer, "ReconcileMachines")
    row = await customer.fleet.until(
        operation.owner_id, lambda row: row.health is MachineHealth.UNREACHABLE
    )
    assert row.server_missing_since is not None
    assert "gone from the cloud account" in (row.health_reason or "")
    assert "server" not in await customer.kinds()
    await scenario.clean_up()


async def test_what_nobody_wants_is_found_and_removed_if_it_was_surely_ours(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain.inventory, "YOUNG_FOR", timedelta(seconds=-60))
    known, unknown = await customer.removed_stack(), new_id(Prefix.STACK)
    hand, labels = console(customer), dict[str, str]()
    labels[Tag.WORKSPACE] = customer.fleet.owner.workspace_id

    def make(stack_id: str) -> None:
        marks = {**labels, Tag.STACK: stack_id, Tag.RESOURCE: "network"}
        name = resource_name(stack_id, "network")
        made = hand.networks.create(name=name, ip_range="10.9.0.0/16", labels=marks)
        made.change_protection(delete=True).wait_until_finished()

    await asyncio.to_thread(make, known)
    await asyncio.to_thread(make, unknown)
    await run(customer, "SweepLeaks")
    found = {row.stack_id: row for row in await leaks(customer)}
    assert (found[known].attempts, found[known].resolved_at) == (1, None)
    assert found[known].last_error
    # Rows can be lost with a database; that is no reason to remove what they may have stood for.
    assert (found[unknown].attempts, found[unknown].resolved_at) == (0, None)

    def free() -> None:
        for network in hand.networks.get_all():
            network.change_protection(delete=False).wait_until_finished()

    await asyncio.to_thread(free)
    async with stopped(customer.fleet.platform, customer.fleet.owner):
        await run(customer, "SweepLeaks")
    found = {row.stack_id: row for row in await leaks(customer)}
    assert (found[known].attempts, found[known].resolved_at) == (1, None)
    assert "emergency stop" in (found[known].last_error or "")
    await run(customer, "SweepLeaks")
    found = {row.stack_id: row for row in await leaks(customer)}
    assert found[known].resolved_at is not None
    assert found[unknown].resolved_at is None
    assert await customer.kinds() == ["network"]
    await asyncio.to_thread(lambda: customer.hetzner.revoke(customer.token))
    await run(customer, "SweepLeaks")
    (config,) = await customer.rows(ComputeConfigRow, ComputeConfigRow.id == customer.config_id)
    found = {row.stack_id: row for row in await leaks(customer)}
    assert found[unknown].last_error == config.problem
    assert config.problem
    # With a token of the same project it is seen, and closed once it is gone.
    await customer.bring_token()
    await run(customer, "SweepLeaks")
    await asyncio.to_thread(lambda: [network.delete() for network in hand.networks.get_all()])
    await run(customer, "SweepLeaks")
    await customer.verify_empty()


async def test_what_was_never_about_to_be_made_is_found_under_the_tags_of_what_works(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain.inventory, "YOUNG_FOR", timedelta(seconds=-60))
    stack_id, hand = await customer.removed_stack(), console(customer).networks
    set_state = "UPDATE stacks SET state = %s WHERE id = %s"
    await customer.fleet.execute(set_state, StackState.PRESENT, stack_id)

    def make() -> None:
        marks: dict[str, str] = {Tag.STACK: stack_id, Tag.RESOURCE: "backup"}
        marks[Tag.WORKSPACE] = customer.fleet.owner.workspace_id
        hand.create(name="backup", ip_range="10.9.0.0/16", labels=marks)

    await asyncio.to_thread(make)
    for _ in range(2):
        await run(customer, "SweepLeaks")
    (leak,) = await leaks(customer)
    assert (leak.name, leak.resolved_at) == ("backup", None)
    assert (leak.attempts, leak.last_error) == (0, None)
    assert await customer.kinds() == ["network"]
    await asyncio.to_thread(lambda: [network.delete() for network in hand.get_all()])
    await run(customer, "SweepLeaks")
    await customer.fleet.execute(set_state, StackState.REMOVED, stack_id)
    await customer.verify_empty()


async def test_each_version_that_a_config_names_leads_to_an_account_of_its_own(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain.inventory, "YOUNG_FOR", timedelta(seconds=-60))
    workspace_id, first = customer.fleet.owner.workspace_id, customer.project
    (config,) = await customer.rows(ComputeConfigRow, ComputeConfigRow.id == customer.config_id)
    labels: dict[str, str] = {Tag.WORKSPACE: workspace_id, Tag.RESOURCE: "network"}

    def lose(token: str, name: str) -> None:
        hand = Client(token=token, api_endpoint=f"{customer.hetzner.url}/v1", poll_interval=0.05)
        marks = {**labels, Tag.STACK: new_id(Prefix.STACK)}
        hand.networks.create(name=name, ip_range="10.9.0.0/16", labels=marks)

    await asyncio.to_thread(lose, customer.token, "first")
    # The other project is the current version's; the first config stays with the first.
    (version,) = await customer.rows(
        SecretVersionRow, SecretVersionRow.secret_id == config.secret_id
    )
    other = ComputeConfigRow(
        workspace_id=workspace_id,
        id=new_id(Prefix.COMPUTE_CONFIG),
        name=uuid4().hex,
        provider=config.provider,
        provider_config=config.provider_config,
        secret_id=config.secret_id,
    )
    async with customer.fleet.platform.api.workspace(workspace_id) as session:
        session.add(other)
        kept = await session.get_one(ComputeConfigRow, (workspace_id, config.id))
        kept.secret_version_id = version.id
    customer.project = uuid4().hex
    await customer.bring_token()
    customer.project = first
    await asyncio.to_thread(lose, customer.token, "second")
    await run(customer, "SweepLeaks")
    found = await customer.rows(
        LeakRow, col(LeakRow.compute_config_id).in_([customer.config_id, other.id])
    )
    by_config = {row.compute_config_id: row.name for row in found}
    assert by_config == {customer.config_id: "first", other.id: "second"}

    def tidy() -> None:
        for network in console(customer).networks.get_all():
            network.delete()

    await asyncio.to_thread(tidy)


async def test_a_snapshot_that_is_kept_no_more_leaves_a_machine_that_can_only_be_deleted(
    customer: Customer,
) -> None:
    fleet = customer.fleet
    machine_id = (operation := await fleet.have_active()).owner_id
    event = SuspensionEventRow(
        workspace_id=fleet.owner.workspace_id,
        id=new_id(Prefix.SUSPENSION),
        machine_id=machine_id,
        state=SuspensionState.COMPLETED,
        reason="manual",
        expires_at=datetime.now(UTC) - timedelta(minutes=1),
    )
    async with fleet.platform.api.workspace(fleet.owner.workspace_id) as session:
        session.add(event)
    await fleet.change(operation, state=MachineState.SUSPENDED, suspension_id=event.id)
    await run(customer, "SweepLeaks")
    (found,) = await customer.rows(SuspensionEventRow, SuspensionEventRow.id == event.id)
    assert found.state is SuspensionState.EXPIRED
    row = await fleet.row(machine_id)
    assert row is not None
    assert row.state is MachineState.SUSPENDED
    (cluster,) = await customer.rows(ClusterRow, ClusterRow.id == fleet.cluster.cluster_id)
    with pytest.raises(BulkheadError) as refused:
        plan_resumption(NewRows(), row, found, cluster, fleet.owner, request={})
    assert refused.value.reason is Reason.FAILED_PRECONDITION
    assert "Delete the machine" in refused.value.message
    await fleet.forget(operation)
