"""Applies the schedules that the code declares."""

from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError

from domain.names import CONTROL_TASK_QUEUE
from infra.temporal.client import unavailable

# The server's default is a year: an outage would replay every missed pass at its end.
_CATCH_UP = timedelta(minutes=1)

_RPC_TIMEOUT = timedelta(seconds=5)


async def apply_schedule(
    client: Client, schedule_id: str, workflow: str, every: timedelta, jitter: timedelta
) -> None:
    """Create a schedule, or bring an existing one to what the code says; a pause stays a pause.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when Temporal does not answer.
    """
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(workflow, id=schedule_id, task_queue=CONTROL_TASK_QUEUE),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)], jitter=jitter),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=_CATCH_UP),
    )

    def bring_up_to_date(found: ScheduleUpdateInput) -> ScheduleUpdate:
        schedule.state = found.description.schedule.state
        return ScheduleUpdate(schedule=schedule)

    try:
        try:
            await client.create_schedule(schedule_id, schedule, rpc_timeout=_RPC_TIMEOUT)
        except ScheduleAlreadyRunningError:
            handle = client.get_schedule_handle(schedule_id)
            await handle.update(bring_up_to_date, rpc_timeout=_RPC_TIMEOUT)
    except RPCError as error:
        raise unavailable() from error
