"""Starts the purge of a secret: a request after its commit; the schedule finds the rest."""

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

from domain.names import CONTROL_TASK_QUEUE, PURGE_SECRET_WORKFLOW, purge_workflow_id_of
from domain.secret import SecretPlace
from infra.temporal.client import unavailable
from infra.temporal.start import SECRET_ID, WORKSPACE_ID

_RPC_TIMEOUT: Final = timedelta(seconds=3)


async def start_purge(client: Client, workspace_id: str, secret_id: str) -> None:
    """Start the purge of a secret whose row is `purging`, or find it running.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when Temporal does not answer; the hourly schedule
            starts it then.
    """
    try:
        await client.start_workflow(
            PURGE_SECRET_WORKFLOW,
            SecretPlace(workspace_id=workspace_id, secret_id=secret_id),
            id=purge_workflow_id_of(secret_id),
            task_queue=CONTROL_TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            rpc_timeout=_RPC_TIMEOUT,
            static_summary=f"purge secret {secret_id}",
            search_attributes=TypedSearchAttributes(
                [
                    SearchAttributePair(WORKSPACE_ID, workspace_id),
                    SearchAttributePair(SECRET_ID, secret_id),
                ]
            ),
        )
    except RPCError as error:
        raise unavailable() from error
