"""The only code that starts or cancels the workflow of an operation.

The operations table is the outbox: a request calls this after its commit, and the reconciler
calls the same for whatever a crash left behind. Both are safe to repeat.
"""

from datetime import timedelta
from enum import StrEnum

from temporalio.client import Client, WorkflowHandle
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from domain.names import CONTROL_TASK_QUEUE, workflow_id_of
from domain.operation import OPERATIONS, ClusterOperation, OperationType
from infra.temporal.client import unavailable

WORKSPACE_ID = SearchAttributeKey.for_keyword("BulkheadWorkspaceId")
CLUSTER_ID = SearchAttributeKey.for_keyword("BulkheadClusterId")
OPERATION_ID = SearchAttributeKey.for_keyword("BulkheadOperationId")
SEARCH_ATTRIBUTES = (WORKSPACE_ID, CLUSTER_ID, OPERATION_ID)

_RPC_TIMEOUT = timedelta(seconds=3)


class StartOutcome(StrEnum):
    """What a start found."""

    RUNNING = "running"
    CLOSED_BEFORE = "closed before"


async def start_operation(
    client: Client, operation_type: OperationType, operation: ClusterOperation
) -> StartOutcome:
    """Start the workflow of an operation, or find it running.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when Temporal does not answer; the start may or may
            not have happened, and repeating it is harmless.
    """
    control_plane = operation.control_plane
    facts = OPERATIONS[operation_type]
    try:
        await client.start_workflow(
            facts.workflow,
            operation,
            id=workflow_id_of(operation_type, control_plane.cluster_id, operation.operation_id),
            task_queue=CONTROL_TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            rpc_timeout=_RPC_TIMEOUT,
            static_summary=f"{facts.verb} cluster {control_plane.cluster_id}",
            search_attributes=TypedSearchAttributes(
                [
                    SearchAttributePair(WORKSPACE_ID, control_plane.workspace_id),
                    SearchAttributePair(CLUSTER_ID, control_plane.cluster_id),
                    SearchAttributePair(OPERATION_ID, operation.operation_id),
                ]
            ),
        )
    except WorkflowAlreadyStartedError:
        return StartOutcome.CLOSED_BEFORE
    except RPCError as error:
        raise unavailable() from error
    return StartOutcome.RUNNING


async def cancel_operation(
    client: Client, operation_type: OperationType, owner_id: str, operation_id: str
) -> None:
    """Ask the workflow of an operation to stop; nothing happens when it is not there.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when Temporal does not answer.
    """
    handle: WorkflowHandle[object, object] = client.get_workflow_handle(
        workflow_id_of(operation_type, owner_id, operation_id)
    )
    try:
        await handle.cancel(rpc_timeout=_RPC_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise unavailable() from error
