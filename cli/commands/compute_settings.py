"""How many machines a cluster may have."""

from typing import Annotated

import typer

from cli.client import JsonObject, segment
from cli.commands.clusters import ClusterArgument
from cli.options import command
from cli.session import CLUSTER, Session
from cli.text import moment


def add_commands(app: typer.Typer) -> None:
    """Register the command beside those of clusters."""
    command(
        app,
        "compute-settings",
        examples=(
            "bulkhead clusters compute-settings demo",
            "bulkhead clusters compute-settings demo --max-machines 25",
        ),
    )(compute_settings)


def compute_settings(
    session: Session,
    cluster: ClusterArgument,
    max_machines: Annotated[
        int | None, typer.Option(min=0, max=100, help="How many machines it may have.")
    ] = None,
    auto_scaling: Annotated[
        bool | None,
        typer.Option(
            "--auto-scaling/--no-auto-scaling",
            help="Whether machines may be added on their own; nothing does yet.",
        ),
    ] = None,
) -> None:
    """Show how many machines a cluster has and may have; with options, change it."""
    path = f"/clusters/{segment(session.id_of(CLUSTER, cluster))}/compute_settings"
    settings = session.client.get(path)
    body: JsonObject = {}
    if max_machines is not None:
        body["max_machines"] = max_machines
    if auto_scaling is not None:
        body["auto_scaling_enabled"] = auto_scaling
    if body:
        settings = session.client.change("PATCH", path, etag=settings["etag"], body=body)
    session.output.fields(
        settings,
        (
            ("Machines", settings["machines"]),
            ("At most", settings["max_machines"]),
            ("Auto scaling", settings["auto_scaling"]),
            ("Updated", moment(settings["updated_at"])),
        ),
    )
