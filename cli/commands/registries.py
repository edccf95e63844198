"""Registry connections: how charts of private registries are read."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cli.client import JsonObject, segment
from cli.commands.secrets.values import read_line
from cli.completion import names_of
from cli.confirmation import confirm_by_name
from cli.errors import CliError, ExitCode
from cli.options import YesOption, command
from cli.output import Column
from cli.session import REGISTRY, Session, find_by_name
from cli.text import age, clean

app = typer.Typer(help="Registries: how charts that are not public are read.", no_args_is_help=True)

_COLUMNS = (
    Column("NAME", "name"),
    Column("ADDRESS", "registry_url"),
    Column("TYPE", "type"),
    Column("USED", "used"),
    Column("AGE", "age"),
    Column("ID", "id", minor=True),
)


@command(
    app,
    "create",
    examples=(
        "bulkhead registries create acme oci://registry.example.com/acme --username ci < token.txt",
        "bulkhead registries create internal https://registry.example.com --token",
    ),
)
def create_registry(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 100 characters.")],
    address: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="Whatever begins with it is read so.")
    ],
    username: Annotated[
        str | None, typer.Option(metavar="NAME", help="The password comes from standard input.")
    ] = None,
    token: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool, typer.Option("--token", help="A bearer token comes from standard input.")
    ] = False,
    client_id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Of OAuth; the client's secret comes from standard input."),
    ] = None,
    token_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where OAuth's token is asked for.")
    ] = None,
    credential_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read the credential from there instead.")
    ] = None,
) -> None:
    """Store how a registry is read. The credential is never an argument, and is kept as a secret.

    It comes from a file, from standard input or from a hidden prompt.
    """
    if sum((username is not None, token, client_id is not None)) != 1:
        message = "Say who asks: --username NAME, --token, or --client-id ID with --token-url URL."
        raise CliError(message, ExitCode.USAGE)
    if (client_id is None) != (token_url is None):
        message = "--client-id and --token-url go together."
        raise CliError(message, ExitCode.USAGE)
    body: JsonObject = {"name": name, "registry_url": address}
    body |= _how_it_is_read(_credential(credential_file), username, client_id, token_url)
    made = session.client.create("/registry_connections", body)
    # The contract answers a create with nothing.
    made = made or find_by_name(session.client, REGISTRY, name)
    if session.output.as_json:
        session.output.data(made)
        return
    session.output.say(("✓ ", "green"), f"Registry {clean(name)} ({made['id']})")
    session.output.next_commands(
        f"bulkhead packages create NAME {shlex.quote(_reference(address))}/CHART --revision VERSION"
    )


def _how_it_is_read(
    value: str, username: str | None, client_id: str | None, token_url: str | None
) -> JsonObject:
    """Return the type and the credentials of a connection; without a name it is a bearer token."""
    if username is not None:
        return {"type": "basic", "credentials": {"username": username, "password": value}}
    if client_id is not None:
        told = {"client_id": client_id, "client_secret": value, "token_url": token_url}
        return {"type": "oauth", "credentials": told}
    return {"type": "token", "credentials": {"token": value}}


@command(app, "list", examples=("bulkhead registries list",))
def list_registries(session: Session) -> None:
    """List the registries that the workspace can read; never a credential."""
    entries = session.client.read_list("/registry_connections")
    if not session.output.as_json:
        entries = [
            {**entry, "age": age(entry["created_at"]), "used": age(entry.get("last_used_at"))}
            for entry in entries
        ]
    session.show_list("registries", entries, _COLUMNS, "bulkhead registries create NAME ADDRESS")


@command(app, "delete", examples=("bulkhead registries delete acme --yes",))
def delete_registry(
    session: Session,
    registry: Annotated[
        str,
        typer.Argument(
            metavar="REGISTRY", help="Id or exact name.", autocompletion=names_of(REGISTRY)
        ),
    ],
    yes: YesOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Forget how a registry is read, and delete its credential."""
    registry_id = session.id_of(REGISTRY, registry)
    name = clean(registry)
    if not yes:
        effect = f"Charts of {name} that need its credential can no longer be read."
        confirm_by_name(session, name, doing="deleting", effect=effect, done="deleted")
    session.client.change("DELETE", f"/registry_connections/{segment(registry_id)}")
    if session.output.as_json:
        session.output.data({"id": registry_id, "deleted": True})
    else:
        session.output.say(("✓ ", "green"), f"Registry {name} is deleted.")


def _reference(address: str) -> str:
    place = clean(address).rstrip("/")
    return place if "://" in place else f"oci://{place}"


def _credential(file: Path | None) -> str:
    if file is None:
        return read_line("Credential")
    try:
        text = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        message = f"Cannot read {file}: {getattr(error, 'strerror', None) or 'it is no text'}."
        raise CliError(message, ExitCode.USAGE) from error
    if not text:
        message = f"{file} is empty: it should have the credential."
        raise CliError(message, ExitCode.USAGE)
    return text
