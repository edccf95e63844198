"""Starts and wakes the workflow that drives a rollout: what it shall do is in rows."""

from datetime import timedelta
from typing import Final

from temporalio.client import Client
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.service import RPCError

from domain.names import CONTROL_TASK_QUEUE, rollout_workflow_id_of
from domain.rollout import ROLLOUT_CHANGED
from domain.rollout_work import RUN_ROLLOUT_WORKFLOW, RolloutPlace, RolloutRun
from infra.temporal.client import unavailable
from infra.temporal.start import ROLLOUT_ID, WORKSPACE_ID

_RPC_TIMEOUT: Final = timedelta(seconds=3)


async def wake_rollout(client: Client, workspace_id: str, rollout_id: str) -> None:
    """Have a rollout's workflow look at its rows now; one that does not run is started.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when Temporal does not answer; the schedule wakes it
            within a minute then.
    """
    place = RolloutPlace(workspace_id=workspace_id, rollout_id=rollout_id)
    await _start(client, place, signal=ROLLOUT_CHANGED)


async def start_rollout(client: Client, place: RolloutPlace) -> None:
    """Start a rollout's workflow; one that runs is left alone.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when Temporal does not answer.
    """
    await _start(client, place, signal=None)


async def _start(client: Client, place: RolloutPlace, *, signal: str | None) -> None:
    try:
        await client.start_workflow(
            RUN_ROLLOUT_WORKFLOW,
            RolloutRun(place=place),
            id=rollout_workflow_id_of(place.rollout_id),
            task_queue=CONTROL_TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            start_signal=signal,
            rpc_timeout=_RPC_TIMEOUT,
            static_summary=f"roll out {place.rollout_id}",
            search_attributes=TypedSearchAttributes(
                [
                    SearchAttributePair(WORKSPACE_ID, place.workspace_id),
                    SearchAttributePair(ROLLOUT_ID, place.rollout_id),
                ]
            ),
        )
    except RPCError as error:
        raise unavailable() from error
