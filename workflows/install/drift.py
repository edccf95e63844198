"""DetectInstallDrift and CompareInstall: compare installs with what was rendered for them."""

import asyncio
from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

from activities.install_drift import DueInstallDriftActivities, InstallDriftActivities
from domain.install_drift import InstallDriftRequest
from domain.names import task_queue_of_host
from workflows.policies import HEARTBEAT_TIMEOUT, SERVICE_CALL, Policy

# Two calls an object: seconds for hundreds of them. What does not answer is due again next time,
# and a host whose worker is down keeps the others waiting for no longer than this.
_LOOK: Final = Policy(timedelta(minutes=2), timedelta(minutes=3), RetryPolicy(maximum_attempts=1))

# Hosts have a place for each operation of theirs, which must find one at once.
_AT_ONCE: Final = 8


@workflow.defn
class CompareInstall:
    """For a request that waits: compare one install now."""

    @workflow.run
    async def run(self, request: InstallDriftRequest) -> int:
        """Return how many of its objects differ."""
        return await _compare(request)


@workflow.defn
class DetectInstallDrift:
    """On a schedule: compare installs that were not compared for a while."""

    @workflow.run
    async def run(self) -> int:
        """Return how many installs have drifted; what fails is due again with the next pass."""
        due = await workflow.execute_activity_method(
            DueInstallDriftActivities.due_install_drift,
            start_to_close_timeout=SERVICE_CALL.attempt,
            schedule_to_close_timeout=SERVICE_CALL.total,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=SERVICE_CALL.retry,
        )
        places = asyncio.Semaphore(_AT_ONCE)

        async def look(request: InstallDriftRequest) -> bool:
            async with places:
                return await _has_drifted(request)

        return sum(await asyncio.gather(*(look(request) for request in due)))


async def _has_drifted(request: InstallDriftRequest) -> bool:
    try:
        return await _compare(request) > 0
    except ActivityError:
        return False


async def _compare(request: InstallDriftRequest) -> int:
    return await workflow.execute_activity_method(
        InstallDriftActivities.detect_install_drift,
        request,
        activity_id=request.install_id,
        task_queue=task_queue_of_host(request.host),
        start_to_close_timeout=_LOOK.attempt,
        schedule_to_close_timeout=_LOOK.total,
        heartbeat_timeout=HEARTBEAT_TIMEOUT,
        retry_policy=_LOOK.retry,
    )
