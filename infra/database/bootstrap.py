"""Makes the roles and the database on a fresh PostgreSQL, and brings it to the newest migration.

Runs as an administrator of the server, once per installation and again at every upgrade; every
statement may be repeated.
"""

import secrets
from pathlib import Path
from typing import LiteralString

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import sql

from infra.database.engine import ROLE_MAKER, RUNNERS, DatabaseRole, url_of
from infra.settings import DatabaseSettings

# Owns the SECURITY DEFINER functions. Nobody can log in as it; policies of its own let exactly
# those functions see across workspaces, so that no role needs to bypass row-level security.
DEFINER = "bulkhead_definer"


def ensure_password_files(directory: Path) -> None:
    """Write a random password for each role that has none yet, readable by us alone."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for role in DatabaseRole:
        path = directory / role
        # Empty: a crash came between the two calls.
        if not path.exists() or not path.stat().st_size:
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(32))


def bootstrap(administrator: psycopg.Connection, settings: DatabaseSettings) -> None:
    """Make roles and database, then migrate. The connection must be in autocommit mode."""
    roles = [(role.value, Path(settings.passwords_dir, role).read_text()) for role in DatabaseRole]
    with administrator.cursor() as cursor:
        for name, password in [(DEFINER, None), (RUNNERS, None), (ROLE_MAKER, None), *roles]:
            _ensure_role(cursor, name, password)
        _grant(cursor, DEFINER, DatabaseRole.OWNER, "INHERIT TRUE")
        # Which gives it its function.
        _grant(cursor, ROLE_MAKER, DatabaseRole.OWNER, "INHERIT FALSE, SET TRUE")
        _grant(cursor, RUNNERS, ROLE_MAKER, "ADMIN TRUE, INHERIT FALSE, SET FALSE")
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (settings.name,))
        if cursor.fetchone() is None:
            cursor.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(
                    sql.Identifier(settings.name), sql.Identifier(DatabaseRole.OWNER)
                )
            )
        cursor.execute(
            sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(settings.name))
        )
        for role in (RUNNERS, *DatabaseRole):
            cursor.execute(
                sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(
                    sql.Identifier(settings.name), sql.Identifier(role)
                )
            )
        # A schema of its own for each workspace's states.
        cursor.execute(
            sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(
                sql.Identifier(settings.name), sql.Identifier(DatabaseRole.STACKS)
            )
        )
    migrate(settings)


def ensure_runner_role(administrator: psycopg.Connection, role: str) -> None:
    """Make the role of a workspace's runs, as `pulumi.ensure_runner` does, for what it owns.

    Nobody can log in as it before it is used.
    """
    with administrator.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
        if cursor.fetchone() is not None:
            return
        cursor.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
        _grant(cursor, RUNNERS, role, "INHERIT TRUE, SET FALSE")
        _grant(cursor, role, DatabaseRole.STACKS, "INHERIT TRUE, SET TRUE")
        _grant(cursor, role, ROLE_MAKER, "ADMIN TRUE, INHERIT FALSE, SET FALSE")


def migrate(settings: DatabaseSettings) -> None:
    """Bring the database to the newest migration, as its owner."""
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    configuration.attributes["url"] = url_of(settings, DatabaseRole.OWNER)
    command.upgrade(configuration, "head")


def _grant(cursor: psycopg.Cursor, group: str, member: str, options: LiteralString) -> None:
    cursor.execute(
        sql.SQL("GRANT {} TO {} WITH " + options).format(
            sql.Identifier(group), sql.Identifier(member)
        )
    )


def _ensure_role(cursor: psycopg.Cursor, name: str, password: str | None) -> None:
    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
    verb = "ALTER" if cursor.fetchone() else "CREATE"
    login = (
        sql.SQL("NOLOGIN") if password is None else sql.SQL("LOGIN PASSWORD {}").format(password)
    )
    # Since PostgreSQL 16 it reaches no role but those that it made.
    makes_roles = "CREATEROLE" if name == ROLE_MAKER else "NOCREATEROLE"
    cursor.execute(
        sql.SQL(f"{verb} ROLE {{}} NOSUPERUSER NOBYPASSRLS {makes_roles} {{}}").format(
            sql.Identifier(name), login
        )
    )
