"""Operations of installs whose workflow was ended from outside."""

import pytest

from domain.names import CONTROL_TASK_QUEUE, abandon_workflow_id_of
from domain.operation import OperationState
from domain.owned_operation import TypedOperation
from tests.workflows.install.scenarios import (
    CreatingInstall,
    DeletingInstall,
    InstallScenario,
    RestoringInstall,
    UpdatingInstall,
)
from tests.workflows.install.site import Site
from workflows.operation.abandon import AbandonOperation

Kind = type[InstallScenario]
ALL: list[Kind] = [CreatingInstall, UpdatingInstall, RestoringInstall, DeletingInstall]


@pytest.mark.full
@pytest.mark.parametrize("kind", ALL)
async def test_every_lost_operation_is_taken_back_or_finished(kind: Kind, site: Site) -> None:
    await _is_taken_back_or_finished(kind, site)


async def _is_taken_back_or_finished(kind: Kind, site: Site) -> None:
    scenario = kind(site)
    try:
        operation_id = await scenario.plan()
        typed = TypedOperation(type=scenario.operation_type, operation=scenario.operation)
        await site.platform.client.execute_workflow(
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
