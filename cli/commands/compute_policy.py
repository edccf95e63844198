"""Where a workspace lets machines and snapshots be."""

import re
from typing import Annotated

import typer

from cli.client import JsonObject, segment
from cli.errors import CliError, ExitCode
from cli.options import command
from cli.session import Session
from cli.text import clean

_ALLOWED = "allowed_places"
_PLACE = re.compile(r"(hcloud|aws|gcp)/[a-z0-9-]+")


def add_commands(app: typer.Typer) -> None:
    """Register the command beside those of workspaces."""
    command(
        app,
        "compute-policy",
        examples=(
            "bulkhead workspaces compute-policy",
            "bulkhead workspaces compute-policy --allow hcloud/fsn1 --allow hcloud/nbg1",
            "bulkhead workspaces compute-policy --allow-everywhere --workspace acme",
        ),
    )(compute_policy)


def compute_policy(
    session: Session,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROVIDER/PLACE",
            help="Let machines and snapshots be there, and nowhere else; several times for several "
            "places.",
        ),
    ] = None,
    allow_everywhere: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool, typer.Option("--allow-everywhere", help="Let them be everywhere again.")
    ] = False,
) -> None:
    """Show where machines and snapshots of the workspace may be; with options, change it.

    The list binds creates, their fallbacks and snapshots. Machines that are elsewhere already
    stay.
    """
    if allow and allow_everywhere:
        message = "Give --allow or --allow-everywhere."
        raise CliError(message, ExitCode.USAGE)
    for place in allow or ():
        if not _PLACE.fullmatch(place):
            message = (
                f"{place!r} is no place: write PROVIDER/PLACE, such as hcloud/fsn1. Providers are "
                "hcloud, aws and gcp."
            )
            raise CliError(message, ExitCode.USAGE)
    workspace = session.workspace_in_use
    if workspace is None:
        message = "There is no workspace that the policy could be of."
        raise CliError(
            message, ExitCode.NOT_FOUND, next_commands=("bulkhead workspaces create NAME",)
        )
    path = f"/workspaces/{segment(workspace['id'])}/compute_policy"
    policy = session.client.get(path)
    if allow or allow_everywhere:
        body: JsonObject = {_ALLOWED: allow or []}
        policy = session.client.change("PATCH", path, etag=policy["etag"], body=body)
    places = policy.get(_ALLOWED) or []
    session.output.fields(
        policy,
        (
            ("Workspace", workspace["name"]),
            ("Machines may be", ", ".join(map(clean, places)) or "everywhere"),
        ),
    )
