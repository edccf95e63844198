"""A worker is killed while it makes or removes a machine; the next one ends it, once."""

from dataclasses import replace
from uuid import uuid4

import pytest

from domain.machine import MachineKind
from domain.names import workflow_id_of
from domain.operation import OPERATIONS, OperationState, Step
from tests.durability import Case, Moment
from tests.workflows.dying_worker import end_despite_a_kill, running_worker
from tests.workflows.hetzner import Hetzner
from tests.workflows.machine.cloud.customer import Customer
from tests.workflows.machine.cloud.scenarios import CloudScenario, Creating, Deleting, until

Kind = type[CloudScenario]

# Between the provider's effect and its record, and before: where something could be made twice, or
# be forgotten.
RISKY = (
    Step.ENSURE_NETWORK,
    Step.CREATE_SERVER,
    Step.REMOVE_SERVER,
    Step.RELEASE_NETWORK,
    Step.TAKE_INVENTORY,
)
CASES: list[tuple[Kind, Case]] = [
    (kind, (step, moment))
    for kind in (Creating, Deleting)
    for step in OPERATIONS[kind.operation_type].steps_for(MachineKind.CLOUD)
    if step in RISKY
    for moment in Moment
]


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "case"), CASES, ids=lambda value: getattr(value, "__name__", None) or " ".join(value)
)
async def test_an_operation_completes_although_its_worker_is_killed(
    kind: Kind, case: Case, customer: Customer, hetzner: Hetzner
) -> None:
    scenario, queue = kind(customer), f"dying-{uuid4().hex}"
    try:
        await scenario.plan()
        operation = scenario.operation
        # Else the steps of the cluster's host would run in the worker of all other tests.
        plane = replace(operation.control_plane, host=queue)
        operation = replace(operation, machine=replace(operation.machine, control_plane=plane))
        state = await end_despite_a_kill(
            customer.fleet.platform, scenario.operation_type, operation, queue, case, hetzner
        )
        assert state is OperationState.SUCCEEDED, (kind, case)
        await scenario.verify_done()
    finally:
        await scenario.clean_up()


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_worker_that_is_killed_while_the_engine_makes_the_server_makes_no_second_one(
    customer: Customer, hetzner: Hetzner
) -> None:
    scenario, queue = Creating(customer), f"dying-{uuid4().hex}"
    try:
        await scenario.plan()
        operation = scenario.operation
        plane = replace(operation.control_plane, host=queue)
        operation = replace(operation, machine=replace(operation.machine, control_plane=plane))
        await customer.fleet.platform.client.start_workflow(
            scenario.workflow,
            operation,
            id=workflow_id_of(scenario.operation_type, operation.owner_id, operation.operation_id),
            task_queue=queue,
        )
        servers = customer.fleet.platform.servers
        with running_worker(servers, queue, hetzner) as dying:

            async def has_server() -> bool:
                return "server" in await customer.kinds()

            await until(has_server)
            dying.kill()
            assert ("machine", "changing") in await customer.stacks()
        with running_worker(servers, queue, hetzner):
            await scenario.succeed(operation)
        await scenario.verify_done()
    finally:
        await scenario.clean_up()
