"""Idempotency keys: the answer that a repeated request gets instead of a second effect."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, SQLModel

from infra.database.tables.columns import json_column, now_column


class IdempotencyKeyRow(SQLModel, table=True):
    """One key in its workspace. `answer` never holds a one-time value."""

    __tablename__ = "idempotency_keys"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    key: str = Field(primary_key=True)
    fingerprint: bytes
    status: int
    answer: dict[str, Any] = json_column()
    created_at: datetime = now_column()
