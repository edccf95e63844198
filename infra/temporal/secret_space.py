"""Has a worker make a workspace's place in OpenBao: the API has no right to do that itself."""

import asyncio
from datetime import timedelta
from typing import Final

from temporalio.client import Client, WorkflowFailureError
from temporalio.common import SearchAttributePair as Pair
from temporalio.common import (
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.service import RPCError

from domain.errors import BulkheadError, Reason
from domain.names import (
    CONTROL_TASK_QUEUE,
    PREPARE_SECRET_SPACE_WORKFLOW,
    secret_space_workflow_id_of,
)
from infra.temporal.client import unavailable
from infra.temporal.start import WORKSPACE_ID

# It takes a tenth of a second when a worker runs; a request does not wait for one that does not.
_PATIENCE_SECONDS: Final = 10

_RPC_TIMEOUT: Final = timedelta(seconds=3)


async def prepare_secret_space(client: Client, workspace_id: str) -> None:
    """Return when the workspace has its place; requests at the same time share the workflow.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when it does not exist in time.
    """
    try:
        handle = await client.start_workflow(
            PREPARE_SECRET_SPACE_WORKFLOW,
            workspace_id,
            id=secret_space_workflow_id_of(workspace_id),
            task_queue=CONTROL_TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            execution_timeout=timedelta(hours=1),
            rpc_timeout=_RPC_TIMEOUT,
            static_summary=f"prepare secret space of {workspace_id}",
            search_attributes=TypedSearchAttributes([Pair(WORKSPACE_ID, workspace_id)]),
        )
        await asyncio.wait_for(handle.result(), _PATIENCE_SECONDS)
    except RPCError as error:
        raise unavailable() from error
    except (TimeoutError, WorkflowFailureError):
        raise BulkheadError(
            Reason.DEPENDENCY_UNAVAILABLE,
            "The workspace's place in the secret store is still being made; no worker has done it "
            "yet. Try again in a few seconds, with the same Idempotency-Key.",
            metadata={"dependency": "openbao"},
        ) from None
