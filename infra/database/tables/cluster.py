"""Clusters: what is wanted and what was reached."""

from datetime import datetime

from sqlalchemy import ForeignKeyConstraint
from sqlmodel import Field, SQLModel

from domain.cluster import ClusterProvider, ClusterState, NetworkProfile
from infra.database.tables.columns import enum_column, now_column, time_column


class ClusterRow(SQLModel, table=True):
    """One cluster. `active_operation_id` is the lock: whoever holds it may change the cluster."""

    __tablename__ = "clusters"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "region_id"], ["regions.workspace_id", "regions.id"]),
    )

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    name: str
    region_id: str
    provider: ClusterProvider = enum_column(ClusterProvider)
    network_profile: NetworkProfile = enum_column(NetworkProfile)
    state: ClusterState = enum_column(ClusterState)
    active_operation_id: str | None = None
    host: str
    slot: int
    version: int = 1
    certificates_renew_after: datetime | None = time_column()
    certificates_expire_at: datetime | None = time_column()
    certificates_renewed_at: datetime | None = time_column()
    created_at: datetime = now_column()
    updated_at: datetime = now_column()
