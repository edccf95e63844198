"""Whoever reaches Temporal can ask for any workflow; the rows decide what is done."""

import asyncio
import contextlib
from uuid import uuid4

import pytest
from temporalio.client import WorkflowFailureError

from domain.cluster import ClusterState
from domain.names import CONTROL_TASK_QUEUE
from domain.operation import OperationType
from domain.owned_operation import ClusterOperation, TypedOperation
from tests.workflows.cluster.scenarios import Creating
from tests.workflows.conftest import Injected


@pytest.mark.parametrize("workflow_id", ["forged-{}", "cluster/any/delete/{}"])
async def test_a_forged_workflow_touches_no_cluster(injected: Injected, workflow_id: str) -> None:
    scenario = Creating(injected.platform)
    await scenario.end_of(await scenario.request(), 120)
    assert scenario.requested is not None
    ended = ClusterOperation(
        operation_id=scenario.requested.operation_id,
        control_plane=scenario.cluster,
        caller=await scenario.caller(),
    )
    lost = TypedOperation(type=OperationType.CLUSTER_CREATE, operation=ended)
    client = injected.platform.client

    async def forge(workflow: str, argument: ClusterOperation | TypedOperation) -> None:
        handle = await client.start_workflow(
            workflow,
            argument,
            id=workflow_id.format(f"{uuid4().hex}/{ended.operation_id}"),
            task_queue=CONTROL_TASK_QUEUE,
        )
        with contextlib.suppress(WorkflowFailureError, TimeoutError):
            await asyncio.wait_for(handle.result(), 3)
        with contextlib.suppress(Exception):
            await handle.terminate("the test is over")

    try:
        await asyncio.gather(
            forge("AbandonOperation", lost),
            forge("DeleteCluster", ended),
            forge("SuspendCluster", ended),
        )
        await scenario.verify_done()
        row = await injected.platform.row(scenario.cluster)
        assert row is not None
        assert row.state is ClusterState.ACTIVE
    finally:
        await scenario.clean_up()
