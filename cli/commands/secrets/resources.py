"""Secrets themselves: created, shown, changed, deleted, restored."""

import shlex
import time
from typing import Annotated

import typer

from cli.arguments import pairs_of, seconds_of, span_of
from cli.client import JsonObject
from cli.commands.secrets.group import (
    CURRENT,
    SecretArgument,
    active_secret,
    aliases_of,
    app,
    path_of,
    version_of,
)
from cli.commands.secrets.rotation import rotation_of
from cli.commands.secrets.usage import tell_what_breaks
from cli.commands.secrets.values import ValueFileOption, read_value
from cli.confirmation import confirm_by_name
from cli.errors import ApiError, CliError, ExitCode
from cli.options import YesOption, command
from cli.output import Column
from cli.session import SECRET, Session
from cli.text import age, clean, moment, plural

_COLUMNS = (
    Column("NAME", "name"),
    Column("KIND", "kind"),
    Column("STATE", "state"),
    Column("CURRENT", "current", right=True),
    Column("VERSIONS", "versions", right=True),
    Column("AGE", "age"),
    Column("ID", "id", minor=True),
)

_NEVER = "never"
_KINDS_OF_CLOUDS = ("cloud_provider/hcloud", "cloud_provider/aws", "cloud_provider/gcp")

_KindOption = Annotated[
    str,
    typer.Option(
        metavar="KIND",
        help="generic, webhook_signing, oci_registry, cloudflare_api, or cloud_provider/ and "
        "hcloud, aws, gcp or azure, which are tried at the provider.",
    ),
]
LabelOption = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="KEY=VALUE", help="May be given several times."),
]


@command(
    app,
    "create",
    examples=(
        'printf %s "$KEY" | bulkhead secrets create stripe --label team=payments',
        "bulkhead secrets create hetzner --kind cloud_provider/hcloud --value-file token.txt",
        "bulkhead secrets create registry --kind oci_registry --username deploy",
    ),
)
def create_secret(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 200 characters.")],
    kind: _KindOption = "generic",
    value_file: ValueFileOption = None,
    description: Annotated[str | None, typer.Option(help="Up to 500 characters.")] = None,
    label: LabelOption = None,
    username: Annotated[
        str | None, typer.Option(help="Of the registry; for the kind oci_registry.")
    ] = None,
    aws_access_key_id: Annotated[
        str | None, typer.Option(metavar="ID", help="For the kind cloud_provider/aws.")
    ] = None,
    expires_in: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Delete it after that time, for example 12h or 30d."),
    ] = None,
) -> None:
    """Create a secret with its first version.

    The value is kept byte for byte, a line break at its end too: printf %s writes none. Bytes
    that are no UTF-8 text are sent as base64. A value is never an argument: every user of the
    machine can see arguments.
    """
    body: JsonObject = {"name": name, "kind": kind} | read_value(session, value_file)
    given = {
        "description": description,
        "labels": pairs_of(label, "--label") if label else None,
        "username": username,
        "aws_access_key_id": aws_access_key_id,
        "expire_time": None if expires_in is None else _moment_after(expires_in),
    }
    body |= {key: said for key, said in given.items() if said is not None}
    _tell_made(session, _created(session, body), kind)


def _tell_made(session: Session, secret: JsonObject, kind: str) -> None:
    output, name = session.output, clean(secret["name"])
    if output.as_json:
        output.data(secret)
        return
    output.say(("✓ ", "green"), f"Secret {name} ({secret['id']}) has its first version.")
    validation = secret.get("validation") or {}
    if validation.get("state") == "invalid":
        why = clean(validation.get("error"))
        output.note(("The value is stored, and the provider does not accept it: ", "yellow"), why)
    quoted = shlex.quote(name)
    if kind in _KINDS_OF_CLOUDS:
        # The platform reads it, and people seldom do.
        output.next_commands(
            f"bulkhead compute-configs create NAME --place PLACE --secret {quoted}"
        )
        return
    output.next_commands(f"bulkhead secrets access {quoted}")


@command(
    app,
    "list",
    examples=("bulkhead secrets list", "bulkhead secrets list --kind oci_registry"),
)
def list_secrets(
    session: Session,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="Only this kind.")] = None,
) -> None:
    """List the secrets of the workspace; never their values."""
    entries = session.client.read_list("/secrets", kind=kind)
    if not session.output.as_json:
        entries = [
            {
                **entry,
                "current": aliases_of(entry).get(CURRENT),
                "versions": entry["version_count"],
                "age": age(entry["created_at"]),
            }
            for entry in entries
        ]
    session.show_list(
        "secrets", entries, _COLUMNS, "bulkhead secrets create NAME --value-file FILE"
    )


@command(app, "get", examples=("bulkhead secrets get stripe",))
def get_secret(session: Session, secret: SecretArgument) -> None:
    """Show a secret and when it rotates, without its value: `access` prints that."""
    found = session.resource(SECRET, secret)
    asks = found["state"] == "active" and not session.output.as_json
    _show(session, found, _rotation_text(rotation_of(session, found)) if asks else None)


@command(
    app,
    "update",
    examples=(
        "bulkhead secrets update stripe --alias current=2",
        "bulkhead secrets update stripe --label team=billing --remove-label owner",
    ),
)
def update_secret(
    session: Session,
    secret: SecretArgument,
    name: Annotated[str | None, typer.Option(help="The new name.")] = None,
    description: Annotated[str | None, typer.Option(help="The new description.")] = None,
    label: LabelOption = None,
    remove_label: Annotated[list[str] | None, typer.Option(metavar="KEY")] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ALIAS=VERSION",
            help="Let an alias name that version; current is the one that consumers read.",
        ),
    ] = None,
    remove_alias: Annotated[list[str] | None, typer.Option(metavar="ALIAS")] = None,
    expires_in: Annotated[
        str | None, typer.Option(metavar="TIME", help="Delete it after that time; or: never.")
    ] = None,
) -> None:
    """Change what is known about a secret, or which version an alias names.

    Moving `current` gives consumers another version, and `previous` names the one before. What
    is not mentioned stays as it is.
    """
    current = active_secret(session, secret)
    given = {"name": name, "description": description}
    body: JsonObject = {key: text for key, text in given.items() if text is not None}
    if label or remove_label:
        body["labels"] = _changed_labels(current, label, remove_label)
    if alias or remove_alias:
        body["version_aliases"] = {
            word: version_of(session, current, version)["version_number"]
            for word, version in pairs_of(alias or (), "--alias").items()
        } | dict.fromkeys(remove_alias or ())
    if expires_in is not None:
        body["expire_time"] = None if expires_in == _NEVER else _moment_after(expires_in)
    if not body:
        message = "Nothing to change: --help lists what can be."
        raise CliError(message, ExitCode.USAGE)
    _show(
        session, session.client.change("PATCH", path_of(current), etag=current["etag"], body=body)
    )


@command(
    app,
    "delete",
    examples=("bulkhead secrets delete stripe", "bulkhead secrets delete stripe --force --yes"),
)
def delete_secret(
    session: Session,
    secret: SecretArgument,
    force: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool,
        typer.Option("--force", help="Destroy its values now, where the policy allows that."),
    ] = False,
    yes: YesOption = False,  # noqa: FBT002 - the same
) -> None:
    """Delete a secret, once its name was typed. It can be restored for 30 days; with --force not.

    Nobody can read its values from now on. Its name stays taken until it is purged.
    """
    found = active_secret(session, secret)
    name = clean(found["name"])
    tell_what_breaks(session, found)
    if not yes:
        effect = f"Nobody can read {name} then; it can be restored for 30 days."
        if force:
            versions = plural(found["version_count"], "version")
            effect = f"This destroys {name} and {versions} for good."
        confirm_by_name(session, name, doing="deleting", effect=effect, done="deleted")
    session.client.change(
        "DELETE", path_of(found), etag=found["etag"], force="true" if force else None
    )
    if force:
        _tell_destroyed(session, found)
        return
    deleted = session.client.get(path_of(found))
    if session.output.as_json:
        session.output.data(deleted)
        return
    until = moment(deleted.get("purge_at"), missing="its purge")
    session.output.say(
        ("✓ ", "green"), f"Secret {name} is deleted; it can be restored until {until}."
    )
    session.output.next_commands(f"bulkhead secrets restore {found['id']}")


@command(app, "restore", examples=("bulkhead secrets restore stripe",))
def restore_secret(session: Session, secret: SecretArgument) -> None:
    """Take the deletion of a secret back."""
    found = session.resource(SECRET, secret)
    path = f"{path_of(found)}:undelete"
    restored = session.client.change("POST", path, etag=found["etag"])
    if session.output.as_json:
        session.output.data(restored)
    else:
        session.output.say(("✓ ", "green"), f"Secret {clean(restored['name'])} is active again.")


def _created(session: Session, body: JsonObject) -> JsonObject:
    try:
        return session.client.create("/secrets", body)
    except ApiError as failure:
        if failure.faults[0].path[-1:] == ("name",) and failure.exit_code is ExitCode.CONFLICT:
            name = shlex.quote(clean(body["name"]))
            failure.next_commands = (
                f"bulkhead secrets add-version {name}",
                f"bulkhead secrets restore {name}   (if it is deleted)",
            )
        raise


def _tell_destroyed(session: Session, secret: JsonObject) -> None:
    if session.output.as_json:
        session.output.data({"id": secret["id"], "deleted": True})
    else:
        name = clean(secret["name"])
        session.output.say(("✓ ", "green"), f"Secret {name} is deleted, and its values destroyed.")


def _moment_after(span: str) -> int:
    return int(time.time()) + seconds_of(span, "--expires-in")


def _changed_labels(
    secret: JsonObject, given: list[str] | None, removed: list[str] | None
) -> dict[str, str]:
    """Return the labels that a secret shall have, which the API takes as a whole."""
    labels = (secret.get("labels") or {}) | pairs_of(given or (), "--label")
    for key in removed or ():
        labels.pop(key, None)
    return labels


def _rotation_text(rotation: JsonObject | None) -> str:
    if rotation is None:
        return "no"
    every = f"every {span_of(rotation['interval_seconds'])}"
    if not rotation["enabled"]:
        return f"{every}, disabled"
    return f"{every}, next {moment(rotation.get('next_rotation_at'), missing='not set')}"


def _show(session: Session, secret: JsonObject, rotates: str | None = None) -> None:
    validation = secret.get("validation") or {}
    session.output.fields(
        secret,
        (
            ("Name", secret["name"]),
            ("State", secret["state"]),
            ("Id", secret["id"]),
            ("Kind", secret["kind"]),
            ("Description", secret.get("description")),
            *((key, value) for key, value in sorted((secret.get("attributes") or {}).items())),
            ("Labels", _listed(secret.get("labels"))),
            ("Aliases", _listed(aliases_of(secret))),
            ("Versions", f"{secret['version_count']}, {secret['enabled_version_count']} enabled"),
            ("Rotates", rotates),
            ("Validation", validation.get("error") or _told(validation)),
            ("Created", moment(secret["created_at"])),
            ("Updated", moment(secret["updated_at"])),
            ("Expires", _moment_or_none(secret.get("expire_time"))),
            ("Deleted", _moment_or_none(secret.get("deleted_at"))),
            ("Purged at", _moment_or_none(secret.get("purge_at"))),
            ("Purge asked by", secret.get("purge_requested_by")),
        ),
    )


def _told(validation: JsonObject) -> str | None:
    state = validation.get("state")
    return None if state == "unspecified" else state


def _listed(pairs: JsonObject | None) -> str | None:
    return ", ".join(f"{key}={value}" for key, value in sorted((pairs or {}).items())) or None


def _moment_or_none(unix_seconds: object) -> str | None:
    return moment(unix_seconds) if unix_seconds is not None else None
