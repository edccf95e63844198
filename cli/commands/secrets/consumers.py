"""What uses a secret outside the platform: registered, and which version it works with."""

import re
from typing import Annotated

import typer

from cli.client import JsonObject, segment
from cli.commands.secrets.group import (
    SecretArgument,
    VersionArgument,
    active_secret,
    path_of,
    version_of,
)
from cli.errors import CliError, ExitCode
from cli.options import command
from cli.session import SECRET, Session, is_id
from cli.text import clean

consumers_app = typer.Typer(
    help="Have your services say that they use a secret, and which version; `usage` lists them.",
    no_args_is_help=True,
)

_CONSUMER = re.compile(r"([a-z][a-z0-9_]*)/([A-Za-z0-9][A-Za-z0-9._-]*)")

_ConsumerArgument = Annotated[
    str, typer.Argument(metavar="TYPE/ID", help="What it is and which one, as service/mailer.")
]


@command(
    consumers_app,
    "register",
    examples=(
        "bulkhead secrets consumers register stripe service/mailer --acknowledges",
        "bulkhead secrets consumers register stripe service/archive --version 1",
    ),
)
def register_consumer(
    session: Session,
    secret: SecretArgument,
    consumer: _ConsumerArgument,
    version: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="The one that it reads; unset: it follows current."),
    ] = None,
    acknowledges: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool,
        typer.Option(
            "--acknowledges",
            help="It says when it works with a new version, and rotations wait for that.",
        ),
    ] = False,
) -> None:
    """Say that something uses a secret, and how; said again, this replaces what was said before.

    What is registered is not cut off unseen: `disable` and `destroy` of what it uses are refused.
    """
    place = _place_of(consumer)
    found = active_secret(session, secret)
    body: JsonObject = {"acknowledges": acknowledges}
    if version is not None:
        body["version_number"] = version_of(session, found, version)["version_number"]
    made = session.client.change("PUT", f"{path_of(found)}/references/{place}", body=body)
    if session.output.as_json:
        session.output.data(made)
        return
    number = made.get("version_number")
    reads = "follows current" if number is None else f"reads version {number}"
    name = clean(found["name"])
    session.output.say(("✓ ", "green"), f"{consumer} uses {name} and {reads}.")
    if acknowledges:
        session.output.say("  Rotations wait until it has acknowledged the new version.")
        session.output.next_commands(
            f"bulkhead secrets consumers acknowledge {found['id']} {consumer} NUMBER"
        )


@command(
    consumers_app,
    "acknowledge",
    examples=(
        "bulkhead secrets consumers acknowledge stripe service/mailer current",
        "bulkhead secrets consumers acknowledge sec_0193c2a1 service/mailer 3",
    ),
)
def acknowledge_version(
    session: Session,
    secret: SecretArgument,
    consumer: _ConsumerArgument,
    version: VersionArgument,
) -> None:
    """Say that a consumer works with a version by now, which is what a rotation waits for.

    Takes the scope secrets:access. A token that has nothing else cannot look up names and aliases:
    give the id of the secret and the number of the version, which `access --json` tells.
    """
    place = _place_of(consumer)
    if version.isdecimal() and is_id(SECRET, secret):
        found, number = {"id": secret}, int(version)
    else:
        found = active_secret(session, secret)
        number = version_of(session, found, version)["version_number"]
    path = f"{path_of(found)}/references/{place}:acknowledge"
    changed = session.client.change("POST", path, body={"version_number": number})
    if session.output.as_json:
        session.output.data(changed)
        return
    known = changed["acknowledged_number"]
    session.output.say(("✓ ", "green"), f"{consumer} has acknowledged version {known}.")
    if known > number:
        session.output.say("  It had acknowledged that before, and the newer one counts.")


@command(
    consumers_app, "remove", examples=("bulkhead secrets consumers remove stripe service/mailer",)
)
def remove_consumer(session: Session, secret: SecretArgument, consumer: _ConsumerArgument) -> None:
    """Say that something does not use a secret any more. Nothing waits for it from then on."""
    place = _place_of(consumer)
    found = active_secret(session, secret)
    session.client.change("DELETE", f"{path_of(found)}/references/{place}")
    if session.output.as_json:
        session.output.data({"secret_id": found["id"], "consumer": consumer, "removed": True})
        return
    session.output.say(
        ("✓ ", "green"), f"{consumer} is not registered to use {clean(found['name'])} any more."
    )


def _place_of(consumer: str) -> str:
    match = _CONSUMER.fullmatch(consumer)
    if match is None:
        message = (
            f"{consumer!r} is no consumer: write what it is and which one, such as service/mailer."
        )
        raise CliError(message, ExitCode.USAGE)
    return "/".join(segment(part) for part in match.groups())
