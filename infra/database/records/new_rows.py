"""Writes the new rows of a transaction in one statement.

A request that starts an operation adds about eight rows to four tables. A session's unit of work
sends a statement for each table, and spends most of its time on bookkeeping: with it such a
transaction took 5.7 ms, without it 3 ms.
"""

import json
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol

from psycopg.types.json import Jsonb
from sqlalchemy import Table, inspect
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

# A table and the columns that its rows set; the others have defaults of the database.
_Shape = tuple[str, tuple[str, ...]]


class Adds(Protocol):
    """Takes rows that are to be written: a session, or `NewRows`."""

    def add(self, instance: SQLModel, /) -> None:
        """Take a row."""


class NewRows:
    """Rows that belong to a transaction and to no session."""

    def __init__(self) -> None:
        self._rows: list[SQLModel] = []

    def add(self, instance: SQLModel, /) -> None:
        """Take a row, to be written by `write`."""
        self._rows.append(instance)

    async def write(self, session: AsyncSession) -> None:
        """Insert every row that was added since the last time.

        Foreign keys are checked at the end of a statement, so the order does not matter. The rows
        keep their values; timestamps that the database fills in are set to the transaction's,
        which is what the database uses.
        """
        rows, self._rows = self._rows, []
        if not rows:
            return
        documents: dict[_Shape, list[dict[str, Any]]] = {}
        for row in rows:
            all_values = {name: getattr(row, name) for name in _names_of(type(row))}
            values = {name: value for name, value in all_values.items() if value is not None}
            documents.setdefault((_table_of(type(row)).name, tuple(values)), []).append(values)
        connection = await session.connection()
        result = await connection.exec_driver_sql(
            _statement(tuple(documents)),
            tuple(Jsonb(document, dumps=_to_json) for document in documents.values()),
        )
        now = result.scalar_one()
        for row in rows:
            for name in _timestamps_of(type(row)):
                if getattr(row, name) is None:
                    setattr(row, name, now)


def _to_json(document: object) -> str:
    return json.dumps(document, default=_plain)


def _plain(value: object) -> str:
    """Return a value that JSON does not know as PostgreSQL reads it from text."""
    match value:
        case datetime():
            return value.isoformat()
        case bytes():
            return f"\\x{value.hex()}"
        case _:
            raise TypeError(type(value).__name__)


def _table_of(kind: type[SQLModel]) -> Table:
    table: Table = inspect(kind).local_table
    return table


@lru_cache
def _names_of(kind: type[SQLModel]) -> tuple[str, ...]:
    return tuple(column.name for column in _table_of(kind).columns)


@lru_cache
def _timestamps_of(kind: type[SQLModel]) -> tuple[str, ...]:
    columns = _table_of(kind).columns
    return tuple(column.name for column in columns if column.server_default is not None)


@lru_cache(maxsize=64)
def _statement(shapes: tuple[_Shape, ...]) -> str:
    inserts = ", ".join(
        f"i{position} AS ({_insert(*shape)})" for position, shape in enumerate(shapes)
    )
    return f"WITH {inserts} SELECT now()"


def _insert(table: str, names: tuple[str, ...]) -> str:
    # Tables and columns are our own; every value is in the parameter.
    columns = ", ".join(f'"{name}"' for name in names)
    return (
        f"INSERT INTO {table} ({columns}) SELECT {columns}"  # noqa: S608 - as said
        f" FROM jsonb_populate_recordset(NULL::{table}, %s)"
    )
