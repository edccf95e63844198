"""The versions of a secret: added, enabled, disabled, destroyed."""

import shlex
from typing import Annotated

import typer

from cli.client import JsonObject
from cli.commands.secrets.group import (
    SecretArgument,
    VersionArgument,
    active_secret,
    aliases_by_number,
    app,
    current_number,
    path_of,
    version_of,
    version_path_of,
    versions_of,
)
from cli.commands.secrets.usage import tell_what_breaks
from cli.commands.secrets.values import ValueFileOption, read_value
from cli.confirmation import confirm_by_name
from cli.options import YesOption, command
from cli.output import Column
from cli.session import Session
from cli.text import age, clean

_COLUMNS = (
    Column("VERSION", "version_number", right=True),
    Column("STATE", "state"),
    Column("ALIASES", "aliases", wraps=True),
    Column("AGE", "age"),
    Column("LAST READ", "read"),
    Column("COMMENT", "comment", wraps=True),
    Column("ID", "id", minor=True),
)

ForceUseOption = Annotated[
    bool,
    typer.Option("--force", help="Even if it is in use, where the workspace's policy allows that."),
]


@command(app, "versions", examples=("bulkhead secrets versions stripe",))
def list_versions(session: Session, secret: SecretArgument) -> None:
    """List the versions of a secret, newest first; never their values."""
    found = active_secret(session, secret)
    entries = versions_of(session, found)
    if not session.output.as_json:
        aliases = aliases_by_number(found)
        entries = [
            {
                **entry,
                "aliases": aliases.get(entry["version_number"], ""),
                "age": age(entry["created_at"]),
                "read": age(entry.get("last_used_at")),
            }
            for entry in entries
        ]
    session.output.listing(entries, _COLUMNS, (f"{clean(found['name'])} has no versions.",))


@command(
    app,
    "add-version",
    examples=(
        'printf %s "$KEY" | bulkhead secrets add-version stripe',
        "bulkhead secrets add-version tls --value-file key.pem --comment 'of the new authority'",
    ),
)
def add_version(
    session: Session,
    secret: SecretArgument,
    value_file: ValueFileOption = None,
    comment: Annotated[str | None, typer.Option(help="Up to 200 characters.")] = None,
) -> None:
    """Add a value as a new version. Consumers keep the current one until the alias is moved.

    The value is kept byte for byte, a line break at its end too: printf %s writes none.
    """
    found = active_secret(session, secret)
    body = read_value(session, value_file)
    if comment is not None:
        body["comment"] = comment
    version = session.client.create(f"{path_of(found)}/versions", body)
    output = session.output
    if output.as_json:
        output.data(version)
        return
    number = version["version_number"]
    output.say(("✓ ", "green"), f"{clean(found['name'])} has version {number} ({version['id']}).")
    current = current_number(found)
    if current is not None and current != number:
        output.say(f"  current is still version {current}.")
        name = shlex.quote(clean(found["name"]))
        output.next_commands(f"bulkhead secrets update {name} --alias current={number}")


@command(app, "enable", examples=("bulkhead secrets enable stripe 2",))
def enable_version(session: Session, secret: SecretArgument, version: VersionArgument) -> None:
    """Let a disabled version be read again."""
    found = active_secret(session, secret)
    _ask(session, found, version_of(session, found, version), "enable", force=False)


@command(
    app,
    "disable",
    examples=("bulkhead secrets disable stripe 1", "bulkhead secrets disable stripe current --yes"),
)
def disable_version(
    session: Session,
    secret: SecretArgument,
    version: VersionArgument,
    force: ForceUseOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
    yes: YesOption = False,  # noqa: FBT002 - the same
) -> None:
    """Keep a version from being read, until it is enabled again; asks before it does `current`."""
    found = active_secret(session, secret)
    wanted = version_of(session, found, version)
    tell_what_breaks(session, found, wanted)
    if wanted["version_number"] == current_number(found) and not yes:
        name = clean(found["name"])
        effect = f"Whoever reads the current value of {name} is refused from then on."
        confirm_by_name(
            session, name, doing="disabling the current version", effect=effect, done="disabled"
        )
    _ask(session, found, wanted, "disable", force=force)
    name = shlex.quote(clean(found["name"]))
    session.output.next_commands(f"bulkhead secrets enable {name} {wanted['version_number']}")


@command(
    app,
    "destroy",
    examples=("bulkhead secrets destroy stripe 1", "bulkhead secrets destroy stripe 1 --yes"),
)
def destroy_version(
    session: Session,
    secret: SecretArgument,
    version: VersionArgument,
    force: ForceUseOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
    yes: YesOption = False,  # noqa: FBT002 - the same
) -> None:
    """Destroy the value of a version. This cannot be taken back; `disable` can."""
    found = active_secret(session, secret)
    wanted = version_of(session, found, version)
    tell_what_breaks(session, found, wanted)
    if not yes:
        name = clean(found["name"])
        effect = (
            f"This destroys the value of version {wanted['version_number']} of {name} for good."
        )
        confirm_by_name(session, name, doing="destroying", effect=effect, done="destroyed")
    _ask(session, found, wanted, "destroy", force=force)


def _ask(
    session: Session, secret: JsonObject, version: JsonObject, verb: str, *, force: bool
) -> None:
    changed = session.client.change(
        "POST",
        f"{version_path_of(version)}:{verb}",
        etag=version["etag"],
        force="true" if force else None,
    )
    if session.output.as_json:
        session.output.data(changed)
        return
    number = changed["version_number"]
    session.output.say(
        ("✓ ", "green"),
        f"Version {number} of {clean(secret['name'])} is {clean(changed['state'])}.",
    )
