"""Two users of a real PostgreSQL server, and the administrator of their passwords."""

import contextlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from domain.identifiers import Prefix, new_id
from domain.rotation import Rotation
from domain.secret import SecretValue
from infra.rotators.postgresql_login import PostgresqlLogin
from tests.infra.rotators.rotations import KnownValues, loopback, new_rotation
from tests.servers import Servers

_names = itertools.count()

FIRST_PASSWORD = "canary-first-password"  # noqa: S105 - planted
OTHER_PASSWORD = "canary-other-password"  # noqa: S105 - the same
ADMINISTRATORS_PASSWORD = "canary-administrators-password"  # noqa: S105 - the same
CANARIES = (FIRST_PASSWORD, OTHER_PASSWORD, ADMINISTRATORS_PASSWORD)


@dataclass(frozen=True)
class Logins:
    """Users `a` and `b`; the secret's current value is `a`'s."""

    servers: Servers
    a: str
    b: str
    administrator: str
    powerful: str
    values: KnownValues
    settings: dict[str, Any]

    @property
    def rotator(self) -> PostgresqlLogin:
        return PostgresqlLogin(loopback(), self.values)

    @property
    def current(self) -> SecretValue:
        return login_value(self.a, FIRST_PASSWORD)

    def rotation(self, **settings: object) -> Rotation:
        """Begin a rotation, with these settings instead of the usual ones."""
        checked = PostgresqlLogin.check_settings(
            new_id(Prefix.SECRET), {**self.settings, **settings}
        )
        return new_rotation(checked)

    def accepts(self, value: SecretValue) -> bool:
        """Log in as any client of the database would."""
        try:
            self.connect(value).close()
        except psycopg.OperationalError:
            return False
        return True

    def connect(self, value: SecretValue) -> psycopg.Connection:
        """Return a connection of a user."""
        found = json.loads(value.data)
        return psycopg.connect(
            host="127.0.0.1",
            port=self.servers.database.port,
            dbname="postgres",
            user=found["username"],
            password=found["password"],
            autocommit=True,
        )


def login_value(username: str, password: str) -> SecretValue:
    """Return a login as the value of a secret."""
    return SecretValue.of_text(json.dumps({"username": username, "password": password}))


@contextlib.contextmanager
def two_logins(servers: Servers) -> Iterator[Logins]:
    """Make the users, one with a name that needs quotes, and remove them."""
    number = next(_names)
    a, b, administrator = f"rotated_a_{number}", f'Rotated "b" {number}', f"admin_{number}"
    powerful = f"powerful_{number}"
    users = {
        a: (FIRST_PASSWORD, sql.SQL("")),
        b: (OTHER_PASSWORD, sql.SQL("")),
        administrator: (ADMINISTRATORS_PASSWORD, sql.SQL("CREATEROLE")),
        powerful: (OTHER_PASSWORD, sql.SQL("SUPERUSER")),
    }
    with servers.administrator("postgres") as connection:
        try:
            for name, (password, powers) in users.items():
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} {}").format(
                        sql.Identifier(name), sql.Literal(password), powers
                    )
                )
            connection.execute(
                sql.SQL("GRANT {}, {} TO {} WITH ADMIN OPTION").format(
                    *map(sql.Identifier, (a, b, administrator))
                )
            )
            values = KnownValues()
            settings = {
                "host": "localhost",
                "port": servers.database.port,
                "tls": "disable",
                "user_a": a,
                "user_b": b,
                "admin_secret_id": values.add(
                    login_value(administrator, ADMINISTRATORS_PASSWORD).text()
                ),
            }
            yield Logins(servers, a, b, administrator, powerful, values, settings)
        finally:
            for name in users:
                connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))
