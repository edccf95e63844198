"""Operations and their steps: the outbox of workflows and the progress that the API shows."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKeyConstraint, Index, text
from sqlmodel import Field, SQLModel

from domain.caller import PrincipalKind
from domain.operation import OperationState, OperationType, OwnerType, StepStatus
from infra.database.tables.columns import (
    enum_column,
    json_column,
    now_column,
    optional_enum_column,
    time_column,
)


class OperationRow(SQLModel, table=True):
    """One long-running request.

    `request` is what was asked for, as the contract's metadata; `placement` says where the
    cluster's control plane is, so that the workflow's input needs no other row, or how and between
    which versions a secret rotates (`infra.database.records.rotation`).
    `workflow_started_at` is set by the first step that runs: an operation without it that is not
    fresh was never started, one with it whose workflow is gone was lost.
    """

    __tablename__ = "operations"
    __table_args__ = (
        Index("operations_owner", "workspace_id", "owner_type", "owner_id", "id"),
        Index(
            "operations_running",
            "started_at",
            postgresql_where=text("state = 'RUNNING'"),
        ),
    )

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    type: OperationType = enum_column(OperationType)
    owner_type: OwnerType = enum_column(OwnerType)
    owner_id: str
    parent_operation_id: str | None = None
    predecessor_operation_id: str | None = None
    state: OperationState = enum_column(OperationState)
    request: dict[str, Any] = json_column()
    placement: dict[str, Any] = json_column()
    response: dict[str, Any] | None = json_column(nullable=True)
    error: dict[str, Any] | None = json_column(nullable=True)
    last_error: dict[str, Any] | None = json_column(nullable=True)
    waiting_for: str | None = None
    cancellable: bool = True
    cancel_requested_at: datetime | None = time_column()
    cancel_requested_by: PrincipalKind | None = optional_enum_column(PrincipalKind)
    caller: dict[str, Any] = json_column()
    version: int = 1
    started_at: datetime = now_column()
    workflow_started_at: datetime | None = time_column()
    completed_at: datetime | None = time_column()


class OperationStepRow(SQLModel, table=True):
    """One step: planned with the operation, then written by the activity interceptor.

    A step that gives its turn back under an emergency stop says so itself, by
    `OperationRecords.hold_back`: it had begun by then, for all that the interceptor knows.

    `progress` says how far a step is that takes minutes, in words. One that fails is tried again
    until `gives_up_at`; without it, until it succeeds.
    """

    __tablename__ = "operation_steps"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "operation_id"],
            ["operations.workspace_id", "operations.id"],
        ),
    )

    workspace_id: str = Field(primary_key=True)
    operation_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    position: int
    status: StepStatus = enum_column(StepStatus)
    attempt: int = 0
    started_at: datetime | None = time_column()
    completed_at: datetime | None = time_column()
    next_try_at: datetime | None = time_column()
    gives_up_at: datetime | None = time_column()
    error_reason: str | None = None
    error_message: str | None = None
    retryable: bool = False
    progress: str | None = None
