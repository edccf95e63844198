"""Who uses a secret, and what breaks without a version of it."""

from collections.abc import Sequence
from typing import Annotated

import typer

from cli.client import JsonObject
from cli.commands.secrets.group import (
    SecretArgument,
    active_secret,
    app,
    current_number,
    path_of,
    version_of,
)
from cli.consumer_names import consumer_names
from cli.options import command
from cli.output import Column
from cli.session import Session
from cli.text import age, clean, plural

_COLUMNS = (
    Column("CONSUMER", "consumer_type"),
    Column("NAME", "shown_name", wraps=True),
    Column("READS", "reads"),
    Column("LAST USED", "used"),
    Column("VERSION", "last_used_number", right=True),
    Column("ACKNOWLEDGED", "acknowledged", wraps=True),
)
_MOST_NAMED = 10


@command(
    app,
    "usage",
    examples=("bulkhead secrets usage stripe", "bulkhead secrets usage stripe --would-miss 1"),
)
def show_usage(
    session: Session,
    secret: SecretArgument,
    would_miss: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="Only those that would miss this version."),
    ] = None,
) -> None:
    """List what uses a secret, with the version that it used last and when.

    Listed is what was registered, by the platform or with `consumers register`. A read with a
    token registers nothing: `versions` shows when each version was read last.
    """
    found = active_secret(session, secret)
    what, number = clean(found["name"]), None
    if would_miss is not None:
        number = version_of(session, found, would_miss)["version_number"]
        what = f"version {number} of {what}"
    entries = consumers_of(session, found, number)
    if not session.output.as_json:
        name_of = consumer_names(session, entries)
        entries = [
            {
                **entry,
                "shown_name": name_of(entry),
                "reads": "current" if _follows_current(entry) else entry.get("version_number"),
                "used": age(entry.get("last_used_at")),
                "acknowledged": _acknowledged(entry),
            }
            for entry in entries
        ]
    session.output.listing(entries, _COLUMNS, (f"Nothing is registered to use {what}.",))


def consumers_of(
    session: Session, secret: JsonObject, version_number: int | None = None
) -> list[JsonObject]:
    """Return the references to a secret; with a number, of those who would miss that version."""
    return session.client.read_list(f"{path_of(secret)}/references", version_number=version_number)


def tell_what_breaks(
    session: Session, secret: JsonObject, version: JsonObject | None = None
) -> None:
    """Say which consumers lose what they read, before it is taken from them.

    Args:
        session: the command's.
        secret: what they use.
        version: what is about to be taken; None is the whole secret.
    """
    number = None if version is None else version["version_number"]
    references = consumers_of(session, secret, number)
    what = clean(secret["name"])
    if number is not None:
        what = f"version {number} of {what}"
        if number == current_number(secret):
            session.output.note(
                (f"This is the current version of {clean(secret['name'])}.", "bold")
            )
    if not references:
        session.output.note(f"Nothing is known to use {what}.")
        return
    users = plural(len(references), "consumer")
    session.output.note((f"{users} would miss {what}:", "yellow"))
    _name(session, references)


def _name(session: Session, references: Sequence[JsonObject]) -> None:
    name_of = consumer_names(session, references[:_MOST_NAMED])
    for entry in references[:_MOST_NAMED]:
        used = entry.get("last_used_at")
        when = "never used it yet" if used is None else f"used it {age(used)} ago"
        session.output.note(f"  {clean(entry['consumer_type'])} {name_of(entry)}, {when}")
    if len(references) > _MOST_NAMED:
        session.output.note(f"  and {len(references) - _MOST_NAMED} more")


def _follows_current(entry: JsonObject) -> bool:
    return entry.get("version_number") is None


def _acknowledged(entry: JsonObject) -> str:
    if not entry["acknowledges"]:
        return "not asked to"
    number = entry.get("acknowledged_number")
    return "none yet" if number is None else f"version {number}"
