"""Installs: what is wanted on a cluster, what was rendered, and who may move it."""

import secrets
from datetime import datetime
from typing import Any

from sqlmodel import Field, SQLModel

from domain.install import Consent, DriftState, Health, InstallState, RenderState, Sync
from domain.package import Channel
from infra.database.tables.columns import enum_column, json_column, now_column, time_column


class InstallRow(SQLModel, table=True):
    """One copy of a package on one cluster; the row is in the customer's workspace.

    `package_workspace_id` is the vendor's, in which the package, its versions and the product are.
    `values` are the customer's, with references where the values are secret, never the values.
    `update_window` is `{timezone, days, start, end}`; None: at any time. `pinned_semver` keeps
    automatic updates and rollouts from it. `resources` are the contract's ResourceStatus.
    `plan_key` is random; with it digests of plans are made.
    """

    __tablename__ = "installs"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    cluster_id: str
    region_id: str
    package_workspace_id: str
    package_id: str
    product_id: str | None = None
    desired_version_id: str
    current_version_id: str | None = None
    current_render_id: str | None = None
    values: dict[str, Any] = json_column()
    labels: dict[str, Any] = json_column()
    channel: Channel = enum_column(Channel)
    automatic_updates_enabled: bool = False
    pinned_semver: str | None = None
    update_window: dict[str, Any] | None = json_column(nullable=True)
    hold_reason: str | None = None
    held_at: datetime | None = time_column()
    hold_until: datetime | None = time_column()
    drift_correction: bool = False
    state: InstallState = enum_column(InstallState)
    health: Health = enum_column(Health)
    health_message: str | None = None
    health_since: datetime | None = time_column()
    sync: Sync = enum_column(Sync)
    resources: list[dict[str, Any]] | None = json_column(nullable=True)
    release_revision: int | None = None
    observed_at: datetime | None = time_column()
    drift_looked_at: datetime | None = time_column()
    active_operation_id: str | None = None
    plan_key: str = Field(default_factory=lambda: secrets.token_urlsafe(32))
    version: int = 1
    created_at: datetime = now_column()
    updated_at: datetime = now_column()


class RenderRow(SQLModel, table=True):
    """What a version and values came to, without the data of any Secret.

    `manifest` are the objects as a JSON list; each datum of a Secret is replaced by a keyed digest.
    `plan` is what applying it would do, and `plan_digest` what an approval is bound to.
    `values` are as in the install's row, at the time. `unhealthy` is the object by which it did not
    become healthy, as a vendor may see it.
    """

    __tablename__ = "renders"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    install_id: str
    operation_id: str | None = None
    package_version_id: str
    restored_from_render_id: str | None = None
    state: RenderState = enum_column(RenderState)
    message: str | None = None
    values: dict[str, Any] = json_column()
    manifest: list[dict[str, Any]] | None = json_column(nullable=True)
    render_hash: str | None = None
    plan: dict[str, Any] | None = json_column(nullable=True)
    plan_digest: str | None = None
    approved_digest: str | None = None
    approved_by: str | None = None
    approved_at: datetime | None = time_column()
    unhealthy: dict[str, Any] | None = json_column(nullable=True)
    release_revision: int | None = None
    created_at: datetime = now_column()
    updated_at: datetime = now_column()


class InstallSecretRow(SQLModel, table=True):
    """A secret to which an install's values refer, and the Kubernetes Secret that carries it.

    `consumed_version_id` is what everything in the install works with; None when something may have
    another version than the Kubernetes Secret.
    """

    __tablename__ = "install_secrets"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    install_id: str = Field(primary_key=True)
    object_name: str = Field(primary_key=True)
    secret_id: str
    alias: str
    key: str
    synced_version_id: str | None = None
    synced_at: datetime | None = time_column()
    consumed_version_id: str | None = None


class InstallDriftRow(SQLModel, table=True):
    """A live object that is not as it was rendered; nothing of a Secret's data is in `delta`."""

    __tablename__ = "install_drift"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    install_id: str
    render_id: str
    object_key: str
    state: DriftState = enum_column(DriftState)
    delta: list[dict[str, Any]] = json_column()
    first_seen_at: datetime = now_column()
    last_seen_at: datetime = now_column()
    resolved_at: datetime | None = time_column()


class RolloutPreviewRow(SQLModel, table=True):
    """What a rollout of plans alone planned last for an install; the row is the customer's.

    `plan` is as in `RenderRow`; its vendor has `plan_digest` alone.
    """

    __tablename__ = "rollout_previews"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    install_id: str = Field(primary_key=True)
    rollout_id: str
    package_version_id: str
    semver: str
    render_hash: str
    plan: dict[str, Any] = json_column()
    plan_digest: str
    created_at: datetime = now_column()


class GrantRow(SQLModel, table=True):
    """A vendor's right to move one install, given and revoked by the customer.

    The row is the customer's; the vendor may read it, and it has all that a vendor may know of an
    install: version, health and where it is, never values, logs or secrets.
    """

    __tablename__ = "grants"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    install_id: str
    cluster_id: str
    region_id: str
    vendor_workspace_id: str
    product_id: str
    labels: dict[str, Any] = json_column()
    channel: Channel = enum_column(Channel)
    consent: Consent = enum_column(Consent)
    consented_version_id: str | None = None
    current_version_id: str | None = None
    health: Health = enum_column(Health)
    observed_at: datetime | None = time_column()
    revoked_at: datetime | None = time_column()
    version: int = 1
    created_at: datetime = now_column()
    updated_at: datetime = now_column()
