"""The engine of one role, and transactions that are bound to a workspace."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path

from psycopg.errors import ReadOnlySqlTransaction
from sqlalchemy import URL
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession as SqlAlchemySession
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.errors import BulkheadError, Reason
from infra.database.queries.access import act_in
from infra.settings import DatabaseSettings

# One transaction: milliseconds when the database is well. A frozen server, or a network that drops
# everything, must not hang its callers.
ANSWERS_WITHIN_SECONDS = 15.0


class DatabaseRole(StrEnum):
    """The login roles; none owns a table and none bypasses row-level security.

    The API and the workers see one workspace a transaction; sweeps see the few columns of all
    workspaces that a schedule needs. `STACKS` makes the tables in which Pulumi keeps its states,
    which roles of the workspaces own (`infra.stacks.backend`). `OWNER` runs migrations and nothing
    else.
    """

    OWNER = "bulkhead_owner"
    API = "bulkhead_api"
    WORKER = "bulkhead_worker"
    SWEEPER = "bulkhead_sweeper"
    STACKS = "bulkhead_stacks"


# What the roles of workspaces have in common as which runs of the engine log in: they may connect.
RUNNERS = "bulkhead_runners"
RUNNER_PREFIX = "bulkhead_state_"
# Owns the one function that makes them. Nobody can log in as it.
ROLE_MAKER = "bulkhead_role_maker"


def url_of(settings: DatabaseSettings, role: DatabaseRole) -> URL:
    """Return the role's address, its password read from the role's file."""
    password = Path(settings.passwords_dir, role).read_text().strip()
    return URL.create(
        "postgresql+psycopg",
        username=role,
        password=password,
        host=settings.host,
        port=settings.port,
        database=settings.name,
    )


class _Session(AsyncSession):
    # SQLModel warns at every `execute`, and its `exec` takes no plain SQL.
    execute = SqlAlchemySession.execute


class Database:
    """Transactions of one role. One instance a process and role."""

    def __init__(self, settings: DatabaseSettings, role: DatabaseRole) -> None:
        self._engine = create_async_engine(
            url_of(settings, role),
            pool_size=settings.pool_size,
            max_overflow=settings.pool_size,
            pool_pre_ping=False,
            pool_timeout=5,
            connect_args={"connect_timeout": 5, "application_name": role},
            # An error of the driver prints its parameters, and they reach logs.
            hide_parameters=True,
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Open one transaction that sees no workspace yet; commit at the end, or roll back.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the database cannot be reached.
        """
        try:
            async with (
                asyncio.timeout(ANSWERS_WITHIN_SECONDS),
                _Session(self._engine, expire_on_commit=False) as session,
                session.begin(),
            ):
                yield session
        except (OperationalError, InterfaceError, PoolTimeoutError, TimeoutError) as error:
            raise unavailable() from error
        except InternalError as error:
            # A server that was made read-only, by a person or by a standby's takeover.
            if isinstance(error.orig, ReadOnlySqlTransaction):
                raise unavailable() from error
            raise

    @asynccontextmanager
    async def workspace(self, workspace_id: str) -> AsyncIterator[AsyncSession]:
        """Open one transaction that sees the rows of this workspace and no others."""
        async with self.transaction() as session:
            await act_in(session, workspace_id)
            yield session

    async def close(self) -> None:
        """Close every pooled connection."""
        await self._engine.dispose()


def unavailable() -> BulkheadError:
    """Return the typed failure for a database that does not answer."""
    return BulkheadError(
        Reason.DEPENDENCY_UNAVAILABLE,
        "The database does not answer. Try again in a few seconds; with the same Idempotency-Key, "
        "for what was asked may have been done.",
        metadata={"dependency": "postgresql"},
    )
