"""Compute: whose accounts are used, which stacks they have, and what was found in them."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKeyConstraint
from sqlmodel import Field, SQLModel

from domain.cloud import Provider
from domain.compute import DriftState, SuspensionState
from domain.stack import StackKind, StackState
from infra.database.tables.columns import enum_column, json_column, now_column, time_column


class ComputeConfigRow(SQLModel, table=True):
    """An account and how it is used: provider, place, image, and the secret with its credential.

    `provider_config` is as the contract has it: `region` (the place), `image`,
    `machine_type_filter`, and ours: `fallbacks`, a list of places tried after `region`.
    `problem` is why the account could not be looked at when it was last tried.
    """

    __tablename__ = "compute_configs"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    name: str
    provider: Provider = enum_column(Provider)
    provider_config: dict[str, Any] = json_column()
    secret_id: str
    secret_version_id: str | None = None
    problem: str | None = None
    looked_at: datetime | None = time_column()
    version: int = 1
    created_at: datetime = now_column()
    updated_at: datetime = now_column()


class ComputePolicyRow(SQLModel, table=True):
    """Where a workspace lets machines and snapshots be; no row: everywhere."""

    __tablename__ = "compute_policies"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    # As `domain.compute.allowed_place` names them.
    allowed_places: list[str] = json_column()
    version: int = 1
    updated_at: datetime = now_column()


class ClusterComputeRow(SQLModel, table=True):
    """How many machines a cluster may have; no row: the default."""

    __tablename__ = "cluster_compute_settings"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    cluster_id: str = Field(primary_key=True)
    auto_scaling_enabled: bool = False
    max_machines: int
    version: int = 1
    updated_at: datetime = now_column()


class MachinePoolRow(SQLModel, table=True):
    """Several machines of one shape that one request asked for."""

    __tablename__ = "machine_pools"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "cluster_id"], ["clusters.workspace_id", "clusters.id"]
        ),
    )

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    cluster_id: str
    compute_config_id: str
    instance_type: str
    count: int
    active_operation_id: str | None = None
    version: int = 1
    created_at: datetime = now_column()
    updated_at: datetime = now_column()


class StackRow(SQLModel, table=True):
    """A Pulumi stack: what a cluster shares in a place (`network`), or one machine.

    `fence` grows with each runner that takes the stack; what a runner with a smaller one does
    counts no more. `encryption_salt` belongs to the stack's passphrase, which OpenBao has.
    `outputs` are the program's, by name, without secrets: ids, addresses. A network with a
    `released_at` is only removed any more; machines that come get another one.
    `secret_id` is the credential in whose account it is, and `secret_version_id` the version that
    was last known to be of that account: another one may be of another account. `account_id` is
    the provider's own name of the account, where it tells one. Both are there before anything is
    asked for.
    """

    __tablename__ = "stacks"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    kind: StackKind = enum_column(StackKind)
    cluster_id: str
    machine_id: str | None = None
    compute_config_id: str
    secret_id: str
    provider: Provider = enum_column(Provider)
    place: str
    region: str
    state: StackState = enum_column(StackState)
    shape: dict[str, Any] = json_column()
    outputs: dict[str, Any] = json_column()
    encryption_salt: str | None = None
    secret_version_id: str | None = None
    account_id: str | None = None
    released_at: datetime | None = time_column()
    fence: int = 0
    lease_holder: str | None = None
    lease_expires_at: datetime | None = time_column()
    created_at: datetime = now_column()
    updated_at: datetime = now_column()


class CloudIntentRow(SQLModel, table=True):
    """That something is about to be made in a customer's account; written before it is asked for.

    `resource` is the logical name in the stack's program; `cloud_id` is known when the provider
    has answered, or when it was found by its tags.
    """

    __tablename__ = "cloud_intents"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    stack_id: str = Field(primary_key=True)
    resource: str = Field(primary_key=True)
    operation_id: str
    kind: str
    name: str
    cloud_id: str | None = None
    intended_at: datetime = now_column()
    found_at: datetime | None = time_column()
    removed_at: datetime | None = time_column()


class InventoryRow(SQLModel, table=True):
    """What an account had of a stack when it was asked: the proof, or what is left.

    `left` counts what nobody wants.
    """

    __tablename__ = "inventories"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    operation_id: str | None = None
    machine_id: str | None = None
    provider: Provider = enum_column(Provider)
    left: int
    resources: list[dict[str, Any]] = json_column()
    taken_at: datetime = now_column()


class LeakRow(SQLModel, table=True):
    """Something in a customer's account that carries our tags and that no row wants.

    `account_id` and `secret_version_id` tell where it was seen last, as those of a stack do.
    """

    __tablename__ = "leaks"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    compute_config_id: str
    provider: Provider = enum_column(Provider)
    kind: str
    cloud_id: str
    name: str
    place: str
    stack_id: str | None = None
    account_id: str | None = None
    secret_version_id: str | None = None
    attempts: int = 0
    last_error: str | None = None
    first_seen_at: datetime = now_column()
    last_seen_at: datetime = now_column()
    resolved_at: datetime | None = time_column()


class DriftReportRow(SQLModel, table=True):
    """What a machine's stack says that it is, beside what the provider says."""

    __tablename__ = "drift_reports"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    machine_id: str
    state: DriftState = enum_column(DriftState)
    trigger: str | None = None
    delta: dict[str, Any] = json_column()
    provider_snapshot: dict[str, Any] = json_column()
    version: int = 1
    started_at: datetime = now_column()
    created_at: datetime = now_column()
    expires_at: datetime = time_column()


class SuspensionEventRow(SQLModel, table=True):
    """One suspension of a machine: its snapshot, and what that costs.

    `stack_id` is the stack whose server is kept: what the snapshot is tagged with; none as soon as
    nobody wants the snapshot any more.
    """

    __tablename__ = "suspension_events"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    machine_id: str
    state: SuspensionState = enum_column(SuspensionState)
    reason: str
    stack_id: str | None = None
    snapshot_id: str | None = None
    size_gb: float | None = None
    monthly_cost_cents: int = 0
    version: int = 1
    started_at: datetime = now_column()
    resumed_at: datetime | None = time_column()
    expires_at: datetime = time_column()


class CredentialBudgetRow(SQLModel, table=True):
    """How many calls a credential's account still takes: one budget for all workflows."""

    __tablename__ = "credential_budgets"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    secret_id: str = Field(primary_key=True)
    calls_left: float
    refilled_at: datetime = now_column()
    # The provider said that it takes nothing more until then.
    blocked_until: datetime | None = time_column()
