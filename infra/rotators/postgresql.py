"""Logins at a PostgreSQL server that a workspace names."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, LiteralString

import certifi
import psycopg
from psycopg import sql

from domain.errors import BulkheadError, Reason
from domain.secret import SecretValue
from infra.outbound import Outbound

# One statement is milliseconds; a server that hangs must not hold a step.
_CONNECTS_WITHIN_SECONDS: Final = 5
_ANSWERS_WITHIN_SECONDS: Final = 20.0

_VERIFIER: Final = b"scram-sha-256"
_CREDENTIAL_FIELDS: Final = frozenset({"username", "password"})

# After a password was asked for, these still say nothing about it: libpq's own words, and the
# server's about itself. A failed connection carries no SQLSTATE, so words are all there is.
_NOT_ABOUT_THE_PASSWORD: Final = (
    "server closed the connection",
    "could not receive data",
    "could not send data",
    "timeout expired",
    "too many connections",
    "too many clients",
    "connection slots are reserved",
    "starting up",
    "shutting down",
    "recovery mode",
)
_NO_SUCH_DATABASE: Final = ('database "', "does not exist")


class TlsMode(StrEnum):
    """How the connection is protected; without TLS only inside the operator's own networks."""

    VERIFY_FULL = "verify-full"
    DISABLE = "disable"


@dataclass(frozen=True, kw_only=True, slots=True)
class Credential:
    """A user's name and password. Never printed."""

    username: str
    password: str = field(repr=False)

    @classmethod
    def of(cls, value: SecretValue, what: str) -> "Credential":
        """Read a value: JSON with `username` and `password`, both text, and nothing else.

        Raises:
            BulkheadError: FAILED_PRECONDITION when it is something else.
        """
        try:
            found = json.loads(value.data)
        except (ValueError, RecursionError):
            found = None
        if (
            isinstance(found, dict)
            and found.keys() == _CREDENTIAL_FIELDS
            and all(isinstance(part, str) and _is_plain(part) for part in found.values())
        ):
            return cls(username=found["username"], password=found["password"])
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"{what} is no PostgreSQL login. It must be a JSON object with the two texts "
            "`username` and `password`; everything else is in the rotation's settings.",
        )

    def value(self) -> SecretValue:
        """Return it as it is stored."""
        return SecretValue.of_text(
            json.dumps({"username": self.username, "password": self.password})
        )


def _is_plain(text: str) -> bool:
    """Tell whether libpq takes a text: not empty, no NUL, and no half of a surrogate pair."""
    return 0 < len(text) == len(text.encode(errors="ignore").decode()) and "\0" not in text


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """Which server and database. `ca` is PEM; without it the public ones count."""

    host: str
    port: int
    database: str
    tls: TlsMode
    ca: str | None


class Session:
    """One connection. Errors of the driver, which may repeat a statement, never leave it."""

    def __init__(self, connection: psycopg.AsyncConnection) -> None:
        self._connection = connection

    async def row(self, query: LiteralString, *parameters: object) -> tuple[object, ...] | None:
        """Run a query and return its first row."""
        async with _typed_statement():
            cursor = await self._connection.execute(query, parameters)
            row: tuple[object, ...] | None = await cursor.fetchone()
            return row

    async def set_password(self, username: str, password: str) -> None:
        """Give a role a password. Only the verifier travels: it is what a server's log shows."""
        verifier = self._connection.pgconn.encrypt_password(
            password.encode(), username.encode(), _VERIFIER
        )
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(
            sql.Identifier(username), sql.Literal(verifier.decode())
        )
        async with _typed_statement():
            await self._connection.execute(statement)

    async def remove_password(self, username: str) -> None:
        """Leave a role without a password: no text is accepted."""
        statement = sql.SQL("ALTER ROLE {} PASSWORD NULL").format(sql.Identifier(username))
        async with _typed_statement():
            await self._connection.execute(statement)


@asynccontextmanager
async def connect(
    outbound: Outbound, server: Server, credential: Credential, whose: str
) -> AsyncIterator[Session]:
    """Log in.

    Args:
        outbound: decides about the address.
        server: where.
        credential: as whom.
        whose: what the credential is, for errors: "The current value".

    Raises:
        BulkheadError: CREDENTIAL_REJECTED when the server does not take it;
            DEPENDENCY_UNAVAILABLE when it cannot be reached; FAILED_PRECONDITION when the address
            is closed, or has no TLS and is not the operator's own.
    """
    addresses = await outbound.addresses_of(server.host, server.port)
    if server.tls is TlsMode.DISABLE and not all(map(outbound.is_operators_own, addresses)):
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "A connection without TLS is possible only inside a network that the operator allows "
            "(OUTBOUND__ALLOWED_NETWORKS of the worker, BULKHEAD_OUTBOUND_NETWORKS of an embedded "
            "stack). Set `tls` to `verify-full`.",
        )
    async with AsyncExitStack() as stack:
        connection = await _first_that_answers(addresses, server, credential, whose)
        stack.push_async_callback(connection.close)
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN_SECONDS):
                yield Session(connection)
        except TimeoutError:
            raise _unavailable() from None


async def is_accepted(outbound: Outbound, server: Server, credential: Credential) -> bool:
    """Tell whether the server takes a credential."""
    try:
        async with connect(outbound, server, credential, "The credential"):
            return True
    except BulkheadError as error:
        if error.reason is Reason.CREDENTIAL_REJECTED:
            return False
        raise


async def _first_that_answers(
    addresses: list[str], server: Server, credential: Credential, whose: str
) -> psycopg.AsyncConnection:
    last = _unavailable()
    for address in addresses:
        try:
            return await _connect_to(address, server, credential)
        except psycopg.Error as error:
            last = _typed_connection_failure(error, whose)
            if last.reason is not Reason.DEPENDENCY_UNAVAILABLE:
                break
    raise last from None


async def _connect_to(
    address: str, server: Server, credential: Credential
) -> psycopg.AsyncConnection:
    with _RootsFile(server) as roots:
        return await psycopg.AsyncConnection.connect(
            host=server.host,
            hostaddr=address,
            port=server.port,
            dbname=server.database,
            user=credential.username,
            password=credential.password,
            sslmode=server.tls.value,
            sslrootcert=roots,
            sslcertmode="disable",
            gssencmode="disable",
            # Otherwise a server could ask for the password itself, and get it.
            require_auth="scram-sha-256",
            connect_timeout=_CONNECTS_WITHIN_SECONDS,
            application_name="bulkhead-rotation",
            autocommit=True,
            prepare_threshold=None,
        )


class _RootsFile:
    """The name of a file with the roots that a server is checked against, while it is needed.

    libpq takes nothing but names of files; one in memory leaves nothing behind.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._descriptor: int | None = None

    def __enter__(self) -> str:
        if self._server.tls is TlsMode.DISABLE:
            return ""
        if self._server.ca is None:
            return certifi.where()
        self._descriptor = os.memfd_create("roots")
        os.write(self._descriptor, self._server.ca.encode())
        return f"/proc/self/fd/{self._descriptor}"

    def __exit__(self, *error: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


@asynccontextmanager
async def _typed_statement() -> AsyncIterator[None]:
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError):
        raise _unavailable() from None
    except psycopg.errors.InsufficientPrivilege:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "The administrator's login may not do its part of the rotation. It needs CREATEROLE, "
            "ADMIN OPTION on both users, and pg_signal_backend for `terminate_sessions`.",
        ) from None
    except psycopg.Error as error:
        code = error.sqlstate or "unknown"
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"PostgreSQL refused a statement of the rotation (SQLSTATE {code}).",
            metadata={"sqlstate": code},
        ) from None


def _typed_connection_failure(error: psycopg.Error, whose: str) -> BulkheadError:
    """Say what a failed connection means; its text names users and hosts, and stays here."""
    text = str(error)
    if all(part in text for part in _NO_SUCH_DATABASE):
        return BulkheadError(
            Reason.FAILED_PRECONDITION,
            "The PostgreSQL server has no such database. Correct the rotation's settings.",
        )
    asked = error.pgconn is not None and error.pgconn.used_password
    if asked and not any(words in text for words in _NOT_ABOUT_THE_PASSWORD):
        return BulkheadError(
            Reason.CREDENTIAL_REJECTED,
            f"{whose} is not accepted by PostgreSQL: the user may be missing, may not log in, or "
            "has another password.",
        )
    return _unavailable()


def _unavailable() -> BulkheadError:
    return BulkheadError(
        Reason.DEPENDENCY_UNAVAILABLE,
        "The PostgreSQL server of the rotation does not answer as a client needs it: it is down, "
        "its certificate does not fit, it asks for something other than SCRAM-SHA-256, or "
        "pg_hba.conf keeps us out.",
        metadata={"dependency": "postgresql_target"},
    )
