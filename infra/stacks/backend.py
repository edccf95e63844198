"""Where Pulumi keeps what it knows: tables of the platform's database, one a workspace.

A runner, and all that it starts, logs in as its workspace's role, which has that one table in a
schema of the same name, and nothing else: the engine insists on owning both. Each connection of a
runner carries its fence; a trigger of every table refuses what a runner writes that has lost its
stack (migration 0009).
"""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from psycopg import AsyncConnection
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.errors import BulkheadError, Reason
from domain.identifiers import opaque_part
from domain.stack import PROJECT
from infra.database.engine import RUNNER_PREFIX, Database, DatabaseRole
from infra.database.records.stack import StackLease
from infra.settings import DatabaseSettings

# Where states were before each workspace had a schema.
_OLD_SCHEMA: Final = "pulumi"
# Of Pulumi's deployments: the only one that it writes since 2018.
_CHECKPOINT_VERSION: Final = 3
# What marks a value that is not plain in a state: secrets, among others.
_MARK: Final = "4dabf18193072939515e22adb298388d"
_ROOT_TYPE: Final = "pulumi:pulumi:Stack"
# As the engine makes it, with the trigger.
_TABLE: Final = (
    """\
CREATE TABLE IF NOT EXISTS {table}.{table} (
    key text PRIMARY KEY,
    data json NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
)""",
    "CREATE INDEX IF NOT EXISTS {table}_key_prefix_idx ON {table}.{table} (key text_pattern_ops)",
    """\
CREATE OR REPLACE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON {table}.{table}
    FOR EACH ROW EXECUTE FUNCTION pulumi.check_fence()""",
    "ALTER TABLE {table}.{table} OWNER TO {role}",
)


@dataclass(frozen=True, slots=True)
class StackState:
    """What Pulumi knows of a stack.

    Attributes:
        resources: the provider's ids by logical name; only what exists for good: providers and
            what waits for its removal are not among them.
        outputs: the program's, without secrets.
        pending: how many calls to the provider had no answer when the engine ended.
        locks: how many runs say that they are at work, dead ones included.
        encryption_salt: of its passphrase.
    """

    resources: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    pending: int = 0
    locks: int = 0
    encryption_salt: str | None = None


class StateBackend:
    """The tables, as the role that owns them. One instance a process; close it at the end."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._database = Database(settings, DatabaseRole.STACKS)
        # The engine takes the path of its address, which is the database's name, for a folder.
        self._root = f"{settings.name}/.pulumi"

    async def close(self) -> None:
        """Close every pooled connection."""
        await self._database.close()

    def environment(self, workspace_id: str, fence: int) -> dict[str, str]:
        """Return what lets a run's processes read and write the states of a workspace.

        The address holds no password: Pulumi writes it into its files and prints it in errors.
        """
        role, table = role_of(workspace_id), table_of(workspace_id)
        options = {"sslmode": "prefer", "search_path": table, "table": table}
        host, settings = self._settings.host, self._settings
        if host.startswith("/"):
            options |= {"host": host, "port": str(settings.port)}
            address = f"{role}@"
        else:
            address = f"{role}@{quote(host)}:{settings.port}"
        return {
            "PULUMI_BACKEND_URL": f"postgres://{address}/{settings.name}?{urlencode(options)}",
            "PGPASSWORD": self._password(role),
            "PGOPTIONS": f"-c bulkhead.fence={fence}",
        }

    async def ensure_table(self, workspace_id: str) -> None:
        """Make a workspace's role, and its table as the engine would with the fence around it."""
        table, role = table_of(workspace_id), role_of(workspace_id)
        async with self._database.transaction() as session:
            # Also the lock of two runs of a new workspace that begin together.
            await session.execute(
                text("SELECT pulumi.ensure_runner(:workspace, :verifier)"),
                {"workspace": workspace_id, "verifier": await self._verifier(session, role)},
            )
            if await _exists(session, table):
                return
            await session.execute(text(f"CREATE SCHEMA IF NOT EXISTS {table} AUTHORIZATION {role}"))
            if await _is_there(session, f"{_OLD_SCHEMA}.{table}"):
                await session.execute(text(f"ALTER TABLE {_OLD_SCHEMA}.{table} SET SCHEMA {table}"))
            for statement in _TABLE:
                await session.execute(text(statement.format(table=table, role=role)))

    async def _verifier(self, session: AsyncSession, role: str) -> str:
        """Return the hash of a role's password: the server is not told more, and logs no more."""
        connection = await (await session.connection()).get_raw_connection()
        driver = connection.driver_connection
        assert isinstance(driver, AsyncConnection)  # noqa: S101 - for the type
        password = self._password(role).encode()
        return driver.pgconn.encrypt_password(password, role.encode(), b"scram-sha-256").decode()

    def _password(self, role: str) -> str:
        """Return the password of a workspace's role, which is kept nowhere."""
        key = Path(self._settings.passwords_dir, DatabaseRole.STACKS).read_text().strip()
        return hmac.new(key.encode(), role.encode(), hashlib.sha256).hexdigest()

    async def read(self, workspace_id: str, stack: str) -> StackState | None:
        """Return what is known of a stack, by Pulumi's name for it; None: nothing was ever made.

        Raises:
            BulkheadError: INTERNAL when the state is of a form that we do not know.
        """
        table = table_of(workspace_id)
        async with self._database.transaction() as session:
            if not await _exists(session, table):
                return None
            query = f"SELECT data->>'data' FROM {table}.{table} WHERE key = :key"  # noqa: S608
            key = f"{self._root}/stacks/{PROJECT}/{stack}.json"
            found = await session.execute(text(query), {"key": key})
            encoded: str | None = found.scalar_one_or_none()
            query = (
                f"SELECT count(*) FROM {table}.{table}"  # noqa: S608
                " WHERE starts_with(key, :prefix)"
            )
            prefix = f"{self._root}/locks/organization/{PROJECT}/{stack}/"
            locks: int = (await session.execute(text(query), {"prefix": prefix})).scalar_one()
        if encoded is None:
            return None
        return _parse(json.loads(base64.b64decode(encoded)), locks)

    async def remove(self, lease: StackLease, stack: str) -> None:
        """Remove all that is kept of a stack whose resources are gone: state, history, locks."""
        table = table_of(lease.workspace_id)
        await self.ensure_table(lease.workspace_id)
        async with self._fenced(lease) as session:
            query = f"DELETE FROM {table}.{table} WHERE strpos(key, :stack) > 0"  # noqa: S608
            await session.execute(text(query), {"stack": stack})

    @asynccontextmanager
    async def _fenced(self, lease: StackLease) -> AsyncIterator[AsyncSession]:
        async with self._database.transaction() as session:
            await session.execute(
                text("SELECT set_config('bulkhead.fence', :fence, true)"),
                {"fence": str(lease.fence)},
            )
            yield session


def table_of(workspace_id: str) -> str:
    """Return the name of the table with the states of a workspace, and of the schema it is in."""
    return f"state_{opaque_part(workspace_id)}"


def role_of(workspace_id: str) -> str:
    """Return the name of the role as which runs log in that act on a workspace's stacks."""
    return f"{RUNNER_PREFIX}{opaque_part(workspace_id)}"


async def _is_there(session: AsyncSession, table: str) -> bool:
    found = await session.execute(text("SELECT to_regclass(:table)"), {"table": table})
    return found.scalar_one() is not None


async def _exists(session: AsyncSession, table: str) -> bool:
    # With the trigger, which comes last: what a dead process left half-made is made again.
    query = text(
        "SELECT count(*) FROM pg_trigger WHERE tgname = 'fence' AND tgrelid = to_regclass(:table)"
    )
    found = await session.execute(query, {"table": f"{table}.{table}"})
    return bool(found.scalar_one())


def _parse(document: Mapping[str, Any], locks: int) -> StackState:
    if document.get("version") != _CHECKPOINT_VERSION:
        raise BulkheadError(
            Reason.INTERNAL,
            f"The state of a stack has the form {document.get('version')!r}; this version of"
            f" Bulkhead reads {_CHECKPOINT_VERSION}. Was it written by a newer Pulumi?",
            retryable=False,
        )
    latest: Mapping[str, Any] = document["checkpoint"].get("latest") or {}
    resources: list[Mapping[str, Any]] = latest.get("resources") or []
    root = next((one for one in resources if one["type"] == _ROOT_TYPE), {})
    secrets = (latest.get("secrets_providers") or {}).get("state") or {}
    return StackState(
        resources={
            logical_name_of(one["urn"]): one["id"]
            for one in resources
            if one.get("custom")
            and one.get("id")
            and not one.get("delete")
            and not one["type"].startswith("pulumi:")
        },
        outputs={
            name: value
            for name, value in (root.get("outputs") or {}).items()
            if not (isinstance(value, dict) and _MARK in value)
        },
        pending=len(latest.get("pending_operations") or ()),
        locks=locks,
        encryption_salt=secrets.get("salt"),
    )


def logical_name_of(urn: str) -> str:
    """Return the name that a program gave to a resource."""
    return urn.rsplit("::", maxsplit=1)[-1]
