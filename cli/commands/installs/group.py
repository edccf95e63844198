"""What all commands of installs share: the group, the argument, and how a change is asked for."""

import shlex
from collections.abc import Iterable
from typing import Annotated

import typer

from cli.client import JsonObject, segment
from cli.completion import finished
from cli.errors import ApiError, CliError, ExitCode
from cli.session import CLUSTER, INSTALL, Session, is_id
from cli.text import clean, label_name_of

app = typer.Typer(
    help="Installs: copies of packages on clusters, what was rendered, how they are.",
    no_args_is_help=True,
)


def names_of_installs(session: Session) -> list[str]:
    """Return what to type for each install, for a shell that completes it."""
    entries = session.client.read_list(INSTALL.path, limit=100)
    return [label_name_of(entry) or entry["id"] for entry in entries]


InstallArgument = Annotated[
    str,
    typer.Argument(
        metavar="INSTALL",
        help="Id, its label `name`, or a cluster that has one install.",
        autocompletion=finished(names_of_installs),
    ),
]


def path_of(install: JsonObject) -> str:
    """Return the place of an install in the API."""
    return f"/installs/{segment(install['id'])}"


def install_called(session: Session, text: str) -> JsonObject:
    """Read an install by its id, its label `name`, or the name of a cluster that has just one.

    Raises:
        CliError: there is none, or several.
    """
    if is_id(INSTALL, text):
        return session.client.get(f"{INSTALL.path}/{segment(text)}")
    entries = list(session.client.pages(INSTALL.path))
    found = [entry for entry in entries if label_name_of(entry) == text]
    if not found:
        clusters = {
            entry["id"] for entry in session.client.pages(CLUSTER.path) if entry["name"] == text
        }
        found = [entry for entry in entries if entry.get("cluster_id") in clusters]
    if len(found) == 1:
        return session.client.get(f"{INSTALL.path}/{segment(found[0]['id'])}")
    if not found:
        message = f"There is no install {text!r}, and no cluster of this name has one."
        raise CliError(message, ExitCode.NOT_FOUND, next_commands=(INSTALL.list_command,))
    ids = ", ".join(str(entry["id"]) for entry in found)
    message = f"{len(found)} installs are meant by {text!r}; use an id instead: {ids}."
    raise CliError(message, ExitCode.USAGE, next_commands=(INSTALL.list_command,))


def typed_name(install: JsonObject) -> str:
    """Return what to type for an install."""
    return label_name_of(install) or clean(install["id"])


def semvers(session: Session, installs: Iterable[JsonObject]) -> dict[str, str]:
    """Return the semantic versions of what installs have, where their packages can be read."""
    package_ids = {entry["package_id"] for entry in installs if entry.get("package_id")}
    found: dict[str, str] = {}
    for package_id in sorted(package_ids):
        path = f"/packages/{segment(package_id)}/versions"
        try:
            found |= {one["id"]: clean(one["semver"]) for one in session.client.pages(path)}
        except ApiError as error:
            # A vendor's package is the vendor's to read.
            if error.exit_code not in {ExitCode.NOT_FOUND, ExitCode.NOT_AUTHORISED}:
                raise
    return found


def ask(
    session: Session,
    install: JsonObject,
    method: str,
    verb: str,
    body: JsonObject | None = None,
) -> JsonObject:
    """Ask for a change of the install; once more when only its state has moved on meanwhile."""
    path = f"{path_of(install)}{verb}"
    try:
        return session.client.change(method, path, etag=install["etag"], body=body)
    except ApiError as error:
        if error.reason != "ABORTED" or "etag" not in error.metadata:
            raise
        newer = session.client.get(path_of(install))
        if newer.get("values") != install.get("values"):
            raise
        return session.client.change(method, path, etag=newer["etag"], body=body)


def operation_of(session: Session, mutation: JsonObject) -> JsonObject | None:
    """Return the operation that a change of version or a render began; None: it needed none."""
    render = mutation.get("render", mutation)
    operation_id = None if render is None else render.get("operation_id")
    if not operation_id:
        return None
    return session.client.get(f"/operations/{segment(operation_id)}")


def render_before(session: Session, install: JsonObject) -> str:
    """Return the newest render that was deployed before the one that is deployed now.

    Raises:
        CliError: there is none.
    """
    deployed = [
        entry
        for entry in session.client.pages(f"{path_of(install)}/renders")
        if entry["state"] == "deployed" and entry["id"] != install.get("current_render_id")
    ]
    if not deployed:
        message = "It never had another render that was deployed."
        look = f"bulkhead installs renders {shlex.quote(typed_name(install))}"
        raise CliError(message, ExitCode.NOT_FOUND, next_commands=(look,))
    return str(deployed[0]["id"])
