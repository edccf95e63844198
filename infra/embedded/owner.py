"""The first owner, their token, and the file that tells both to the terminal client."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from domain.identifiers import Prefix, new_id
from domain.tokens import TokenKind, hash_of, is_well_formed, new_token
from infra.database.engine import DatabaseRole
from infra.embedded.home import Home
from infra.settings import DatabaseSettings
from infra.supervisor.files import write_atomically

_URL = "BULKHEAD_API_URL"
_TOKEN = "BULKHEAD_API_TOKEN"  # noqa: S105 - the name of a variable
_CA_FILE = "BULKHEAD_CA_FILE"


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """The first owner's token; `is_new` when this call made it."""

    token: str
    is_new: bool


def ensure_owner(
    home: Home, settings: DatabaseSettings, administrator: psycopg.Connection, api_url: str
) -> Owner:
    """Make the first owner unless there is one, and keep address and token in the owner's file.

    The file is written before the token becomes valid, so that no crash loses it. When the file is
    gone, or from another stack, the first user gets another token: whoever could read the file
    may do that, and the hash in the database gives the lost one not back.

    Args:
        home: the stack's home.
        settings: the stack's database.
        administrator: an administrator's connection to that database.
        api_url: where the API answers without TLS.
    """
    token = _read_token(home.owner_file)
    if token is None or not _is_known(administrator, token):
        token = token or new_token(TokenKind.USER)
        write_login(home.owner_file, home, token, api_url)
        if not _create_first_owner(settings, token):
            _issue_again(administrator, token)
        return Owner(token=token, is_new=True)
    write_login(home.owner_file, home, token, api_url)
    return Owner(token=token, is_new=False)


def write_login(path: Path, home: Home, token: str, api_url: str) -> None:
    """Write a file that tells address and token to the terminal client; only we can read it."""
    content = {_URL: api_url, _TOKEN: token, _CA_FILE: str(home.ca_file)}
    write_atomically(
        path, "".join(f"{name}={shlex.quote(value)}\n" for name, value in content.items())
    )


@contextmanager
def connected(settings: DatabaseSettings) -> Iterator[psycopg.Connection]:
    """Open a transaction as the database's owner, who alone may make users."""
    password = Path(settings.passwords_dir, DatabaseRole.OWNER).read_text().strip()
    with psycopg.connect(
        host=settings.host,
        port=settings.port,
        user=DatabaseRole.OWNER,
        password=password,
        dbname=settings.name,
    ) as connection:
        yield connection


def _read_token(path: Path) -> str | None:
    if not path.exists():
        return None
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition("=")
        if name == _TOKEN and is_well_formed(value):
            return value
    return None


def _create_first_owner(settings: DatabaseSettings, token: str) -> bool:
    with connected(settings) as connection:
        row = connection.execute(
            "SELECT create_first_owner(%s, %s, %s, %s, %s, %s, %s)",
            (
                new_id(Prefix.USER),
                "Default",
                new_id(Prefix.WORKSPACE),
                "default",
                new_id(Prefix.MEMBER),
                new_id(Prefix.API_TOKEN),
                hash_of(token),
            ),
        ).fetchone()
    return bool(row and row[0])


def _is_known(administrator: psycopg.Connection, token: str) -> bool:
    row = administrator.execute(
        "SELECT 1 FROM user_tokens WHERE token_hash = %s", (hash_of(token),)
    ).fetchone()
    return row is not None


def _issue_again(administrator: psycopg.Connection, token: str) -> None:
    administrator.execute(
        "INSERT INTO user_tokens (id, user_id, name, token_hash) "
        "SELECT %s, id, 'first owner, issued again', %s FROM users ORDER BY id LIMIT 1",
        (new_id(Prefix.API_TOKEN), hash_of(token)),
    )
