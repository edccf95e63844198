"""What differs between an account and its stacks is found, for every customer."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hcloud.firewalls import FirewallRule

import infra.database.records.drift as drift_records
from domain.compute import DriftState
from domain.identifiers import Prefix, new_id
from domain.machine import MachineState
from infra.database.engine import Database, DatabaseRole
from infra.database.records.drift import DriftRecords
from infra.database.tables import DriftReportRow
from tests.workflows.conftest import Injected
from tests.workflows.hetzner import Hetzner
from tests.workflows.machine.cloud.customer import PLACE, SIZE, Customer
from tests.workflows.machine.cloud.scenarios import Creating
from tests.workflows.machine.cloud.test_visits import console, reads_of, report, run


async def add_machine(customer: Customer) -> str:
    """Have a machine whose server is there as far as the rows know, and was never compared."""
    fleet, operation = customer.fleet, await customer.plan()
    await fleet.execute(
        "UPDATE operations SET state = 'SUCCEEDED' WHERE id = %s", operation.operation_id
    )
    await fleet.change(
        operation,
        state=MachineState.ACTIVE,
        active_operation_id=None,
        updated_at=datetime.now(UTC) - timedelta(days=3),
    )
    stack_id = await customer.removed_stack()
    await fleet.execute(
        "UPDATE stacks SET kind = 'machine', machine_id = %s, state = 'present',"
        ' outputs = \'{"server_id": "4711"}\' WHERE id = %s',
        operation.owner_id,
        stack_id,
    )
    return operation.owner_id


async def test_a_machine_that_cannot_be_compared_keeps_no_other_waiting(
    injected: Injected, customer: Customer, hetzner: Hetzner, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = customer.fleet.execute
    await asyncio.to_thread(hetzner.revoke, customer.token)
    refused, waiting = [await add_machine(customer) for _ in range(2)]
    await execute(
        "INSERT INTO drift_reports (workspace_id, id, machine_id, state, delta, provider_snapshot,"
        " version, created_at, expires_at) VALUES (%s, %s, %s, 'in_sync', '{}', '{}', 1,"
        " now() - interval '1 day', now() + interval '1 day')",
        customer.fleet.owner.workspace_id,
        new_id(Prefix.DRIFT_REPORT),
        waiting,
    )
    monkeypatch.setattr(drift_records, "_REPORTS_A_PASS", 1)
    worker, sweeper = (
        Database(customer.fleet.platform.servers.database, role)
        for role in (DatabaseRole.WORKER, DatabaseRole.SWEEPER)
    )
    try:
        records, seen = DriftRecords(worker, sweeper), set[str]()
        async with asyncio.timeout(60):
            while not {refused, waiting} <= seen:
                seen |= {request.machine_id for request in await records.due()}
        # The clock's own pass: each activity twice, and a refusal is no failure of the pass.
        monkeypatch.setattr(drift_records, "_REPORTS_A_PASS", 20)
        injected.injector.repeat = True
        await run(customer, "DetectDrift")
        found = await customer.rows(DriftReportRow, DriftReportRow.machine_id == refused)
        assert found == []
    finally:
        injected.injector.repeat = False
        await worker.close()
        await sweeper.close()
        await execute(
            "DELETE FROM stacks WHERE machine_id = ANY(%s)",
            [refused, waiting],
        )
        await execute("DELETE FROM machines WHERE id = ANY(%s)", [refused, waiting])


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_firewall_that_a_person_opened_is_found_and_not_mended(
    injected: Injected, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = Creating(customer)
    operation = scenario.requested = await scenario.make()
    hand = console(customer)

    def open_up() -> None:
        (firewall,) = hand.firewalls.get_all()
        rule = FirewallRule(direction="in", protocol="tcp", port="22", source_ips=["0.0.0.0/0"])
        for action in firewall.set_rules([rule]):
            action.wait_until_finished()

    await asyncio.to_thread(open_up)
    drifted = await report(customer, operation.owner_id)
    assert drifted.state is DriftState.DRIFTED
    assert set(drifted.delta) == {"firewall"}
    values = drifted.delta["firewall"]["properties"].values()
    assert any("0.0.0.0/0" in str(value["after"]) for value in values)
    (firewall,) = await asyncio.to_thread(hand.firewalls.get_all)
    assert firewall.rules
    # The credential was read for whoever asked.
    (read,) = await reads_of(customer, drifted.id)
    assert read.actor_id == customer.fleet.owner.principal_id
    # The clock finds the same.
    monkeypatch.setattr(drift_records, "_EVERY", timedelta(seconds=-60))
    injected.injector.repeat = True
    try:
        await run(customer, "DetectDrift")
    finally:
        injected.injector.repeat = False
    rows = await customer.rows(DriftReportRow, DriftReportRow.machine_id == operation.owner_id)
    by_trigger = {row.trigger: row for row in rows}
    assert len(rows) == len(by_trigger)
    assert set(by_trigger[drift_records.SCHEDULE].delta) == {"firewall"}
    await scenario.clean_up()


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_network_that_a_person_removed_is_made_again_for_the_next_machine(
    customer: Customer,
) -> None:
    first, second = Creating(customer), Creating(customer)
    first.requested = await first.make()

    def remove_all() -> None:
        cloud = customer.cloud
        there = list(cloud.inventory(customer.fleet.owner.workspace_id))
        for kind in ("server", "subnet", "network", "firewall"):
            for thing in there:
                if thing.kind == kind:
                    cloud.remove(thing)

    await asyncio.to_thread(remove_all)
    assert await customer.kinds() == ["placement_group"]
    gone = await report(customer, first.operation.owner_id)
    assert {"server", "network", "subnet", "firewall"} <= set(gone.delta)
    second.requested = await second.make()
    await customer.verify_whole()
    row = await second.row(second.operation)
    assert (row.place, row.instance_type) == (PLACE, SIZE)
    await customer.give_back()
