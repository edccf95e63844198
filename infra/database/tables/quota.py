"""Quotas: limits that differ from the platform's defaults."""

from sqlmodel import Field, SQLModel


class QuotaRow(SQLModel, table=True):
    """A workspace's own limit of one metric; without a row the default of the domain holds."""

    __tablename__ = "quotas"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    metric: str = Field(primary_key=True)
    limit: int
