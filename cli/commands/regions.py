"""Regions: labels of a workspace that group its clusters."""

import shlex
from typing import Annotated

import typer

from cli.options import command
from cli.output import Column
from cli.session import Session
from cli.text import age, clean

app = typer.Typer(help="Regions: labels that group clusters.", no_args_is_help=True)

_COLUMNS = (Column("NAME", "name"), Column("AGE", "age"), Column("ID", "id"))


@command(app, "list", examples=("bulkhead regions list",))
def list_regions(session: Session) -> None:
    """List the regions of the workspace."""
    entries = session.client.read_list("/regions")
    if not session.output.as_json:
        entries = [{**entry, "age": age(entry["created_at"])} for entry in entries]
    session.show_list("regions", entries, _COLUMNS, "bulkhead regions create NAME")


@command(app, "create", examples=("bulkhead regions create frankfurt",))
def create_region(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 100 characters.")],
    icon: Annotated[str | None, typer.Option(metavar="URI", help="The address of an icon.")] = None,
) -> None:
    """Create a region: a label of yours, not a place of a cloud provider."""
    body = {"name": name} | ({"icon": icon} if icon is not None else {})
    region = session.client.create("/regions", body)
    if session.output.as_json:
        session.output.data(region)
        return
    session.output.say(("✓ ", "green"), f"Region {clean(region['name'])} ({region['id']})")
    session.output.next_commands(
        f"bulkhead clusters create NAME --region {shlex.quote(clean(region['name']))}"
    )
