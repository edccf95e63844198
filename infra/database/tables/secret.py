"""Secrets: what is known about values that are kept in OpenBao, and what is left of purged ones."""

from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, ForeignKeyConstraint, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from domain.secret import Retirement, RotatorKind, SecretKind, SecretState, VersionState
from infra.database.tables.columns import enum_column, json_column, now_column, time_column


def _of_secret() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["workspace_id", "secret_id"], ["secrets.workspace_id", "secrets.id"]
    )


class SecretRow(SQLModel, table=True):
    """One secret.

    `aliases` maps a name to the number of a version; `attributes` are facts that belong to the
    kind, such as a user name, and are not secret. `active_operation_id` is the running rotation.
    """

    __tablename__ = "secrets"
    __table_args__ = (UniqueConstraint("workspace_id", "name"),)

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    name: str
    description: str | None = None
    kind: SecretKind = enum_column(SecretKind)
    labels: dict[str, str] = json_column()
    attributes: dict[str, str] = json_column()
    mime_type: str | None = None
    state: SecretState = enum_column(SecretState)
    aliases: dict[str, int] = json_column()
    last_version_number: int = 0
    validation: dict[str, Any] | None = json_column(nullable=True)
    expires_at: datetime | None = time_column()
    deleted_at: datetime | None = time_column()
    purge_at: datetime | None = time_column()
    purge_requested_by: str | None = None
    purge_requested_at: datetime | None = time_column()
    purge_approved_by: str | None = None
    active_operation_id: str | None = None
    version: int = 1
    created_at: datetime = now_column()
    updated_at: datetime = now_column()


class SecretVersionRow(SQLModel, table=True):
    """One version. `operation_id` is the rotation that made it, if one did."""

    __tablename__ = "secret_versions"
    __table_args__ = (_of_secret(), UniqueConstraint("workspace_id", "secret_id", "number"))

    workspace_id: str = Field(primary_key=True)
    secret_id: str
    id: str = Field(primary_key=True)
    number: int
    state: VersionState = enum_column(VersionState)
    comment: str | None = None
    operation_id: str | None = None
    version: int = 1
    created_at: datetime = now_column()
    updated_at: datetime = now_column()
    destroyed_at: datetime | None = time_column()
    last_used_at: datetime | None = time_column()


class SecretReferenceRow(SQLModel, table=True):
    """One consumer of a secret: what it is pinned to, used last, and has acknowledged.

    Without `version_number` it follows `current`. A rotation waits for those that acknowledge.
    """

    __tablename__ = "secret_references"
    __table_args__ = (_of_secret(),)

    workspace_id: str = Field(primary_key=True)
    secret_id: str = Field(primary_key=True)
    consumer_type: str = Field(primary_key=True)
    consumer_id: str = Field(primary_key=True)
    version_number: int | None = None
    acknowledges: bool = False
    last_used_number: int | None = None
    last_used_at: datetime | None = time_column()
    acknowledged_number: int | None = None
    acknowledged_at: datetime | None = time_column()
    created_at: datetime = now_column()


class SecretRotationRow(SQLModel, table=True):
    """How a secret rotates. `settings` are the rotator's, and hold nothing secret.

    The window is in minutes of a UTC day; without one any time will do. A rotation that is late
    by more than `catch_up_seconds` waits for its next turn.
    """

    __tablename__ = "secret_rotations"
    __table_args__ = (_of_secret(),)

    workspace_id: str = Field(primary_key=True)
    secret_id: str = Field(primary_key=True)
    rotator: RotatorKind = enum_column(RotatorKind)
    settings: dict[str, Any] = json_column()
    interval_seconds: int
    jitter_seconds: int = 0
    window_start_minute: int | None = None
    window_minutes: int | None = None
    catch_up_seconds: int
    grace_seconds: int
    retirement: Retirement = enum_column(Retirement)
    enabled: bool = True
    next_rotation_at: datetime = Field(sa_type=DateTime(timezone=True))
    last_rotated_at: datetime | None = time_column()
    last_operation_id: str | None = None
    version: int = 1
    created_at: datetime = now_column()
    updated_at: datetime = now_column()


class SecretTombstoneRow(SQLModel, table=True):
    """What is left of a purged secret: ids, and the evidence that its values are gone."""

    __tablename__ = "secret_tombstones"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    secret_id: str = Field(primary_key=True)
    kind: SecretKind = enum_column(SecretKind)
    version_ids: list[str] = Field(sa_type=ARRAY(Text))
    evidence: dict[str, Any] = json_column()
    actor_kind: str
    actor_id: str
    approved_by: str | None = None
    purged_at: datetime = now_column()


class SecretOrphanRow(SQLModel, table=True):
    """A value in OpenBao that no version knows: kept aside before it is removed."""

    __tablename__ = "secret_orphans"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    secret_id: str
    version_id: str = Field(primary_key=True)
    found_at: datetime = now_column()
    removed_at: datetime | None = time_column()
