"""Pools come and go together, and say which machine was at fault."""

from domain.errors import BulkheadError, Reason
from domain.operation import OperationState
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
