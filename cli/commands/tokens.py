"""API tokens: credentials of a workspace."""

import time
from enum import StrEnum
from typing import Annotated

import typer

from cli.arguments import seconds_of
from cli.client import JsonObject, segment
from cli.errors import CliError
from cli.options import command
from cli.output import Column
from cli.session import TOKEN, Session
from cli.text import age, clean, moment


class TokenScope(StrEnum):
    """What a token may do with secrets."""

    READ = "secrets:read"
    WRITE = "secrets:write"
    ACCESS = "secrets:access"


app = typer.Typer(help="API tokens: credentials of a workspace.", no_args_is_help=True)

_COLUMNS = (
    Column("NAME", "name"),
    Column("PREFIX", "prefix"),
    Column("AGE", "age"),
    Column("LAST USED", "used"),
    Column("EXPIRES", "expires"),
    Column("SCOPES", "may", wraps=True),
    Column("ID", "id", minor=True),
)


@command(
    app,
    "create",
    examples=(
        "bulkhead tokens create ci --expires-in 30d",
        "bulkhead tokens create backup --json | jq -r .token > token.txt",
        "bulkhead tokens create deploy --scope secrets:read --scope secrets:access",
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
    scope: Annotated[
        list[TokenScope] | None,
        typer.Option(
            help="What it may do with secrets, given once for each; none implies another. Only "
            "an owner gives them. Without: nothing. In all else every token acts as an admin.",
        ),
    ] = None,
) -> None:
    """Create an API token. Its value is shown once, now, and never again."""
    body: JsonObject = {"name": name}
    if expires_in is not None:
        body["expires_at"] = int(time.time()) + seconds_of(expires_in, "--expires-in")
    if scope:
        body["scopes"] = sorted({str(one) for one in scope})
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
                "may": " ".join(entry.get("scopes") or ()),
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
