"""Whether the logs of a workspace's installs may be read through the platform."""

import typer

from cli.client import JsonObject, segment
from cli.commands.workspaces import WorkspaceArgument, read_workspace
from cli.options import command
from cli.session import Session
from cli.text import clean

app = typer.Typer(
    help="Logs of installs: off until an owner lets them be read.", no_args_is_help=True
)


@command(app, "enable", examples=("bulkhead workspaces logs enable acme",))
def enable_logs(session: Session, workspace: WorkspaceArgument) -> None:
    """Let admins read the logs of the workspace's installs, which may carry secrets.

    The platform passes them on as they are, and stores none of them.
    """
    changed = _set(session, workspace, enabled=True)
    if session.output.as_json:
        session.output.data(changed)
        return
    session.output.say(("✓ ", "green"), f"Logs of {clean(changed['name'])} may be read by admins.")
    warning = clean(changed.get("install_logs_warning"))
    if warning:
        session.output.say((f"! {warning}", "yellow"))
    slug = clean(changed["slug"])
    session.output.next_commands(f"bulkhead installs logs INSTALL -f --workspace {slug}")


@command(app, "disable", examples=("bulkhead workspaces logs disable acme",))
def disable_logs(session: Session, workspace: WorkspaceArgument) -> None:
    """Let nobody read logs of the workspace's installs; open streams end."""
    changed = _set(session, workspace, enabled=False)
    if session.output.as_json:
        session.output.data(changed)
    else:
        session.output.say(("✓ ", "green"), f"Logs of {clean(changed['name'])} are off.")


def _set(session: Session, workspace: str, *, enabled: bool) -> JsonObject:
    current = read_workspace(session, workspace)
    path = f"/workspaces/{segment(current['id'])}"
    body = {"install_logs_enabled": enabled}
    return session.account.change("PATCH", path, etag=current["etag"], body=body)
