"""Machines, and the rights to become one."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKeyConstraint
from sqlmodel import Field, SQLModel

from domain.machine import Instruction, MachineHealth, MachineKind, MachineStage, MachineState
from infra.database.tables.columns import enum_column, json_column, now_column, time_column


class WorkerBootstrapRow(SQLModel, table=True):
    """A right to join, known by the hash of its token; `used_at` is set once, by one update."""

    __tablename__ = "worker_bootstraps"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "cluster_id"], ["clusters.workspace_id", "clusters.id"]
        ),
    )

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    cluster_id: str
    token_hash: bytes
    created_by: str
    expires_at: datetime = time_column()
    used_at: datetime | None = time_column()
    machine_id: str | None = None
    revoked_at: datetime | None = time_column()
    active_operation_id: str | None = None
    version: int = 1
    created_at: datetime = now_column()
    updated_at: datetime = now_column()


class MachineRow(SQLModel, table=True):
    """One machine: what is wanted of it, what its server reported, and what its node shows.

    `identity_key` is the public key, as PEM, of the server's own key pair, known by the SHA-256 of
    its DER form: what the server sends is signed with the private half, which never leaves it.
    `reported_*` comes from the server, `node_*` from the cluster's API; `health_candidate` is what
    the last look found, and becomes `health` when it has lasted long enough. `instruction` is what
    the server is told to do.
    A machine in a cloud (`kind`) has no key until its server has registered; `place` and
    `instance_type` are where and what it became, `choices` what it may become, best first
    (`domain.compute.Choice`), `provider_id` its server's id at the provider,
    `server_missing_since` since when its account has no such server.
    `credentials_revoked_at`: from then on nothing that the server signs counts any more.
    """

    __tablename__ = "machines"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "cluster_id"], ["clusters.workspace_id", "clusters.id"]
        ),
    )

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    cluster_id: str
    bootstrap_id: str | None = None
    kind: MachineKind = enum_column(MachineKind)
    name: str | None = None
    state: MachineState = enum_column(MachineState)
    stage: MachineStage = enum_column(MachineStage)
    schedulable: bool = True
    identity_key: str | None = None
    identity_key_hash: bytes | None = None
    operating_system: str
    architecture: str
    hostname: str
    addresses: list[str] = json_column()
    artifact_set: str
    reported_at: datetime | None = time_column()
    reported_phase: str | None = None
    reported_code: int | None = None
    reported_message: str | None = None
    clock_offset_seconds: int | None = None
    instruction: Instruction = enum_column(Instruction)
    uninstalled_at: datetime | None = time_column()
    node_seen_at: datetime | None = time_column()
    node_ready: bool | None = None
    node_conditions: dict[str, Any] | None = json_column(nullable=True)
    kubelet_version: str | None = None
    health: MachineHealth = enum_column(MachineHealth)
    health_reason: str | None = None
    health_since: datetime = now_column()
    health_candidate: MachineHealth = enum_column(MachineHealth)
    health_candidate_since: datetime = now_column()
    repaired_at: datetime | None = time_column()
    client_certificate_expires_at: datetime | None = time_column()
    client_certificate_renewed_at: datetime | None = time_column()
    serving_certificate_expires_at: datetime | None = time_column()
    serving_certificate_renewed_at: datetime | None = time_column()
    tunnel_token_expires_at: datetime | None = time_column()
    tunnel_token_renewed_at: datetime | None = time_column()
    credentials_revoked_at: datetime | None = time_column()
    compute_config_id: str | None = None
    instance_type: str | None = None
    place: str | None = None
    choices: list[dict[str, Any]] | None = json_column(nullable=True)
    pool_id: str | None = None
    provider_id: str | None = None
    public_ip: str | None = None
    suspension_id: str | None = None
    server_missing_since: datetime | None = time_column()
    active_operation_id: str | None = None
    version: int = 1
    created_at: datetime = now_column()
    updated_at: datetime = now_column()
