"""Who am I, and where: login, logout, whoami, version."""

import getpass
import importlib.metadata
import sys

import typer

from cli.client import ApiClient, JsonObject
from cli.configuration import Connection
from cli.errors import CliError, ExitCode
from cli.options import command
from cli.session import Session
from cli.text import clean, plural


def add_commands(app: typer.Typer) -> None:
    """Put these commands at the top level."""
    command(
        app,
        "login",
        examples=(
            "bulkhead login --url https://bulkhead.example.com",
            "bulkhead login --url https://10.0.0.5:8443 --ca-file ca.pem < token.txt",
        ),
    )(login)
    command(app, "logout", examples=("bulkhead logout",))(logout)
    command(app, "whoami", examples=("bulkhead whoami", "bulkhead whoami --json"))(whoami)
    command(app, "version", examples=("bulkhead version",))(version)


def login(session: Session) -> None:
    """Store an API token for an address, after the API has accepted it.

    The token is asked for, or read from standard input: an argument would be seen by every user
    of the machine. It is kept in a file that only you can read.
    """
    configuration = session.configuration
    address = configuration.resolve_url(session.wishes)
    token = _read_token(address.url)
    connection = Connection(
        url=address.url,
        token=token,
        ca_certificates=address.ca_certificates,
        source=str(configuration.login_file),
    )
    client = session.client_for(connection, None)
    try:
        workspaces = _workspaces_or_refuse(client)
    finally:
        client.close()
    configuration.store_login(connection)
    facts = {"url": connection.url, "workspaces": len(workspaces)}
    if session.output.as_json:
        session.output.data(facts)
        return
    session.output.say(
        ("✓ ", "green"),
        f"Logged in to {connection.url}; the token reaches {plural(len(workspaces), 'workspace')}.",
    )
    session.output.note((f"Stored in {configuration.login_file}", "dim"))


def logout(session: Session) -> None:
    """Forget the stored login. The token itself stays valid until it is revoked."""
    output = session.output
    forgotten = session.configuration.forget_login()
    if output.as_json:
        output.data({"logged_out": forgotten})
    elif forgotten:
        output.say("Logged out. The token is valid until it is revoked.")
        output.next_commands("bulkhead login --url URL")
    else:
        output.say("There was no stored login.")


def whoami(session: Session) -> None:
    """Show the address, where the token comes from, and the workspaces that it reaches."""
    connection = session.connection
    workspaces = session.workspaces
    chosen = session.client.workspace_id
    current = session.workspace_in_use
    facts: JsonObject = {
        "url": connection.url,
        "token_source": connection.source,
        "workspace_id": current["id"] if current else chosen,
        "workspaces": [{"id": entry["id"], "name": entry["name"]} for entry in workspaces],
    }
    if current is not None:
        shown = f"{clean(current['name'])} ({current['id']})"
    elif chosen is not None:
        shown = f"{chosen}, which this token does not reach"
    else:
        shown = "none yet"
    session.output.fields(
        facts,
        (
            ("API", connection.url),
            ("Token from", connection.source),
            ("Workspace", shown),
            ("Reaches", plural(len(workspaces), "workspace")),
        ),
    )


def version(session: Session) -> None:
    """Show the version of this client."""
    number = version_number()
    if session.output.as_json:
        session.output.data({"version": number})
    else:
        session.output.say(f"bulkhead {number}")


def version_number() -> str:
    """Return the installed version, or that there is none."""
    try:
        return importlib.metadata.version("bulkhead")
    except importlib.metadata.PackageNotFoundError:
        return "of a checkout that is not installed"


def _read_token(url: str) -> str:
    if sys.stdin.isatty():
        token = getpass.getpass(f"Token for {url} (not shown): ")
    else:
        token = sys.stdin.readline()
    token = token.strip()
    if not token:
        message = "No token was given: type it at the prompt, or send it to standard input."
        raise CliError(message, ExitCode.USAGE)
    if not token.isascii() or not token.isprintable() or " " in token:
        message = "This is no token: it has characters that a token cannot have."
        raise CliError(message, ExitCode.USAGE)
    return token


def _workspaces_or_refuse(client: ApiClient) -> list[JsonObject]:
    try:
        return client.read_list("/workspaces")
    except CliError as failure:
        if failure.exit_code is ExitCode.NOT_AUTHORISED:
            failure.message = f"{failure.message} Nothing was stored."
            failure.next_commands = (
                f"bulkhead login --url {client.connection.url}   (with another token)",
            )
        raise
