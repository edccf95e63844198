"""A worker is killed in the middle of a machine's operation; the next one finishes it, once."""

import random
from dataclasses import replace
from uuid import uuid4

import pytest

from domain.operation import OPERATIONS, OperationState, Step
from domain.owned_operation import MachineOperation
from tests.durability import Case, Moment
from tests.workflows.dying_worker import end_despite_a_kill
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

Kind = type[MachineScenario | RevokingBootstrap]
CASES: list[tuple[Kind, Case]] = [
    (kind, (step, moment))
    for kind in (
        Bootstrapping,
        DeletingMachine,
        Cordoning,
        Uncordoning,
        Repairing,
        RevokingBootstrap,
    )
    for step in OPERATIONS[kind.operation_type].steps
    if step is not Step.AWAIT_PREDECESSOR
    for moment in Moment
]


async def _completes_although_the_worker_is_killed(kind: Kind, case: Case, fleet: Fleet) -> None:
    scenario, queue = kind(fleet), f"dying-{uuid4().hex}"
    try:
        await scenario.plan()
        operation = scenario.operation
        if isinstance(operation, MachineOperation):
            # Else the steps of the cluster's host would run in the worker of all other tests.
            plane = replace(operation.control_plane, host=queue)
            machine = replace(operation.machine, control_plane=plane)
            operation = replace(operation, machine=machine)
        state = await end_despite_a_kill(
            fleet.platform, scenario.operation_type, operation, queue, case
        )
        assert state is OperationState.SUCCEEDED, (kind, case)
        await scenario.verify_done()
    finally:
        await scenario.clean_up()


async def test_an_operation_completes_although_its_worker_is_killed(fleet: Fleet) -> None:
    await _completes_although_the_worker_is_killed(*random.choice(CASES), fleet)


@pytest.mark.full
@pytest.mark.parametrize(
    ("kind", "case"), CASES, ids=lambda value: getattr(value, "__name__", None) or " ".join(value)
)
async def test_every_operation_completes_although_its_worker_is_killed_at_every_step(
    kind: Kind, case: Case, fleet: Fleet
) -> None:
    await _completes_although_the_worker_is_killed(kind, case, fleet)
