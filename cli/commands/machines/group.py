"""What all commands of machines share: the group, the argument, and how a change is asked for."""

from typing import Annotated

import typer

from cli.client import JsonObject, segment
from cli.completion import names_of
from cli.errors import ApiError
from cli.session import MACHINE, Session
from cli.text import clean, name_in

app = typer.Typer(
    help="Machines: create in a cloud, list, suspend, replace, delete.", no_args_is_help=True
)

MachineArgument = Annotated[
    str,
    typer.Argument(metavar="MACHINE", help="Id or exact name.", autocompletion=names_of(MACHINE)),
]


def path_of(machine: JsonObject) -> str:
    """Return the place of a machine in the API."""
    return f"/machines/{segment(machine['id'])}"


def shown_name(machine: JsonObject) -> str:
    """Return how a person calls a machine: by its name, its server's, or its id."""
    return name_in(machine) or clean(machine["id"])


def names_of_clusters(session: Session) -> dict[str, str]:
    """Return the names of the workspace's clusters by their ids."""
    return {entry["id"]: clean(entry["name"]) for entry in session.client.pages("/clusters")}


def is_in_cloud(machine: JsonObject) -> bool:
    """Whether the platform made its server, and removes it."""
    return machine.get("kind") == "cloud"


def ask(
    session: Session,
    machine: JsonObject,
    method: str,
    verb: str,
    body: JsonObject | None = None,
) -> JsonObject:
    """Ask for a change of the machine; once more when it was changed since it was read."""
    path = f"{path_of(machine)}{verb}"
    try:
        return session.client.change(method, path, etag=machine["etag"], body=body)
    except ApiError as error:
        if error.reason != "ABORTED":
            raise
        newer = session.client.get(path_of(machine))
        if newer.get("name") != machine.get("name"):
            raise
        return session.client.change(method, path, etag=newer["etag"], body=body)
