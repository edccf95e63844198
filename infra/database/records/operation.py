"""An operation's rows: planned by a request, found by the outbox, ended by a workflow."""

import dataclasses
from typing import Any

from sqlalchemy import func, text, update
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import Caller, PrincipalKind, Role
from domain.cluster import HostedControlPlane
from domain.identifiers import Prefix, new_id
from domain.operation import (
    OPERATIONS,
    ClusterOperation,
    OperationState,
    OperationType,
    Step,
    StepStatus,
)
from infra.database.records.new_rows import Adds
from infra.database.tables import ClusterRow, OperationRow, OperationStepRow


def plan_operation(
    session: Adds,
    operation_type: OperationType,
    cluster: ClusterRow,
    caller: Caller,
    *,
    request: dict[str, Any],
    predecessor_operation_id: str | None = None,
) -> OperationRow:
    """Add an operation with its planned steps and give it the cluster's lock.

    The caller of this function holds the cluster's row lock and has checked that the lock is
    free, or that this type may take it over from `predecessor_operation_id`.
    """
    facts = OPERATIONS[operation_type]
    operation = OperationRow(
        workspace_id=cluster.workspace_id,
        id=new_id(Prefix.OPERATION),
        type=operation_type,
        owner_type=facts.owner_type,
        owner_id=cluster.id,
        predecessor_operation_id=predecessor_operation_id,
        state=OperationState.RUNNING,
        request=request,
        placement={"host": cluster.host, "slot": cluster.slot},
        caller=dataclasses.asdict(caller),
        cancellable=predecessor_operation_id is None,
    )
    session.add(operation)
    steps = [
        step
        for step in facts.steps
        if step is not Step.AWAIT_PREDECESSOR or predecessor_operation_id is not None
    ]
    for position, step in enumerate(steps):
        session.add(
            OperationStepRow(
                workspace_id=cluster.workspace_id,
                operation_id=operation.id,
                name=step,
                position=position,
                status=StepStatus.PENDING,
            )
        )
    cluster.active_operation_id = operation.id
    return operation


async def request_cancellation(session: AsyncSession, operation_id: str) -> bool:
    """Ask a running operation to stop. False: it has ended, or can only go forward by now."""
    result = await session.execute(
        update(OperationRow)
        .where(
            col(OperationRow.id) == operation_id,
            col(OperationRow.state) == OperationState.RUNNING,
            col(OperationRow.cancellable).is_(True),
        )
        .values(
            cancel_requested_at=func.coalesce(col(OperationRow.cancel_requested_at), func.now()),
            version=col(OperationRow.version) + 1,
        )
        .returning(col(OperationRow.id))
    )
    return result.first() is not None


def cluster_operation_of(operation: OperationRow) -> ClusterOperation:
    """Return the input of an operation's workflow."""
    return ClusterOperation(
        operation_id=operation.id,
        control_plane=HostedControlPlane(
            workspace_id=operation.workspace_id,
            cluster_id=operation.owner_id,
            host=operation.placement["host"],
            slot=operation.placement["slot"],
        ),
        caller=caller_of(operation),
        predecessor_operation_id=operation.predecessor_operation_id,
    )


def caller_of(operation: OperationRow) -> Caller:
    """Return who asked for an operation."""
    stored = operation.caller
    return Caller(
        kind=PrincipalKind(stored["kind"]),
        principal_id=stored["principal_id"],
        workspace_id=stored["workspace_id"],
        role=Role(stored["role"]),
        token_id=stored["token_id"],
        request_id=stored["request_id"],
    )


async def notify(session: AsyncSession, operation_id: str) -> None:
    """Wake whoever waits for a change of the operation, when the transaction commits."""
    await session.execute(
        text("SELECT pg_notify('operations', :operation)"), {"operation": operation_id}
    )
