"""Saves the platform's database into a file, and puts it back in one step."""

import re
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from infra.database.bootstrap import ensure_runner_role
from infra.database.engine import RUNNER_PREFIX, DatabaseRole
from infra.embedded.postgresql import PostgreSQL
from infra.secret_store.taken_away import REVOKED_TOKENS

# Beside the database itself: what is being loaded, and what it replaced.
_LOADED: Final = "_restored"
_REPLACED: Final = "_replaced"

# The last word of a line: who owns it.
_RUNNER: Final = re.compile(rf" ({RUNNER_PREFIX}[0-9a-f]{{32}})$", re.MULTILINE)

_LEDGERS: Final = ("audit_events", "secret_tombstones")


def save_database(postgresql: PostgreSQL, name: str, file: Path) -> None:
    """Write a consistent copy into an existing private file, while everything goes on."""
    postgresql.run_client("pg_dump", "--format=custom", f"--file={file}", f"--dbname={name}")


def load_database(postgresql: PostgreSQL, name: str, file: Path) -> None:
    """Put a copy in the database's place; its roles exist, or are those of workspaces' runs.

    What was replaced first is kept beside it until `forget_replaced`, also when this is repeated.
    """
    loaded = f"{name}{_LOADED}"
    listed = postgresql.run_client("pg_restore", "--list", str(file))
    with postgresql.connect() as administrator:
        for role in sorted(set(_RUNNER.findall(listed))):
            ensure_runner_role(administrator, role)
        _drop(administrator, loaded)
        administrator.execute(
            sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0").format(
                sql.Identifier(loaded), sql.Identifier(DatabaseRole.OWNER)
            )
        )
    postgresql.run_client(
        "pg_restore",
        "--exit-on-error",
        "--single-transaction",
        f"--dbname={loaded}",
        str(file),
    )
    with postgresql.connect() as administrator:
        if _exists(administrator, f"{name}{_REPLACED}"):
            _drop(administrator, name)
        _end_sessions(administrator, name, loaded)
        with administrator.transaction():
            if _exists(administrator, name):
                _rename(administrator, name, f"{name}{_REPLACED}")
            _rename(administrator, loaded, name)


def keep_ledgers(postgresql: PostgreSQL, name: str) -> int:
    """Copy what only ever grows from the replaced database, and return how many rows were missing.

    What was purged after the copy was made shall not come back to life with it, and what was done
    since is not undone in the audit log. Rows of workspaces that the copy does not know are left.
    Both databases are at the newest migration.
    """
    with postgresql.connect() as administrator:
        if not _exists(administrator, f"{name}{_REPLACED}"):
            return 0
    with (
        postgresql.connect(f"{name}{_REPLACED}") as replaced,
        postgresql.connect(name) as database,
    ):
        return sum(_keep(replaced, database, table) for table in _LEDGERS)


def _keep(replaced: psycopg.Connection, database: psycopg.Connection, table: str) -> int:
    source = sql.SQL("SELECT to_jsonb(t)::text FROM {} t").format(sql.Identifier(table))
    target = sql.SQL(
        "INSERT INTO {0} SELECT t.* FROM jsonb_populate_record(NULL::{0}, %s::jsonb) t "
        "WHERE EXISTS (SELECT FROM workspaces w WHERE w.id = t.workspace_id) "
        "ON CONFLICT DO NOTHING"
    ).format(sql.Identifier(table))
    with database.transaction(), replaced.cursor() as rows, database.cursor() as cursor:
        cursor.executemany(target, rows.stream(source))
        return cursor.rowcount


def revoke_again(postgresql: PostgreSQL, name: str) -> None:
    """Remove the tokens that were revoked since the copy was made, as the audit log says.

    The API takes a token without asking anything else, so that this comes before it starts.
    """
    with postgresql.connect(name) as database:
        database.execute(REVOKED_TOKENS)


def forget_replaced(postgresql: PostgreSQL, name: str) -> None:
    """Remove the database that was replaced, for good."""
    with postgresql.connect() as administrator:
        _drop(administrator, f"{name}{_REPLACED}")


def _exists(administrator: psycopg.Connection, name: str) -> bool:
    found = administrator.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
    return found.fetchone() is not None


def _drop(administrator: psycopg.Connection, name: str) -> None:
    administrator.execute(
        sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    )


def _rename(administrator: psycopg.Connection, name: str, to: str) -> None:
    administrator.execute(
        sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(name), sql.Identifier(to))
    )


def _end_sessions(administrator: psycopg.Connection, *names: str) -> None:
    administrator.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = ANY(%s)",
        (list(names),),
    )
