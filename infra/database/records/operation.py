"""An operation's rows: planned by a request, found by the outbox, ended by a workflow.

A running operation holds the lock of what it works on: a cluster, a machine, a secret, or a worker
bootstrap, whose operations belong to its cluster.
"""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import func, text, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import Caller, PrincipalKind, Role
from domain.cluster import HostedControlPlane, NetworkProfile
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.machine import ClusterMachine, MachineKind
from domain.operation import (
    OPERATIONS,
    OperationState,
    OperationType,
    OwnerType,
    Step,
    StepStatus,
)
from domain.owned_operation import (
    ClusterOperation,
    InstallOperation,
    MachineOperation,
    MachinePoolOperation,
    OwnedOperation,
    PackageOperation,
    SecretOperation,
    WorkerBootstrapOperation,
)
from infra.database.records.audit import add_audit_event
from infra.database.records.new_rows import Adds
from infra.database.tables import (
    ClusterRow,
    InstallRow,
    MachinePoolRow,
    MachineRow,
    OperationRow,
    OperationStepRow,
    PackageRow,
    SecretRow,
    WorkerBootstrapRow,
)

# What an operation locks.
OwnerRow: TypeAlias = (
    ClusterRow
    | InstallRow
    | MachinePoolRow
    | MachineRow
    | PackageRow
    | SecretRow
    | WorkerBootstrapRow
)
Owner = TypeVar("Owner", bound=OwnerRow)


def plan_operation(
    session: Adds,
    operation_type: OperationType,
    owner: OwnerRow,
    caller: Caller,
    *,
    request: dict[str, Any],
    predecessor_operation_id: str | None = None,
    cluster: ClusterRow | None = None,
    parent_operation_id: str | None = None,
    pool_ids: Sequence[str] = (),
) -> OperationRow:
    """Add an operation with its planned steps and give it the owner's lock.

    The caller of this function holds the owner's row lock and has checked that the lock is
    free, or that this type may take it over from `predecessor_operation_id`. The operation of a
    machine or a pool needs the row of its cluster, which says where the control plane is; that of
    a new cluster has its first pools as a part.
    """
    facts = OPERATIONS[operation_type]
    operation = OperationRow(
        workspace_id=owner.workspace_id,
        id=new_id(Prefix.OPERATION),
        type=operation_type,
        owner_type=facts.owner_type,
        owner_id=(
            owner.cluster_id if isinstance(owner, MachinePoolRow | WorkerBootstrapRow) else owner.id
        ),
        parent_operation_id=parent_operation_id,
        predecessor_operation_id=predecessor_operation_id,
        state=OperationState.RUNNING,
        request=request,
        placement={
            **_placement_of(owner, cluster),
            **({"pool_ids": list(pool_ids)} if pool_ids else {}),
        },
        caller=dataclasses.asdict(caller),
        cancellable=predecessor_operation_id is None,
    )
    session.add(operation)
    steps = [
        step
        for step in facts.steps_for(owner.kind if isinstance(owner, MachineRow) else None)
        if step is not Step.AWAIT_PREDECESSOR or predecessor_operation_id is not None
    ]
    if pool_ids:
        steps.append(Step.CREATE_MACHINES)
    for position, step in enumerate(steps):
        session.add(
            OperationStepRow(
                workspace_id=owner.workspace_id,
                operation_id=operation.id,
                name=step,
                position=position,
                status=StepStatus.PENDING,
            )
        )
    owner.active_operation_id = operation.id
    return operation


def _placement_of(owner: OwnerRow, cluster: ClusterRow | None) -> dict[str, Any]:
    match owner:
        case ClusterRow():
            return _placement_of_cluster(owner)
        case MachineRow():
            assert cluster is not None  # noqa: S101 - as the docstring of plan_operation asks
            return {
                "cluster_id": cluster.id,
                "kind": owner.kind,
                **_placement_of_cluster(cluster),
            }
        case MachinePoolRow():
            assert cluster is not None  # noqa: S101 - the same
            return {"pool_id": owner.id, **_placement_of_cluster(cluster)}
        case InstallRow():
            assert cluster is not None  # noqa: S101 - the same
            return {"cluster_id": cluster.id, **_placement_of_cluster(cluster)}
        case WorkerBootstrapRow():
            return {"bootstrap_id": owner.id}
        case PackageRow() | SecretRow():
            return {}


def _placement_of_cluster(cluster: ClusterRow) -> dict[str, Any]:
    return {
        "host": cluster.host,
        "slot": cluster.slot,
        "network_profile": cluster.network_profile,
    }


async def request_cancellation(session: AsyncSession, operation_id: str, by: PrincipalKind) -> bool:
    """Ask a running operation to stop. False: it has ended, or can only go forward by now.

    What a person asked for stays a person's when the platform asks for it as well.
    """
    known = col(OperationRow.cancel_requested_by)
    result = await session.execute(
        update(OperationRow)
        .where(
            col(OperationRow.id) == operation_id,
            col(OperationRow.state) == OperationState.RUNNING,
            col(OperationRow.cancellable).is_(True),
        )
        .values(
            cancel_requested_at=func.coalesce(col(OperationRow.cancel_requested_at), func.now()),
            cancel_requested_by=func.coalesce(known, by) if by is PrincipalKind.SYSTEM else by,
            version=col(OperationRow.version) + 1,
        )
        .returning(col(OperationRow.id))
    )
    return result.first() is not None


def owned_operation_of(operation: OperationRow) -> OwnedOperation:  # noqa: PLR0911 - a table
    """Return the input of an operation's workflow."""
    if operation.type is OperationType.CLUSTER_WORKER_BOOTSTRAP_REVOKE:
        return bootstrap_operation_of(operation)
    if operation.type is OperationType.MACHINE_POOL_CREATE:
        return pool_operation_of(operation)
    match operation.owner_type:
        case OwnerType.SECRET:
            return secret_operation_of(operation)
        case OwnerType.MACHINE:
            return machine_operation_of(operation)
        case OwnerType.INSTALL:
            return install_operation_of(operation)
        case OwnerType.PACKAGE:
            return package_operation_of(operation)
        case _:
            return cluster_operation_of(operation)


def secret_operation_of(operation: OperationRow) -> SecretOperation:
    """Return the input of the workflow of a secret's operation."""
    return SecretOperation(
        operation_id=operation.id,
        workspace_id=operation.workspace_id,
        secret_id=operation.owner_id,
        caller=caller_of(operation),
        predecessor_operation_id=operation.predecessor_operation_id,
    )


def machine_operation_of(operation: OperationRow) -> MachineOperation:
    """Return the input of the workflow of a machine's operation."""
    return MachineOperation(
        operation_id=operation.id,
        machine=ClusterMachine(
            machine_id=operation.owner_id,
            control_plane=_control_plane_of(operation, operation.placement["cluster_id"]),
            # Operations that were planned before there were others carry none.
            kind=MachineKind(operation.placement.get("kind", MachineKind.OWN_SERVER)),
        ),
        caller=caller_of(operation),
        predecessor_operation_id=operation.predecessor_operation_id,
    )


def install_operation_of(operation: OperationRow) -> InstallOperation:
    """Return the input of the workflow of an install's operation."""
    return InstallOperation(
        operation_id=operation.id,
        install_id=operation.owner_id,
        control_plane=_control_plane_of(operation, operation.placement["cluster_id"]),
        caller=caller_of(operation),
        predecessor_operation_id=operation.predecessor_operation_id,
    )


def package_operation_of(operation: OperationRow) -> PackageOperation:
    """Return the input of the workflow of a package's operation."""
    return PackageOperation(
        operation_id=operation.id,
        workspace_id=operation.workspace_id,
        package_id=operation.owner_id,
        caller=caller_of(operation),
        predecessor_operation_id=operation.predecessor_operation_id,
    )


def pool_operation_of(operation: OperationRow) -> MachinePoolOperation:
    """Return the input of the workflow of a pool's operation."""
    return MachinePoolOperation(
        operation_id=operation.id,
        pool_id=operation.placement["pool_id"],
        control_plane=_control_plane_of(operation, operation.owner_id),
        caller=caller_of(operation),
        predecessor_operation_id=operation.predecessor_operation_id,
    )


def bootstrap_operation_of(operation: OperationRow) -> WorkerBootstrapOperation:
    """Return the input of the workflow of a worker bootstrap's operation."""
    return WorkerBootstrapOperation(
        operation_id=operation.id,
        workspace_id=operation.workspace_id,
        cluster_id=operation.owner_id,
        bootstrap_id=operation.placement["bootstrap_id"],
        caller=caller_of(operation),
        predecessor_operation_id=operation.predecessor_operation_id,
    )


def cluster_operation_of(operation: OperationRow) -> ClusterOperation:
    """Return the input of the workflow of a cluster's operation."""
    return ClusterOperation(
        operation_id=operation.id,
        control_plane=_control_plane_of(operation, operation.owner_id),
        caller=caller_of(operation),
        predecessor_operation_id=operation.predecessor_operation_id,
        pool_ids=tuple(operation.placement.get("pool_ids", ())),
    )


def _control_plane_of(operation: OperationRow, cluster_id: str) -> HostedControlPlane:
    return HostedControlPlane(
        workspace_id=operation.workspace_id,
        cluster_id=cluster_id,
        host=operation.placement["host"],
        slot=operation.placement["slot"],
        # Operations that were planned before there was one carry none.
        network_profile=NetworkProfile(
            operation.placement.get("network_profile", NetworkProfile.LINUX_CILIUM)
        ),
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


async def hold(
    session: AsyncSession, operation: OwnedOperation
) -> tuple[OperationRow, OwnerRow | None]:
    """Lock the rows of an operation's owner, None when it is gone, and of the operation.

    The owner first, as every request does: one order, no deadlock.

    Raises:
        BulkheadError: ABORTED when the operation is not one of this owner.
    """
    owner = await _lock_owner(session, operation)
    query = select(OperationRow).where(OperationRow.id == operation.operation_id)
    row = (await session.exec(query.with_for_update())).one()
    if row.owner_id != operation.owner_id:
        raise taken_over()
    return row, owner


async def _lock_owner(  # noqa: PLR0911 - a table of kinds
    session: AsyncSession, operation: OwnedOperation
) -> OwnerRow | None:
    match operation:
        case SecretOperation():
            return await _lock(session, SecretRow, operation.secret_id)
        case MachineOperation():
            return await _lock(session, MachineRow, operation.owner_id)
        case MachinePoolOperation():
            return await _lock(session, MachinePoolRow, operation.pool_id)
        case WorkerBootstrapOperation():
            return await _lock(session, WorkerBootstrapRow, operation.bootstrap_id)
        case InstallOperation():
            return await _lock(session, InstallRow, operation.install_id)
        case PackageOperation():
            return await _lock(session, PackageRow, operation.package_id)
        case ClusterOperation():
            return await _lock(session, ClusterRow, operation.owner_id)


async def _lock(session: AsyncSession, table: type[Owner], row_id: str) -> Owner | None:
    query = select(table).where(col(table.id) == row_id)
    return (await session.exec(query.with_for_update())).one_or_none()


async def end_operation(
    session: AsyncSession, operation: OwnedOperation, row: OperationRow, state: OperationState
) -> None:
    """Write the end of an operation whose `response` or `error` is set, and audit it.

    The owner's lock is given back by whoever knows what the owner has become.
    """
    row.state = state
    row.version += 1
    row.completed_at = datetime.now(UTC)
    row.cancellable = False
    row.waiting_for = None
    details: dict[str, Any] = {"operation_id": row.id}
    if state is OperationState.SUCCEEDED:
        row.last_error = None
    elif row.error is not None:
        details["reason"] = row.error["reason"]
    await _close_steps(session, row.id, StepStatus.PENDING, status=StepStatus.SKIPPED)
    # A cancelled attempt reports nothing.
    await _close_steps(
        session,
        row.id,
        StepStatus.RUNNING,
        status=StepStatus.FAILED,
        completed_at=row.completed_at,
        next_try_at=None,
        retryable=False,
    )
    add_audit_event(
        session,
        operation.caller,
        row.type,
        row.owner_type,
        row.owner_id,
        outcome=state.lower(),
        details=details,
    )
    await notify(session, row.id)


async def _close_steps(
    session: AsyncSession,
    operation_id: str,
    found: StepStatus,
    **values: Any,  # noqa: ANN401 - columns
) -> None:
    await session.execute(
        update(OperationStepRow)
        .where(
            col(OperationStepRow.operation_id) == operation_id,
            col(OperationStepRow.status) == found,
        )
        .values(**values)
    )


def taken_over() -> BulkheadError:
    """Return the failure of an operation that lost its owner's lock."""
    return BulkheadError(Reason.ABORTED, "Another operation took over what this one works on.")


async def notify(session: AsyncSession, operation_id: str) -> None:
    """Wake whoever waits for a change of the operation, when the transaction commits."""
    await session.execute(
        text("SELECT pg_notify('operations', :operation)"), {"operation": operation_id}
    )
