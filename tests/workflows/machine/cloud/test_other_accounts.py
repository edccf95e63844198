"""A credential of another account than the one in which machines were made."""

from uuid import uuid4

import pytest

from domain.operation import OperationType, Step
from tests.workflows.machine.cloud.customer import Customer
from tests.workflows.machine.cloud.scenarios import Deleting
from tests.workflows.machine.cloud.test_accounts import bring_token, until_parked


@pytest.mark.full
async def test_a_token_of_another_project_proves_nothing_about_a_deleted_machine(
    customer: Customer,
) -> None:
    scenario, project = Deleting(customer), customer.project
    made = await scenario.make()
    there = await customer.kinds()
    customer.project = uuid4().hex
    await customer.bring_token()
    customer.project = project
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
