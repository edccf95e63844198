"""API tokens: credentials of a workspace."""

import re
import time
from typing import Annotated

import typer

from cli.client import segment
from cli.errors import CliError, ExitCode
from cli.options import command
from cli.output import Column
from cli.session import TOKEN, Session
from cli.text import age, clean, moment

app = typer.Typer(help="API tokens: credentials of a workspace.", no_args_is_help=True)

_COLUMNS = (
    Column("NAME", "name"),
    Column("PREFIX", "prefix"),
    Column("AGE", "age"),
    Column("LAST USED", "used"),
    Column("EXPIRES", "expires"),
    Column("ID", "id"),
)

_LIFETIME = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@command(
    app,
    "create",
    examples=(
        "bulkhead tokens create ci --expires-in 30d",
        "bulkhead tokens create backup --json | jq -r .token > token.txt",
    ),
)
def create_token(
    session: Session,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What it is for; 1 to 100 characters.")
    ],
    expires_in: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="For example 12h or 30d; without it, it never expires."),
    ] = None,
) -> None:
    """Create an API token. Its value is shown once, now, and never again."""
    expires_at = None if expires_in is None else int(time.time()) + lifetime_seconds(expires_in)
    body = {"name": name} | ({"expires_at": expires_at} if expires_at is not None else {})
    token = session.client.create("/api_tokens", body)
    output = session.output
    if output.as_json:
        output.data(token)
    elif token.get("token"):
        output.note(f"Token {clean(name)} ({token['id']}); keep it, it is not shown again:")
        output.say(clean(token["token"]), copied=True)
    else:
        # The first answer was lost on the way, and the value is only ever told once.
        message = f"The token {token['id']} exists, but its value was lost on the way."
        raise CliError(message, next_commands=(f"bulkhead tokens revoke {token['id']}",))


@command(app, "list", examples=("bulkhead tokens list",))
def list_tokens(session: Session) -> None:
    """List the API tokens of the workspace; their values are never shown."""
    entries = session.client.read_list("/api_tokens")
    if not session.output.as_json:
        entries = [
            {
                **entry,
                "age": age(entry["created_at"]),
                "used": age(entry["last_used_at"]),
                "expires": moment(entry["expires_at"], missing="never"),
            }
            for entry in entries
        ]
    session.show_list(
        "API tokens", entries, _COLUMNS, "bulkhead tokens create NAME --expires-in 30d"
    )


@command(app, "revoke", examples=("bulkhead tokens revoke ci",))
def revoke_token(
    session: Session,
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="Id or name; never the value.")],
) -> None:
    """Revoke an API token; it stops working at once."""
    token_id = session.id_of(TOKEN, token)
    session.client.change("DELETE", f"/api_tokens/{segment(token_id)}")
    if session.output.as_json:
        session.output.data({"id": token_id, "revoked": True})
    else:
        session.output.say(("✓ ", "green"), f"Token {clean(token)} is revoked.")


def lifetime_seconds(text: str) -> int:
    """Return the seconds that `45m`, `12h` or `30d` stand for.

    Raises:
        CliError: it is written in another way.
    """
    match = _LIFETIME.fullmatch(text)
    if match is None:
        message = f"{text!r} is no time: write a number and s, m, h or d, for example 30d."
        raise CliError(message, ExitCode.USAGE)
    return int(match[1]) * _UNIT_SECONDS[match[2]]
