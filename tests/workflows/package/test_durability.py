"""The three proofs for the workflow of a package, and what a lost one leaves."""

from collections.abc import Iterator

import pytest

from domain.names import CONTROL_TASK_QUEUE, abandon_workflow_id_of
from domain.operation import OperationState
from domain.owned_operation import TypedOperation
from tests import charts
from tests.charts import Repository
from tests.durability import (
    cases_of,
    survives_repeats,
    unwinds_every_cancellation,
    unwinds_every_failure,
)
from tests.workflows.conftest import Injected
from tests.workflows.package.scenarios import Publishing
from workflows.operation.abandon import AbandonOperation


@pytest.fixture(scope="module")
def repository() -> Iterator[Repository]:
    with charts.running_repository() as found:
        found.add(charts.archive("web"))
        yield found


@pytest.fixture
def scenario(injected: Injected, repository: Repository) -> Publishing:
    return Publishing(injected.platform, repository)


async def test_running_every_activity_twice_changes_nothing(
    injected: Injected, scenario: Publishing
) -> None:
    await survives_repeats(scenario, injected.injector)


async def test_a_failure_at_every_step_is_undone(injected: Injected, scenario: Publishing) -> None:
    await unwinds_every_failure(scenario, injected.injector, cases_of(scenario))


async def test_a_cancel_at_every_step_is_undone(injected: Injected, scenario: Publishing) -> None:
    await unwinds_every_cancellation(scenario, injected.injector, cases_of(scenario))


async def test_a_lost_operation_leaves_nothing(scenario: Publishing) -> None:
    planned = await scenario.plan()
    typed = TypedOperation(type=scenario.operation_type, operation=planned)
    await scenario.platform.client.execute_workflow(
        AbandonOperation.run,
        typed,
        id=abandon_workflow_id_of(typed.type, planned.owner_id, planned.operation_id),
        task_queue=CONTROL_TASK_QUEUE,
    )
    assert await scenario.end_of(planned.operation_id, 1) is OperationState.FAILED
    await scenario.verify_undone()
