"""Pools come and go together, and say which machine was at fault."""

from uuid import uuid4

import pytest

from domain.cluster import ClusterState
from domain.errors import BulkheadError, Reason
from domain.machine import MachineState
from domain.operation import OperationState, OperationType
from infra.database.engine import Database, DatabaseRole
from infra.database.records.part import PartRecords
from tests.durability import ENDS_WITHIN_SECONDS, Fault, Moment
from tests.workflows.conftest import Injected
from tests.workflows.machine.cloud.customer import Customer
from tests.workflows.machine.cloud.groups import CreatingPool


async def test_a_machine_that_cannot_be_made_takes_its_pool_with_it_and_is_named(
    injected: Injected, customer: Customer
) -> None:
    async def fail() -> None:
        raise BulkheadError(Reason.QUOTA_EXCEEDED, "The account may have no more servers.")

    scenario = CreatingPool(customer)
    injected.injector.fault = Fault("CreateMachine", "create_server", Moment.BEFORE, fail)
    try:
        operation = await scenario.request()
        assert await scenario.end_of(operation, ENDS_WITHIN_SECONDS) is OperationState.FAILED
    finally:
        injected.injector.fault = None
    await scenario.verify_undone()
    ended = await scenario.fleet.operation(operation)
    assert ended.error is not None
    (failed,) = [row for row in await scenario.parts() if row.state is OperationState.FAILED]
    assert ended.error["reason"] == Reason.QUOTA_EXCEEDED
    assert failed.owner_id in ended.error["message"]
    assert "may have no more servers" in ended.error["message"]


async def test_replacements_in_a_full_cluster_come_one_after_the_other(
    customer: Customer,
) -> None:
    fleet = customer.fleet
    async with fleet.platform.api.workspace(fleet.owner.workspace_id) as session:
        cluster = await fleet.platform.new_cluster(session, fleet.owner, host=uuid4().hex)
        cluster.state = ClusterState.ACTIVE
        session.add(cluster)
    cluster_id = cluster.id
    made = [await customer.plan(cluster_id=cluster_id) for _ in range(2)]
    for machine in made:
        await fleet.execute(
            "UPDATE operations SET state = 'SUCCEEDED' WHERE id = %s", machine.operation_id
        )
        await fleet.change(machine, state=MachineState.ACTIVE, active_operation_id=None)
    await fleet.execute(
        "INSERT INTO cluster_compute_settings (workspace_id, cluster_id, auto_scaling_enabled,"
        " max_machines, version) VALUES (%s, %s, false, %s, 1)",
        fleet.owner.workspace_id,
        cluster_id,
        len(made),
    )
    worker = Database(fleet.platform.servers.database, DatabaseRole.WORKER)
    try:
        first, second = [
            await fleet.request(OperationType.MACHINE_REPLACE, machine.owner_id) for machine in made
        ]
        parts = PartRecords(worker)
        await parts.plan_replacement(first)
        with pytest.raises(BulkheadError) as refused:
            await parts.plan_replacement(second)
        assert (refused.value.reason, refused.value.retryable) == (Reason.QUOTA_EXCEEDED, True)
        # Begun once, it is not counted again.
        await parts.plan_replacement(first)
    finally:
        await worker.close()
        config = customer.config_id
        await fleet.execute(
            "DELETE FROM cluster_compute_settings WHERE cluster_id = %s", cluster_id
        )
        await fleet.execute(
            "UPDATE operations SET state = 'CANCELLED' WHERE state = 'RUNNING' AND owner_id IN"
            " (SELECT id FROM machines WHERE compute_config_id = %s)",
            config,
        )
        await fleet.execute("DELETE FROM machines WHERE compute_config_id = %s", config)
        await fleet.execute("DELETE FROM clusters WHERE id = %s", cluster_id)
