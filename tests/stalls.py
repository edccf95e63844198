"""What an operation that does not end waits for, for the message of the test that waited."""

import faulthandler
from pathlib import Path
from typing import Final

from temporalio.api.enums.v1 import PendingActivityState, PendingWorkflowTaskState, TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowExecutionDescription
from temporalio.service import RPCError

from domain.names import CONTROL_TASK_QUEUE

_STDERR: Final = 2
_LINES: Final = 5
_OF_A_LINE: Final = 400
_KINDS: Final = {
    "workflow": TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    "activity": TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
}


async def why_it_stands(client: Client, workflow_id: str, log: Path) -> str:
    """Say what the server waits for, and print the stacks of this process, whose worker it is.

    Args:
        client: asks the server.
        workflow_id: what does not end.
        log: the server's, of which the end is told.
    """
    faulthandler.dump_traceback(_STDERR)
    said = _last_lines(log)
    try:
        described = await client.get_workflow_handle(workflow_id).describe()
        pollers = [await _pollers(client, name) for name in _KINDS]
    except RPCError as error:
        return "\n".join([f"{workflow_id}: {error}", *said])
    told = [f"{workflow_id} is {described.status}", *_pending(described), *pollers]
    return "\n".join([*told, *said])


def _last_lines(log: Path) -> list[str]:
    lines = log.read_text(errors="replace").splitlines()
    return [line[:_OF_A_LINE] for line in lines[-_LINES:]]


def _pending(described: WorkflowExecutionDescription) -> list[str]:
    raw = described.raw_description
    told = [
        f"{activity.activity_type.name} is {PendingActivityState.Name(activity.state)},"
        f" attempt {activity.attempt}, last begun {activity.last_started_time.ToJsonString()}"
        for activity in raw.pending_activities
    ]
    if raw.HasField("pending_workflow_task"):
        task = raw.pending_workflow_task
        state = PendingWorkflowTaskState.Name(task.state)
        since = task.original_scheduled_time.ToJsonString()
        told.append(f"workflow task is {state}, attempt {task.attempt}, since {since}")
    return told


async def _pollers(client: Client, kind: str) -> str:
    answer = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=CONTROL_TASK_QUEUE),
            task_queue_type=_KINDS[kind],
        )
    )
    asked = [poller.last_access_time.ToJsonString() for poller in answer.pollers]
    return f"{kind} tasks of {CONTROL_TASK_QUEUE} were last asked for at {asked}"
