"""Workspaces: the boundary of a customer."""

from http import HTTPStatus
from typing import Annotated

import typer

from cli.client import ApiClient, JsonObject, segment
from cli.completion import names_of
from cli.errors import ApiError, CliError, ExitCode
from cli.options import command
from cli.output import Column
from cli.session import WORKSPACE, Session, find_by_name, is_id
from cli.text import age, clean, moment

app = typer.Typer(help="Workspaces: the boundary of a customer.", no_args_is_help=True)

_COLUMNS = (
    Column("NAME", "name"),
    Column("SLUG", "slug"),
    Column("AGE", "age"),
    Column("ID", "id", minor=True),
    Column("IN USE", "in_use"),
)

_WORKSPACE_ARGUMENT = typer.Argument(
    metavar="WORKSPACE", help="Id, name or slug.", autocompletion=names_of(WORKSPACE)
)
WorkspaceArgument = Annotated[str, _WORKSPACE_ARGUMENT]


@command(
    app,
    "list",
    examples=("bulkhead workspaces list", "bulkhead workspaces list --json | jq -r '.[].id'"),
)
def list_workspaces(session: Session) -> None:
    """List the workspaces that the token reaches."""
    entries = session.workspaces
    if not session.output.as_json:
        in_use = session.workspace_in_use
        used = None if in_use is None else in_use["id"]
        entries = [
            {
                **entry,
                "age": age(entry["created_at"]),
                "in_use": "*" if entry["id"] == used else " ",
            }
            for entry in entries
        ]
    empty = ("No workspaces yet. Create one:", "  bulkhead workspaces create NAME")
    session.output.listing(entries, _COLUMNS, empty)


@command(
    app,
    "create",
    examples=(
        "bulkhead workspaces create acme",
        "bulkhead workspaces create 'ACME Ltd' --slug acme",
    ),
)
def create_workspace(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 100 characters.")],
    slug: Annotated[
        str | None, typer.Option(help="3 to 39 characters; made from the name by default.")
    ] = None,
) -> None:
    """Create a workspace. It is not chosen by that: `workspaces use` does."""
    body = {"name": name} | ({"slug": slug} if slug is not None else {})
    workspace = create_in(session.account, body)
    if session.output.as_json:
        session.output.data(workspace)
        return
    session.output.say(("✓ ", "green"), f"Workspace {clean(workspace['name'])} ({workspace['id']})")
    session.output.next_commands(f"bulkhead workspaces use {clean(workspace['slug'])}")


@command(app, "get", examples=("bulkhead workspaces get acme",))
def get_workspace(session: Session, workspace: WorkspaceArgument) -> None:
    """Show a workspace."""
    _show(session, read_workspace(session, workspace))


@command(
    app,
    "update",
    examples=("bulkhead workspaces update acme --name 'ACME International'",),
)
def update_workspace(
    session: Session,
    workspace: WorkspaceArgument,
    name: Annotated[str | None, typer.Option(help="The new name.")] = None,
    slug: Annotated[str | None, typer.Option(help="The new slug.")] = None,
) -> None:
    """Rename a workspace or change its slug."""
    body = {key: value for key, value in (("name", name), ("slug", slug)) if value is not None}
    if not body:
        message = "Nothing to change: give --name or --slug."
        raise CliError(message, ExitCode.USAGE)
    current = read_workspace(session, workspace)
    path = f"/workspaces/{segment(current['id'])}"
    _show(session, session.account.change("PATCH", path, etag=current["etag"], body=body))


@command(
    app,
    "use",
    examples=("bulkhead workspaces use acme", "bulkhead workspaces use --none"),
)
def use_workspace(
    session: Session,
    workspace: Annotated[str | None, _WORKSPACE_ARGUMENT] = None,
    none: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool, typer.Option("--none", help="Forget the choice; the token's own workspace is used.")
    ] = False,
) -> None:
    """Remember a workspace: every later command at this address acts in it."""
    if none == (workspace is not None):
        message = "Give a workspace, or --none."
        raise CliError(message, ExitCode.USAGE)
    chosen = None if workspace is None else read_workspace(session, workspace)
    url = session.connection.url
    session.configuration.remember_workspace(url, None if chosen is None else chosen["id"])
    if session.output.as_json:
        session.output.data({"url": url, "workspace_id": chosen["id"] if chosen else None})
    elif chosen is None:
        session.output.say("No workspace is chosen any more: the token's own is used.")
    else:
        session.output.say(("✓ ", "green"), f"Using workspace {clean(chosen['name'])} at {url}")


def create_in(account: ApiClient, body: JsonObject) -> JsonObject:
    """Create a workspace.

    The API keeps idempotency keys in a workspace, so a user's very first create has none: it is
    refused before it has any effect, and goes again without a key.
    """
    try:
        return account.create("/workspaces", body)
    except ApiError as error:
        if error.status != HTTPStatus.BAD_REQUEST or "akua-context" not in error.faults[0].path:
            raise
        return account.create("/workspaces", body, once=False)


def read_workspace(session: Session, workspace: str) -> JsonObject:
    """Read a workspace by its id, name or slug.

    Raises:
        CliError: the token reaches none that is called so, or several.
    """
    if is_id(WORKSPACE, workspace):
        return session.account.get(f"/workspaces/{segment(workspace)}")
    return find_by_name(session.account, WORKSPACE, workspace)


def _show(session: Session, workspace: JsonObject) -> None:
    session.output.fields(
        workspace,
        (
            ("Name", workspace["name"]),
            ("Slug", workspace["slug"]),
            ("Id", workspace["id"]),
            ("Class", workspace.get("workspace_class")),
            ("Logs", "read by admins" if workspace.get("install_logs_enabled") else "off"),
            ("Plan", (workspace.get("plan") or {}).get("tier")),
            ("Created", moment(workspace["created_at"])),
            ("Updated", moment(workspace["updated_at"])),
        ),
    )
