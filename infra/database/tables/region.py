"""Regions: labels of a workspace that group its clusters."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from infra.database.tables.columns import now_column


class RegionRow(SQLModel, table=True):
    """A label; not a provider's region."""

    __tablename__ = "regions"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    name: str
    icon: str | None = None
    created_at: datetime = now_column()
