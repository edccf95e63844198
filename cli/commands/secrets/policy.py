"""The workspace's policy for its secrets."""

from typing import Annotated

import typer

from cli.client import JsonObject, segment
from cli.errors import CliError, ExitCode
from cli.options import command
from cli.session import Session

policy_app = typer.Typer(help="What the workspace allows with its secrets.", no_args_is_help=True)


@command(policy_app, "show", examples=("bulkhead secrets policy show",))
def show_policy(session: Session) -> None:
    """Show what the workspace allows with its secrets."""
    _show(session, session.client.get(_path(session)))


@command(
    policy_app,
    "set",
    examples=(
        "bulkhead secrets policy set --allow-force",
        "bulkhead secrets policy set --refuse-force --accesses-per-minute 60",
    ),
)
def set_policy(
    session: Session,
    force_allowed: Annotated[
        bool | None,
        typer.Option(
            "--allow-force/--refuse-force",
            help="Whether --force may disable, destroy or delete what is in use.",
        ),
    ] = None,
    accesses_per_minute: Annotated[
        int | None, typer.Option(min=1, help="How often one secret may be read.")
    ] = None,
) -> None:
    """Change what the workspace allows with its secrets; only an owner may."""
    given = {"force_allowed": force_allowed, "accesses_per_minute": accesses_per_minute}
    body: JsonObject = {field: value for field, value in given.items() if value is not None}
    if not body:
        message = "Nothing to change: give --allow-force, --refuse-force or --accesses-per-minute."
        raise CliError(message, ExitCode.USAGE)
    path = _path(session)
    etag = session.client.get(path)["etag"]
    _show(session, session.client.change("PATCH", path, etag=etag, body=body))


def _path(session: Session) -> str:
    workspace = session.workspace_in_use
    if workspace is None:
        message = "There is no workspace in use, or this token does not reach it."
        raise CliError(
            message, ExitCode.NOT_FOUND, next_commands=("bulkhead workspaces use WORKSPACE",)
        )
    return f"/workspaces/{segment(workspace['id'])}/secret_policy"


def _show(session: Session, policy: JsonObject) -> None:
    session.output.fields(
        policy,
        (
            ("--force", "allowed" if policy["force_allowed"] else "refused"),
            ("Accesses", f"{policy['accesses_per_minute']} a minute for each secret"),
        ),
    )
