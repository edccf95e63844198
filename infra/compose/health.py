"""Tells whether this container's worker polls, by asking Temporal who does."""

import asyncio
import time

from pydantic_settings import BaseSettings, SettingsConfigDict
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest

from domain.errors import BulkheadError, Reason
from domain.names import task_queue_of_host
from infra.openbao.policies import WORKER
from infra.settings import ControlPlaneSettings, OpenBaoSettings, TemporalSettings
from infra.temporal.client import TemporalConnection

# A poll waits a minute for work at most, and is seen when it begins.
_LAST_POLL_SECONDS = 75.0


class HealthSettings(BaseSettings):
    """What the worker's health check reads: a part of what the worker reads."""

    model_config = SettingsConfigDict(env_nested_delimiter="__", extra="ignore")

    temporal: TemporalSettings
    openbao: OpenBaoSettings
    control_planes: ControlPlaneSettings


def check_worker(settings: HealthSettings) -> None:
    """Return when a worker of this host polls its queue.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when none does, or Temporal does not answer.
    """
    last_poll = asyncio.run(_last_poll(settings))
    if time.time() - last_poll > _LAST_POLL_SECONDS:
        raise BulkheadError(
            Reason.DEPENDENCY_UNAVAILABLE, "No worker of this host polls; look at its log."
        )


async def _last_poll(settings: HealthSettings) -> float:
    client = await TemporalConnection(settings.temporal, settings.openbao, WORKER).client()
    answer = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=settings.temporal.namespace,
            task_queue=TaskQueue(name=task_queue_of_host(settings.control_planes.host)),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
        )
    )
    return max((poller.last_access_time.ToSeconds() for poller in answer.pollers), default=0)
