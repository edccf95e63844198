"""Logs of an install's pods, as they come."""

import shlex
from typing import Annotated

import typer

from cli.arguments import seconds_of
from cli.client import NO_RETRY, JsonObject
from cli.commands.installs.group import (
    InstallArgument,
    app,
    install_called,
    path_of,
    typed_name,
)
from cli.errors import ApiError
from cli.log_stream import log_entries
from cli.names import title_of
from cli.options import command
from cli.session import Session
from cli.text import clean

_STYLES = ("cyan", "magenta", "blue", "green", "yellow")


@command(
    app,
    "logs",
    examples=(
        "bulkhead installs logs shop-eu -f",
        "bulkhead installs logs shop-eu --pod web-0 --tail 100",
    ),
)
def show_logs(
    session: Session,
    install: InstallArgument,
    follow: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")
    ] = False,
    pod: Annotated[
        str | None, typer.Option(metavar="POD", help="Of `bulkhead installs pods`; else of all.")
    ] = None,
    container: Annotated[str | None, typer.Option(metavar="NAME", help="Of this one only.")] = None,
    tail: Annotated[
        int | None, typer.Option(min=1, help="As many of the last lines of each container.")
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Such as 10m or 2h.")] = None,
) -> None:
    """Print what the pods of an install log; never stored by the platform.

    Logs may carry secrets. An owner has to let them be read: `bulkhead workspaces logs enable`.
    """
    options: JsonObject = {
        "pod": pod,
        "container": container,
        "tail": tail,
        "since_seconds": None if since is None else seconds_of(since, "--since", "10m"),
    }
    found = install_called(session, install)
    if follow and _has_no_pods(session, found):
        session.output.note(f"{title_of(session, found)} has no pods now; waiting for one.")
    styles: dict[str, str] = {}
    is_silent = True
    for entry in log_entries(session.client, f"{path_of(found)}/logs", follow=follow, **options):
        is_silent = False
        _print(session, entry, styles)
    if is_silent:
        _tell_silence(session, found)


def _has_no_pods(session: Session, install: JsonObject) -> bool:
    """Whether an install has no pods; where that cannot be asked, the logs say why."""
    try:
        return not session.client.get(f"{path_of(install)}/pods", retry=NO_RETRY)["data"]
    except ApiError:
        return False


def _tell_silence(session: Session, install: JsonObject) -> None:
    """Say that there were no lines, and what shows why; a pipe gets none of it."""
    name, typed = title_of(session, install), shlex.quote(typed_name(install))
    if _has_no_pods(session, install):
        session.output.note(f"{name} has no pods now, and so no logs.")
        session.output.next_commands(f"bulkhead installs status {typed}", beside=True)
    else:
        session.output.note(f"The pods of {name} have no such lines.")
        session.output.next_commands(f"bulkhead installs pods {typed}", beside=True)


def _print(session: Session, entry: JsonObject, styles: dict[str, str]) -> None:
    output = session.output
    if output.as_json:
        output.line(entry)
        return
    source = f"{clean(entry.get('podName'))}/{clean(entry.get('containerName'))}"
    style = styles.setdefault(source, _STYLES[len(styles) % len(_STYLES)])
    output.say((f"{source} ", style), clean(entry.get("content")), copied=True)
