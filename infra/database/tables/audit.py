"""The audit log: who did what, written in the transaction that does it."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, SQLModel

from infra.database.tables.columns import json_column, now_column


class AuditEventRow(SQLModel, table=True):
    """One line. Our roles may insert and read it, never change or remove it."""

    __tablename__ = "audit_events"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True)
    occurred_at: datetime = now_column()
    actor_kind: str
    actor_id: str
    token_id: str | None = None
    request_id: str | None = None
    action: str
    resource_type: str
    resource_id: str
    outcome: str
    details: dict[str, Any] = json_column()
