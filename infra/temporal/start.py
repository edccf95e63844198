"""The only code that starts or cancels the workflow of an operation.

The operations table is the outbox: a request calls this after its commit, and the reconciler
calls the same for whatever a crash left behind. Both are safe to repeat.
"""

from collections.abc import Coroutine
from datetime import timedelta
from enum import StrEnum

from temporalio.client import Client, WorkflowHandle
from temporalio.common import (
    Priority,
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from domain.names import CONTROL_TASK_QUEUE, abandon_workflow_id_of, workflow_id_of
from domain.operation import (
    APPROVAL_GIVEN,
    CREDENTIAL_CHANGED,
    OPERATIONS,
    ROTATION_ACKNOWLEDGED,
    OperationType,
    OwnerType,
)
from domain.owned_operation import OwnedOperation, machine_kind_of
from infra.temporal.client import unavailable

WORKSPACE_ID = SearchAttributeKey.for_keyword("BulkheadWorkspaceId")
CLUSTER_ID = SearchAttributeKey.for_keyword("BulkheadClusterId")
OPERATION_ID = SearchAttributeKey.for_keyword("BulkheadOperationId")
SECRET_ID = SearchAttributeKey.for_keyword("BulkheadSecretId")
MACHINE_ID = SearchAttributeKey.for_keyword("BulkheadMachineId")
INSTALL_ID = SearchAttributeKey.for_keyword("BulkheadInstallId")
PACKAGE_ID = SearchAttributeKey.for_keyword("BulkheadPackageId")
ROLLOUT_ID = SearchAttributeKey.for_keyword("BulkheadRolloutId")
SEARCH_ATTRIBUTES = (
    WORKSPACE_ID,
    CLUSTER_ID,
    MACHINE_ID,
    SECRET_ID,
    OPERATION_ID,
    INSTALL_ID,
    PACKAGE_ID,
    ROLLOUT_ID,
)
_OWNER_IDS = {
    OwnerType.CLUSTER: CLUSTER_ID,
    OwnerType.INSTALL: INSTALL_ID,
    OwnerType.MACHINE: MACHINE_ID,
    OwnerType.PACKAGE: PACKAGE_ID,
    OwnerType.SECRET: SECRET_ID,
}

_RPC_TIMEOUT = timedelta(seconds=3)


class StartOutcome(StrEnum):
    """What a start found."""

    RUNNING = "running"
    CLOSED_BEFORE = "closed before"


async def start_operation(
    client: Client, operation_type: OperationType, operation: OwnedOperation
) -> StartOutcome:
    """Start the workflow of an operation, or find it running.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when Temporal does not answer; the start may or may
            not have happened, and repeating it is harmless.
    """
    facts = OPERATIONS[operation_type]
    try:
        await client.start_workflow(
            facts.workflow_for(machine_kind_of(operation)),
            operation,
            id=workflow_id_of(operation_type, operation.owner_id, operation.operation_id),
            task_queue=CONTROL_TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            rpc_timeout=_RPC_TIMEOUT,
            # Its activities inherit it: one workspace's many operations do not take every place of
            # a queue before the first of another's. A server that knows no fairness ignores it.
            priority=Priority(fairness_key=operation.workspace_id),
            static_summary=f"{facts.verb} {facts.owner_type} {operation.owner_id}",
            search_attributes=TypedSearchAttributes(
                [
                    SearchAttributePair(WORKSPACE_ID, operation.workspace_id),
                    SearchAttributePair(_OWNER_IDS[facts.owner_type], operation.owner_id),
                    SearchAttributePair(OPERATION_ID, operation.operation_id),
                ]
            ),
        )
    except WorkflowAlreadyStartedError:
        return StartOutcome.CLOSED_BEFORE
    except RPCError as error:
        raise unavailable() from error
    return StartOutcome.RUNNING


async def wake_rotation(client: Client, secret_id: str, operation_id: str) -> None:
    """Tell a rotation that a consumer has acknowledged; nothing happens when it has ended.

    Without this it notices with its next look at the rows.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when Temporal does not answer.
    """
    handle = _handle(client, OperationType.SECRET_ROTATE, secret_id, operation_id)
    await _if_there(handle.signal(ROTATION_ACKNOWLEDGED, rpc_timeout=_RPC_TIMEOUT))


async def tell_credential_changed(
    client: Client, operation_type: OperationType, owner_id: str, operation_id: str
) -> None:
    """Tell an operation that waits for another credential that there may be one.

    Nothing happens when it has ended. Without this it notices with its next look at the rows.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when Temporal does not answer.
    """
    for name in (workflow_id_of, abandon_workflow_id_of):
        handle = client.get_workflow_handle(name(operation_type, owner_id, operation_id))
        await _if_there(handle.signal(CREDENTIAL_CHANGED, rpc_timeout=_RPC_TIMEOUT))


async def tell_approval_given(
    client: Client, operation_type: OperationType, owner_id: str, operation_id: str
) -> None:
    """Tell an operation that waits for an approval that there may be one.

    Nothing happens when it has ended. Without this it notices with its next look at the rows.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when Temporal does not answer.
    """
    handle = _handle(client, operation_type, owner_id, operation_id)
    await _if_there(handle.signal(APPROVAL_GIVEN, rpc_timeout=_RPC_TIMEOUT))


async def cancel_operation(
    client: Client, operation_type: OperationType, owner_id: str, operation_id: str
) -> None:
    """Ask the workflow of an operation to stop; nothing happens when it is not there.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when Temporal does not answer.
    """
    handle = _handle(client, operation_type, owner_id, operation_id)
    await _if_there(handle.cancel(rpc_timeout=_RPC_TIMEOUT))


def _handle(
    client: Client, operation_type: OperationType, owner_id: str, operation_id: str
) -> WorkflowHandle[object, object]:
    return client.get_workflow_handle(workflow_id_of(operation_type, owner_id, operation_id))


async def _if_there(call: Coroutine[object, object, None]) -> None:
    try:
        await call
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise unavailable() from error
