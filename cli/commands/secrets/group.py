"""What all commands of secrets share: the group, the argument, and how versions are found."""

from typing import Annotated

import typer

from cli.client import JsonObject, segment
from cli.completion import names_of
from cli.errors import CliError, ExitCode
from cli.session import SECRET, SECRET_VERSION, Session, is_id
from cli.text import clean, moment

app = typer.Typer(
    help="Secrets: values in versions, who read and who uses them.", no_args_is_help=True
)

CURRENT = "current"

SecretArgument = Annotated[
    str,
    typer.Argument(metavar="SECRET", help="Id or exact name.", autocompletion=names_of(SECRET)),
]
VersionArgument = Annotated[
    str, typer.Argument(metavar="VERSION", help="Its number, its id, or an alias such as current.")
]


def active_secret(session: Session, name_or_id: str) -> JsonObject:
    """Read a secret with which something can be done.

    Raises:
        CliError: there is none, several have the name, or it is deleted.
    """
    secret = session.resource(SECRET, name_or_id)
    refuse_deleted(secret)
    return secret


def refuse_deleted(secret: JsonObject) -> None:
    """Return where a secret is active.

    Raises:
        CliError: it is deleted.
    """
    if secret["state"] == "active":
        return
    until = moment(secret.get("purge_at"), missing="its purge")
    message = f"Secret {clean(secret['name'])} is deleted; it can be restored until {until}."
    raise CliError(
        message, ExitCode.NOT_FOUND, next_commands=(f"bulkhead secrets restore {secret['id']}",)
    )


def path_of(secret: JsonObject) -> str:
    """Return the place of a secret in the API."""
    return f"/secrets/{segment(secret['id'])}"


def version_path_of(version: JsonObject) -> str:
    """Return the place of a version in the API."""
    return f"/secrets/{segment(version['secret_id'])}/versions/{segment(version['id'])}"


def aliases_of(secret: JsonObject) -> dict[str, int]:
    """Return which version each alias names."""
    return secret.get("version_aliases") or {}


def current_number(secret: JsonObject) -> int | None:
    """Return the number of the version that consumers read."""
    return aliases_of(secret).get(CURRENT)


def versions_of(session: Session, secret: JsonObject) -> list[JsonObject]:
    """Return the versions of a secret, newest first."""
    return session.client.read_list(f"{path_of(secret)}/versions")


def version_of(session: Session, secret: JsonObject, wanted: str) -> JsonObject:
    """Return a version by its number, its id or an alias of it.

    Raises:
        CliError: the secret has no such version.
    """
    if is_id(SECRET_VERSION, wanted):
        return session.client.get(f"{path_of(secret)}/versions/{segment(wanted)}")
    number = int(wanted) if wanted.isdecimal() else aliases_of(secret).get(wanted)
    for version in versions_of(session, secret):
        if version["version_number"] == number:
            return version
    name = clean(secret["name"])
    message = f"Secret {name} has no version {wanted!r}."
    raise CliError(
        message, ExitCode.NOT_FOUND, next_commands=(f"bulkhead secrets versions {secret['id']}",)
    )


def aliases_by_number(secret: JsonObject) -> dict[int, str]:
    """Return the aliases of each version, as one text."""
    names: dict[int, list[str]] = {}
    for alias, number in sorted(aliases_of(secret).items()):
        names.setdefault(number, []).append(clean(alias))
    return {number: " ".join(aliases) for number, aliases in names.items()}
