"""Rollouts, their targets and their timelines, and the emergency stops that cover everything."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, SQLModel

from domain.rollout import Obstacle, RolloutState, StopScope, TargetState
from infra.database.tables.columns import (
    enum_column,
    json_column,
    now_column,
    optional_enum_column,
    time_column,
)


class RolloutRow(SQLModel, table=True):
    """One version of a product on its way; the row is in the vendor's workspace.

    `selector` and `strategy` are as the request had them, with defaults filled in. `approvals` is a
    list of `{wave, principal_id, digest, at}`. The requests of people are times here, and the
    workflow does what they ask: two of them at once are two columns, and both are seen.
    `counts` are the targets by state, kept by the transactions that change targets.
    """

    __tablename__ = "rollouts"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    product_id: str
    package_version_id: str
    selector: dict[str, Any] = json_column()
    strategy: dict[str, Any] = json_column()
    plan_only: bool = False
    state: RolloutState = enum_column(RolloutState)
    reason: str | None = None
    wave: int = 0
    waves: int = 0
    counts: dict[str, Any] = json_column()
    plan_digest: str | None = None
    approvals: list[dict[str, Any]] = json_column()
    pause_requested_at: datetime | None = time_column()
    cancel_requested_at: datetime | None = time_column()
    rollback_requested_at: datetime | None = time_column()
    bake_until: datetime | None = time_column()
    deadline_at: datetime | None = time_column()
    caller: dict[str, Any] = json_column()
    version: int = 1
    created_at: datetime = now_column()
    updated_at: datetime = now_column()
    started_at: datetime | None = time_column()
    completed_at: datetime | None = time_column()


class RolloutTargetRow(SQLModel, table=True):
    """One install of a rollout. What the vendor sees of the install is copied here."""

    __tablename__ = "rollout_targets"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    rollout_id: str = Field(primary_key=True)
    install_id: str = Field(primary_key=True)
    grant_id: str
    customer_workspace_id: str
    cluster_id: str
    region_id: str
    wave: int
    position: int
    state: TargetState = enum_column(TargetState)
    waiting_for: Obstacle | None = optional_enum_column(Obstacle)
    from_version_id: str | None = None
    from_render_id: str | None = None
    plan_digest: str | None = None
    operation_id: str | None = None
    rollback_operation_id: str | None = None
    health: str | None = None
    last_error: dict[str, Any] | None = json_column(nullable=True)
    attempts: int = 0
    next_try_at: datetime | None = time_column()
    started_at: datetime | None = time_column()
    completed_at: datetime | None = time_column()


class RolloutEventRow(SQLModel, table=True):
    """A line of a rollout's timeline."""

    __tablename__ = "rollout_events"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    rollout_id: str = Field(primary_key=True)
    sequence: int = Field(primary_key=True)
    kind: str
    wave: int | None = None
    install_id: str | None = None
    message: str
    at: datetime = now_column()


class EmergencyStopRow(SQLModel, table=True):
    """While it is not lifted, nothing new begins in its scope.

    `subject` is the product, provider or region; empty for a workspace and for everything. One of
    scope `all` is read in every workspace.
    """

    __tablename__ = "emergency_stops"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    scope: StopScope = enum_column(StopScope)
    subject: str = ""
    reason: str
    stopped_by: str
    lifted_by: str | None = None
    created_at: datetime = now_column()
    lifted_at: datetime | None = time_column()
