"""Operations of machines whose workflow was ended from outside."""

import random

import pytest

from domain.names import CONTROL_TASK_QUEUE, abandon_workflow_id_of
from domain.operation import OperationState
from domain.owned_operation import TypedOperation
from tests.workflows.machine.fleet import Fleet
from tests.workflows.machine.scenarios import (
    Bootstrapping,
    Cordoning,
    DeletingMachine,
    MachineScenario,
    Repairing,
    RevokingBootstrap,
    Uncordoning,
)
from workflows.operation.abandon import AbandonOperation

Kind = type[MachineScenario | RevokingBootstrap]
ALL: list[Kind] = [
    Bootstrapping,
    DeletingMachine,
    Cordoning,
    Uncordoning,
    Repairing,
    RevokingBootstrap,
]


async def test_a_lost_operation_is_taken_back_or_finished(fleet: Fleet) -> None:
    await _is_taken_back_or_finished(random.choice(ALL), fleet)


@pytest.mark.full
@pytest.mark.parametrize("kind", ALL)
async def test_every_lost_operation_is_taken_back_or_finished(kind: Kind, fleet: Fleet) -> None:
    await _is_taken_back_or_finished(kind, fleet)


async def _is_taken_back_or_finished(kind: Kind, fleet: Fleet) -> None:
    scenario = kind(fleet)
    try:
        operation_id = await scenario.plan()
        typed = TypedOperation(type=scenario.operation_type, operation=scenario.operation)
        client = fleet.platform.client
        await client.execute_workflow(
            AbandonOperation.run,
            typed,
            id=abandon_workflow_id_of(typed.type, scenario.owner_id, operation_id),
            task_queue=CONTROL_TASK_QUEUE,
        )
        state = await scenario.end_of(operation_id, 1)
        if scenario.forward_only:
            assert state is OperationState.SUCCEEDED
            await scenario.verify_done()
        else:
            assert state is OperationState.FAILED
            await scenario.verify_undone()
    finally:
        await scenario.clean_up()
