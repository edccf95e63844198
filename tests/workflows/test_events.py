"""Recording, typing and heartbeats cost a history nothing."""

import asyncio
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle
from temporalio.worker import Worker

from activities.interceptor import ActivityInterceptor
from domain.machine import MachineKind
from domain.names import task_queue_of_host, workflow_id_of
from domain.operation import OPERATIONS, OperationType, Step
from infra.database.records.steps import StepRecords
from tests.no_ops import NO_OPS
from tests.platform import Platform
from tests.servers import Servers
from tests.workflows.conftest import Injected
from workflows.cluster.create import CreateCluster
from workflows.registry import WORKFLOWS, sandbox

_NOT_DONE = {
    EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED,
    EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT,
}


async def _run(platform: Platform, queue: str, interceptors: list[Any]) -> list[int]:
    planned = await platform.plan_cluster(await platform.new_workspace(), host=queue)
    shared: dict[str, Any] = {"activities": NO_OPS, "interceptors": interceptors}
    async with (
        Worker(
            platform.client,
            task_queue=queue,
            workflows=[CreateCluster],
            workflow_runner=sandbox(),
            **shared,
        ),
        Worker(platform.client, task_queue=task_queue_of_host(queue), **shared),
    ):
        handle: WorkflowHandle[Any, Any] = await platform.client.start_workflow(
            CreateCluster.run,
            planned,
            id=workflow_id_of(
                OperationType.CLUSTER_CREATE,
                planned.control_plane.cluster_id,
                planned.operation_id,
            ),
            task_queue=queue,
        )
        await asyncio.wait_for(handle.result(), 60)
    return _without_repeats([event.event_type async for event in handle.fetch_history_events()])


def _without_repeats(events: list[int]) -> list[int]:
    """Leave out tasks of the workflow that a busy machine did not do in time, which came again."""
    kept: list[int] = []
    for event in events:
        if event in _NOT_DONE:
            while kept.pop() != EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED:
                continue
        else:
            kept.append(event)
    return kept


async def test_our_interceptor_adds_no_event(servers: Servers, injected: Injected) -> None:
    steps = StepRecords(servers.database)
    bare = await _run(injected.platform, "bare", [])
    ours = await _run(injected.platform, "ours", [ActivityInterceptor(steps)])
    await steps.close()
    assert ours == bare


def test_every_operation_has_its_workflow_and_every_step_its_name() -> None:
    registered = {workflow.__name__ for workflow in WORKFLOWS}
    kinds = (None, MachineKind.CLOUD)
    of_operations = {facts.workflow_for(kind) for facts in OPERATIONS.values() for kind in kinds}
    assert of_operations <= registered
    planned = {
        step for facts in OPERATIONS.values() for kind in kinds for step in facts.steps_for(kind)
    }
    assert planned == set(Step)
