"""Column shapes that several tables share."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import DateTime, Enum, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field


def now_column(**options: Any) -> Any:  # noqa: ANN401 - a SQLModel field is of any type
    """Return a timestamp that the database's own clock fills in."""
    return Field(
        default=None,
        sa_type=DateTime(timezone=True),
        sa_column_kwargs={"server_default": func.now(), "nullable": False, **options},
    )


def time_column() -> Any:  # noqa: ANN401 - a SQLModel field is of any type
    """Return a timestamp that may be absent."""
    return Field(default=None, sa_type=DateTime(timezone=True), nullable=True)


def enum_column(kind: type[StrEnum]) -> Any:  # noqa: ANN401 - a SQLModel field is of any type
    """Return a text column that holds the enum's values.

    Without a check constraint, so that a new value needs no migration.
    """
    return Field(sa_type=_text_of(kind))


def optional_enum_column(kind: type[StrEnum]) -> Any:  # noqa: ANN401 - as said
    """Return a text column that holds one of the enum's values or nothing."""
    return Field(default=None, sa_type=_text_of(kind), nullable=True)


def _text_of(kind: type[StrEnum]) -> Any:  # noqa: ANN401 - SQLModel asks for a class
    return Enum(
        kind,
        native_enum=False,
        create_constraint=False,
        length=64,
        values_callable=lambda members: [member.value for member in members],
    )


def json_column(*, nullable: bool = False) -> Any:  # noqa: ANN401 - a SQLModel field is of any type
    """Return a JSONB document."""
    return Field(default=None, sa_type=JSONB, nullable=nullable)


def unix(moment: datetime) -> int:
    """Return a moment as the contract's integer Unix seconds."""
    return int(moment.timestamp())


def unix_or_none(moment: datetime | None) -> int | None:
    """Return a moment as the contract's integer Unix seconds, if there is one."""
    return None if moment is None else unix(moment)
