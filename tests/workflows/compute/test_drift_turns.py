"""What the clock compares leaves room for what people wait for."""

import asyncio
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

import workflows.compute.drift
from domain.compute import DriftRequest
from domain.errors import Reason
from domain.identifiers import Prefix, new_id
from tests.workflows.conftest import Injected
from workflows.compute.drift import DetectDrift

DUE = 6
PLACES = 4


async def test_a_pass_leaves_places_to_those_who_make_machines(
    injected: Injected, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, queue = injected.platform.client, uuid4().hex
    monkeypatch.setattr(workflows.compute.drift, "STACKS_TASK_QUEUE", queue)
    at_work, most = set[str](), 0
    requests = [
        DriftRequest(
            workspace_id=new_id(Prefix.WORKSPACE),
            machine_id=new_id(Prefix.MACHINE),
            report_id=new_id(Prefix.DRIFT_REPORT),
        )
        for _ in range(DUE)
    ]

    @activity.defn(name="due_drift_reports")
    async def due() -> list[DriftRequest]:
        return requests

    @activity.defn(name="detect_drift")
    async def detect(request: DriftRequest) -> None:
        nonlocal most
        at_work.add(request.report_id)
        most = max(most, len(at_work))
        await asyncio.sleep(0.3)
        at_work.remove(request.report_id)
        if request == requests[0]:
            message = "The credential is refused."
            raise ApplicationError(message, type=Reason.CREDENTIAL_REJECTED, non_retryable=True)

    async with Worker(
        client,
        task_queue=queue,
        workflows=[DetectDrift],
        activities=[due, detect],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        written = await client.execute_workflow(DetectDrift.run, id=queue, task_queue=queue)
    assert written == DUE - 1
    assert 0 < most < PLACES
