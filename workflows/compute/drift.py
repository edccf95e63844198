"""DetectDrift and DetectMachineDrift: reports of what differs; nothing is changed by them."""

import asyncio
from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy
from temporalio.exceptions import ActivityError

from activities.account_upkeep import AccountUpkeepActivities
from activities.drift import DriftActivities
from domain.compute import DriftRequest
from domain.names import STACKS_TASK_QUEUE
from workflows.policies import HEARTBEAT_TIMEOUT, SERVICE_CALL, Policy

# Seconds once it has a place on the queue of stacks, which it shares with machines that are made.
_REPORT: Final = Policy(
    timedelta(minutes=5),
    timedelta(minutes=10),
    RetryPolicy(
        initial_interval=timedelta(seconds=1),
        backoff_coefficient=2,
        maximum_interval=timedelta(seconds=20),
    ),
)


# A pass has few of the places on the queue of stacks: people wait for those who make machines.
_AT_ONCE: Final = 2
_IN_TURNS: Final = "reports-in-turns"


@workflow.defn
class DetectMachineDrift:
    """For a request that waits: write one report."""

    @workflow.run
    async def run(self, request: DriftRequest) -> None:
        """Compare the machine's server with its stack."""
        await _write_report(request, request.report_id)


@workflow.defn
class DetectDrift:
    """On a schedule: write reports of the machines that were not compared for longest."""

    @workflow.run
    async def run(self) -> int:
        """Return how many reports were written; what fails is due again with the next pass."""
        due = await workflow.execute_activity_method(
            AccountUpkeepActivities.due_drift_reports,
            start_to_close_timeout=SERVICE_CALL.attempt,
            schedule_to_close_timeout=SERVICE_CALL.total,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=SERVICE_CALL.retry,
        )
        turns = asyncio.Semaphore(_AT_ONCE if workflow.patched(_IN_TURNS) else max(len(due), 1))
        written = await asyncio.gather(*(_try_report(request, turns) for request in due))
        return sum(written)


async def _try_report(request: DriftRequest, turns: asyncio.Semaphore) -> bool:
    async with turns:
        try:
            await _write_report(request, request.report_id)
        except ActivityError:
            return False
        return True


async def _write_report(request: DriftRequest, activity_id: str) -> None:
    await workflow.execute_activity_method(
        DriftActivities.detect_drift,
        request,
        activity_id=activity_id,
        task_queue=STACKS_TASK_QUEUE,
        start_to_close_timeout=_REPORT.attempt,
        schedule_to_close_timeout=_REPORT.total,
        heartbeat_timeout=HEARTBEAT_TIMEOUT,
        retry_policy=_REPORT.retry,
        priority=Priority(fairness_key=request.workspace_id),
    )
