"""Who there is, what they belong to, and the credentials that prove it."""

from datetime import datetime

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from domain.caller import Role
from infra.database.tables.columns import enum_column, now_column, time_column


class UserRow(SQLModel, table=True):
    """A person or a service account, known to the whole platform."""

    __tablename__ = "users"

    id: str = Field(primary_key=True)
    name: str
    default_workspace_id: str | None = None
    created_at: datetime = now_column()


class UserTokenRow(SQLModel, table=True):
    """A credential of a user: acts in every workspace of which the user is a member."""

    __tablename__ = "user_tokens"

    id: str = Field(primary_key=True)
    user_id: str = Field(foreign_key="users.id", index=True)
    name: str
    token_hash: bytes = Field(unique=True)
    created_at: datetime = now_column()
    last_used_at: datetime | None = time_column()
    expires_at: datetime | None = time_column()


class WorkspaceRow(SQLModel, table=True):
    """The boundary of a customer."""

    __tablename__ = "workspaces"

    id: str = Field(primary_key=True)
    name: str
    slug: str = Field(unique=True)
    version: int = 1
    secret_force_allowed: bool = False
    secret_accesses_per_minute: int = 600
    workspace_class: str = "standard"
    # Logs of installs may carry secrets: nobody reads them from here before this is asked for.
    install_logs_enabled: bool = False
    created_at: datetime = now_column()
    updated_at: datetime = now_column()


class WorkspaceMemberRow(SQLModel, table=True):
    """A user's role in a workspace."""

    __tablename__ = "workspace_members"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    user_id: str = Field(primary_key=True, foreign_key="users.id", index=True)
    id: str = Field(unique=True)
    role: Role = enum_column(Role)
    joined_at: datetime = now_column()


class ApiTokenRow(SQLModel, table=True):
    """A credential of a workspace; gone from the table means revoked."""

    __tablename__ = "api_tokens"

    workspace_id: str = Field(primary_key=True, foreign_key="workspaces.id")
    id: str = Field(primary_key=True, unique=True)
    name: str
    role: Role = enum_column(Role)
    scopes: list[str] = Field(default_factory=list, sa_type=ARRAY(Text))
    prefix: str
    token_hash: bytes = Field(unique=True)
    created_by: str
    created_at: datetime = now_column()
    last_used_at: datetime | None = time_column()
    expires_at: datetime | None = time_column()
