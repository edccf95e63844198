"""Reading a value: each time is recorded before the value is given."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from cli.arguments import seconds_within
from cli.client import JsonObject, segment
from cli.commands.secrets.group import CURRENT, SecretArgument, app, path_of, version_of
from cli.commands.secrets.values import (
    ForceOption,
    OutputFileOption,
    hand_out,
    read_line,
    refuse_unwritable,
)
from cli.errors import ApiError, CliError, ExitCode
from cli.options import command
from cli.session import SECRET, Session
from cli.text import clean, duration, moment

_LONGEST_WRAP_SECONDS = 300
_LOOKUP_SCOPE = "secrets:read"


@command(
    app,
    "access",
    examples=(
        "bulkhead secrets access stripe | my-program",
        "bulkhead secrets access stripe --version 3 -o stripe.key",
        "bulkhead secrets access stripe --wrap 5m",
    ),
)
def access_secret(
    session: Session,
    secret: SecretArgument,
    version: Annotated[
        str,
        typer.Option(metavar="VERSION", help="A number, an id, latest, or an alias."),
    ] = CURRENT,
    file: OutputFileOption = None,
    wrap: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Print, instead of the value, a token that gives it once within this time (at "
            "most 5m).",
        ),
    ] = None,
    force: ForceOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Print a value, byte for byte and nothing else.

    It is written to standard output as it was stored; only a terminal gets a line break behind
    it. A terminal is not given what it would act on, such as binary data. Every access is in the
    audit log before the value is read, and so is one that is refused; of one that is tried again
    and again the log says how often.

    A token that has only the scope secrets:access cannot look up names and numbers: give the id
    of the secret, and the id of the version, latest or an alias.
    """
    if file is not None and wrap is not None:
        message = "--output is for the value, and --wrap gives none: use one of them."
        raise CliError(message, ExitCode.USAGE)
    if not version:
        message = "--version is empty: give a number, an id, latest or an alias."
        raise CliError(message, ExitCode.USAGE)
    refuse_unwritable(file, force=force)
    body: JsonObject = {}
    if wrap is not None:
        body["wrap_ttl_seconds"] = seconds_within(wrap, "--wrap", 1, _LONGEST_WRAP_SECONDS)
    # Sent once: one command is one attempt in the audit log.
    answer = session.client.create(f"{_place(session, secret, version)}:access", body, once=False)
    if wrap is None:
        hand_out(session.output, answer, file, force=force)
    else:
        _show_wrapping(session, answer)


@command(
    app,
    "unwrap",
    examples=(
        "bulkhead secrets unwrap < token.txt | my-program",
        "bulkhead secrets unwrap -o stripe.key",
    ),
)
def unwrap_secret(
    session: Session,
    file: OutputFileOption = None,
    force: ForceOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Print the value that a wrapping token stands for. It works once.

    The token is read from standard input or a hidden prompt. If it is refused as used, somebody
    else has read the value: rotate the secret.
    """
    refuse_unwritable(file, force=force)
    token = read_line("Wrapping token")
    answer = session.client.create("/secrets/unwrap", {"token": token}, once=False)
    hand_out(session.output, answer, file, force=force)


def _place(session: Session, secret: str, version: str) -> str:
    """Return where the version is; asks only where the API does not understand what was given."""
    with _explaining_lookup("the name of a secret", "the secret's id"):
        secret_id = session.id_of(SECRET, secret)
    if version.isdecimal():
        with _explaining_lookup("the number of a version", "its id, latest or an alias"):
            version = version_of(session, {"id": secret_id, "name": secret}, version)["id"]
    return f"{path_of({'id': secret_id})}/versions/{segment(version)}"


@contextmanager
def _explaining_lookup(what: str, instead: str) -> Iterator[None]:
    """Say what works without the scope that only a lookup needs."""
    try:
        yield
    except ApiError as failure:
        if failure.metadata.get("required_scope") == _LOOKUP_SCOPE:
            failure.message = f"To look up {what} takes {_LOOKUP_SCOPE}: give {instead} instead."
            failure.next_commands = ("bulkhead secrets access SECRET_ID --version VERSION_ID",)
        raise


def _show_wrapping(session: Session, answer: JsonObject) -> None:
    output = session.output
    if output.as_json:
        output.data(answer)
        return
    ends = answer["wrapping_expires_at"]
    left = duration(ends - time.time()) if isinstance(ends, int) else "a while"
    output.note(f"Gives the value once, until {moment(ends)} ({left}):")
    output.say(clean(answer["wrapping_token"]), copied=True)
