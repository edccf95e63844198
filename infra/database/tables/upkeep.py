"""What keeps the secret store in order; none of it is shown to anyone."""

from datetime import datetime

from sqlalchemy import BigInteger, DateTime
from sqlmodel import Field, SQLModel

from infra.database.tables.columns import now_column


class SecretStoreStateRow(SQLModel, table=True):
    """One row: whether values may be served, and what tells a restored state from the newest."""

    __tablename__ = "secret_store_state"

    one: bool = Field(default=True, primary_key=True)
    serving: bool = True
    reason: str | None = None
    generation: int = Field(default=0, sa_type=BigInteger)
    next_generation: int = Field(default=0, sa_type=BigInteger)
    restore_id: str | None = None
    reads_judged_from: datetime = now_column()
    changed_at: datetime = now_column()


class SecretAuditLogRow(SQLModel, table=True):
    """How far a log of OpenBao was compared; `log_id` is made of its folder and first line."""

    __tablename__ = "secret_audit_logs"

    log_id: str = Field(primary_key=True)
    compared_bytes: int = Field(sa_type=BigInteger)
    compared_at: datetime = now_column()


class SecretReadRow(SQLModel, table=True):
    """A read of a value that OpenBao answered, and the audit line that it was made under."""

    __tablename__ = "secret_reads"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    audit_event_id: str = Field(primary_key=True)
    request_id: str
    version_id: str
    read_at: datetime = Field(sa_type=DateTime(timezone=True))
