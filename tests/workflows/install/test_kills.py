"""A worker is killed while it deploys or removes an install; the next one ends it, once."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

import pytest

from domain.names import workflow_id_of
from domain.operation import OPERATIONS, OperationState, OperationType, Step
from tests.durability import Case, Moment
from tests.workflows.dying_worker import end_despite_a_kill, running_worker
from tests.workflows.install.scenarios import (
    CreatingInstall,
    DeletingInstall,
    InstallScenario,
    RestoringInstall,
    UpdatingInstall,
)
from tests.workflows.install.site import Site
from tests.workflows.install.syncing import SyncingSecrets

Kind = type[InstallScenario]
# What the restored render does not have is removed last, which no list of steps announces.
STEPS_OF: dict[Kind, Sequence[str]] = {
    RestoringInstall: (
        *OPERATIONS[OperationType.INSTALL_RESTORE].steps,
        Step.REMOVE_CLUSTER_OBJECTS,
    )
}
CASES: list[tuple[Kind, Case]] = [
    (kind, (step, moment))
    for kind in (
        CreatingInstall,
        UpdatingInstall,
        RestoringInstall,
        DeletingInstall,
        SyncingSecrets,
    )
    for step in STEPS_OF.get(kind, OPERATIONS[kind.operation_type].steps)
    if step is not Step.AWAIT_PREDECESSOR
    for moment in Moment
]


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "case"), CASES, ids=lambda value: getattr(value, "__name__", None) or " ".join(value)
)
async def test_an_operation_completes_although_its_worker_is_killed(
    kind: Kind, case: Case, site: Site
) -> None:
    scenario, queue = kind(site), f"dying-{uuid4().hex}"
    try:
        await scenario.plan()
        # Else the steps of the cluster's host would run in the worker of all other tests.
        plane = replace(scenario.operation.control_plane, host=queue)
        operation = replace(scenario.operation, control_plane=plane)
        state = await end_despite_a_kill(
            site.platform, scenario.operation_type, operation, queue, case
        )
        assert state is OperationState.SUCCEEDED, (kind, case)
        await scenario.verify_done()
    finally:
        await scenario.clean_up()


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_worker_that_is_killed_while_helm_runs_leaves_no_lock(site: Site) -> None:
    queue = f"dying-{uuid4().hex}"
    planned = await site.plan_create(await site.publish("with-hook"), {"ends": False})
    try:
        plane = replace(planned.control_plane, host=queue)
        operation = replace(planned, control_plane=plane)
        kind = OperationType.INSTALL_CREATE
        await site.platform.client.start_workflow(
            OPERATIONS[kind].workflow,
            operation,
            id=workflow_id_of(kind, operation.install_id, operation.operation_id),
            task_queue=queue,
        )
        with running_worker(site.platform.servers, queue, None) as dying:
            await site.at_step(operation, Step.APPLY_RELEASE, 60)
            await asyncio.sleep(1)
            dying.kill()
        with running_worker(site.platform.servers, queue, None):
            state = await site.platform.end_of(operation, 120)
        error = (await site.platform.operation(operation)).error
        assert state is OperationState.FAILED
        assert error is not None
        assert "hook" in error["message"]
        assert await site.remains(operation.install_id) == {}
    finally:
        await site.forget(planned.install_id)
