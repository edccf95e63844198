"""Compute configs: in whose account, where and from which image machines are made."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.client import JsonObject, segment
from cli.commands.secrets.group import version_of
from cli.commands.secrets.values import read_value
from cli.completion import names_of
from cli.confirmation import confirm_by_name
from cli.errors import CliError, ExitCode
from cli.options import YesOption, command
from cli.output import Column
from cli.session import COMPUTE_CONFIG, SECRET, Session
from cli.text import age, clean, moment

app = typer.Typer(
    help="Compute configs: in whose account and where machines are made.", no_args_is_help=True
)

_KIND_PREFIX = "cloud_provider/"

_COLUMNS = (
    Column("NAME", "name"),
    Column("PROVIDER", "provider"),
    Column("PLACE", "place"),
    Column("IMAGE", "image"),
    Column("AGE", "age"),
    Column("SECRET", "secret", minor=True),
    Column("ID", "id", minor=True),
)
ConfigArgument = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG", help="Id or exact name.", autocompletion=names_of(COMPUTE_CONFIG)
    ),
]
_PlaceOption = Annotated[
    str,
    typer.Option(
        metavar="PLACE",
        help="Hetzner's location, or a zone of AWS or GCP: fsn1, eu-central-1a, europe-west3-a.",
    ),
]
_ImageOption = Annotated[
    str, typer.Option(metavar="IMAGE", help="Ubuntu's, or the provider's name or id of one.")
]
_ProviderOption = Annotated[
    Literal["hcloud", "aws", "gcp"] | None,
    typer.Option(help="Whose account; not needed with --secret, whose kind tells it."),
]
_CredentialFileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Make a secret of the credential in it; without this and --secret it is read from "
        "standard input or a hidden prompt.",
    ),
]
_AwsKeyOption = Annotated[
    str | None,
    typer.Option(metavar="ID", help="For a new credential of AWS, beside its secret key."),
]
_SecretOption = Annotated[
    str | None,
    typer.Option(
        metavar="SECRET",
        help="The secret with the credential: id or name.",
        autocompletion=names_of(SECRET),
    ),
]
_SecretVersionOption = Annotated[
    str | None,
    typer.Option(
        metavar="VERSION",
        help="Name this version of the secret, number or id, because the account of before is "
        "lost. --secret without it takes the current one again.",
    ),
]
_FilterOption = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERNS", help="Allow only types that match: shell patterns with commas between."
    ),
]
_FallbackOption = Annotated[
    list[str] | None,
    typer.Option(
        "--fallback",
        metavar="PLACE",
        help="Try it where the place has no machine left; several times, the best first.",
    ),
]


@command(
    app,
    "create",
    examples=(
        "bulkhead compute-configs create hetzner --secret hetzner-token --place fsn1",
        (
            "bulkhead compute-configs create hetzner --provider hcloud --place fsn1 "
            "--credential-file token.txt"
        ),
        (
            "bulkhead compute-configs create gcp --provider gcp --place europe-west3-a "
            "--image debian-13 < key.json"
        ),
    ),
)
def create_config(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 100 characters.")],
    place: _PlaceOption,
    image: _ImageOption = "ubuntu-24.04",
    provider: _ProviderOption = None,
    secret: _SecretOption = None,
    credential_file: _CredentialFileOption = None,
    aws_access_key_id: _AwsKeyOption = None,
    fallback: _FallbackOption = None,
    machine_type_filter: _FilterOption = None,
) -> None:
    """Say in whose account, where and from which image machines are made.

    The credential is a secret of the workspace. It is never an argument: every user of the
    machine can see arguments.
    """
    if secret is None:
        held = _new_secret(session, name, provider, credential_file, aws_access_key_id)
    else:
        if credential_file is not None or aws_access_key_id is not None:
            message = "--secret has the credential already: leave out what would make another one."
            raise CliError(message, ExitCode.USAGE)
        held = session.resource(SECRET, secret)
    body = {
        "name": name,
        "provider": provider or _provider_of(held),
        "provider_config": _provider_config(place, image, fallback, machine_type_filter),
        "credential_scope": {"kind": "byom", "secret_id": held["id"]},
    }
    made = _create(session, body, held, is_new=secret is None)
    _tell_made(session, made, held)


def _provider_config(
    place: str | None,
    image: str | None,
    fallbacks: list[str] | None,
    machine_type_filter: str | None,
) -> JsonObject:
    said = {
        "region": place,
        "image": image,
        "fallbacks": fallbacks,
        "machine_type_filter": machine_type_filter,
    }
    return {key: value for key, value in said.items() if value is not None}


def _tell_made(session: Session, made: JsonObject, held: JsonObject) -> None:
    """Say what was made, and what to do first where its credential was not accepted."""
    output, doubt = session.output, _doubt_about(held)
    if output.as_json:
        output.data(made)
        if doubt:
            output.warn(doubt)
        return
    name = clean(made["name"])
    told, quoted = f"Compute config {name} ({made['id']})", shlex.quote(name)
    if doubt:
        output.say((f"! {told}. {doubt}", "yellow"))
        output.next_commands(
            f"bulkhead secrets add-version {held['id']}   (with one that the provider accepts)",
            f"bulkhead secrets update {held['id']} --alias current=VERSION",
            f"bulkhead compute-configs types {quoted}   (asks the provider)",
        )
        return
    output.say(("✓ ", "green"), told)
    output.next_commands(
        f"bulkhead compute-configs types {quoted}",
        f"bulkhead machines create CLUSTER --config {quoted} --type TYPE",
    )


@command(app, "list", examples=("bulkhead compute-configs list",))
def list_configs(session: Session) -> None:
    """List the compute configs of the workspace."""
    entries = session.client.read_list("/compute_configs")
    if not session.output.as_json:
        entries = [
            {
                **entry,
                "place": entry["provider_config"]["region"],
                "image": entry["provider_config"]["image"],
                "secret": entry["credential_scope"].get("secret_id"),
                "age": age(entry["created_at"]),
            }
            for entry in entries
        ]
    session.show_list(
        "compute configs", entries, _COLUMNS, "bulkhead compute-configs create NAME --place PLACE"
    )


@command(app, "get", examples=("bulkhead compute-configs get hetzner",))
def get_config(session: Session, config: ConfigArgument) -> None:
    """Show a compute config; never its credential."""
    _show(session, session.resource(COMPUTE_CONFIG, config))


@command(
    app,
    "update",
    examples=(
        "bulkhead compute-configs update hetzner --place nbg1",
        "bulkhead compute-configs update hetzner --secret hetzner-token-2",
        "bulkhead compute-configs update hetzner --secret-version 2",
    ),
)
def update_config(
    session: Session,
    config: ConfigArgument,
    name: Annotated[str | None, typer.Option(help="The new name.")] = None,
    place: Annotated[str | None, typer.Option(metavar="PLACE", help="For new machines.")] = None,
    image: Annotated[str | None, typer.Option(metavar="IMAGE", help="For new machines.")] = None,
    secret: _SecretOption = None,
    secret_version: _SecretVersionOption = None,
    fallback: _FallbackOption = None,
    machine_type_filter: _FilterOption = None,
) -> None:
    """Change what new machines get; those that exist stay as they are.

    Another credential for the same account needs no change here: give the secret a new version
    with `secrets add-version`. A credential of another account is believed when its version is
    named here (--secret-version): what was in the account of before is then taken to be lost.
    """
    provider_config = _provider_config(place, image, fallback, machine_type_filter)
    body: JsonObject = {"name": name} if name is not None else {}
    if provider_config:
        body["provider_config"] = provider_config
    if not body and secret is None and secret_version is None:
        message = "Nothing to change: give an option."
        raise CliError(message, ExitCode.USAGE)
    found = session.resource(COMPUTE_CONFIG, config)
    if secret is not None or secret_version is not None:
        body["credential_scope"] = _credential_scope(session, found, secret, secret_version)
    changed = session.client.change("PATCH", _path(found), etag=found["etag"], body=body)
    _show(session, changed)


@command(app, "delete", examples=("bulkhead compute-configs delete hetzner --yes",))
def delete_config(
    session: Session,
    config: ConfigArgument,
    yes: YesOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Delete a compute config; its secret stays. Refused while machines use it."""
    found = session.resource(COMPUTE_CONFIG, config)
    name = clean(found["name"])
    if not yes:
        effect = f"This deletes compute config {name}; its secret stays."
        confirm_by_name(session, name, doing="deleting", effect=effect, done="deleted")
    deleted = session.client.change("DELETE", _path(found), etag=found["etag"])
    if session.output.as_json:
        session.output.data(deleted)
    else:
        session.output.say(("✓ ", "green"), f"Compute config {name} is deleted; its secret stays.")
        if held := found["credential_scope"].get("secret_id"):
            session.output.next_commands(f"bulkhead secrets delete {held}   (if nothing needs it)")


def _new_secret(
    session: Session,
    name: str,
    provider: str | None,
    credential_file: Path | None,
    aws_access_key_id: str | None,
) -> JsonObject:
    """Make a secret of a credential that a file or standard input has."""
    if provider is None:
        message = "For a new credential, say whose it is: --provider hcloud, aws or gcp."
        raise CliError(message, ExitCode.USAGE, next_commands=("bulkhead secrets list",))
    body: JsonObject = {"name": f"{name} credential", "kind": f"{_KIND_PREFIX}{provider}"}
    if aws_access_key_id is not None:
        body["aws_access_key_id"] = aws_access_key_id
    return session.client.create("/secrets", body | read_value(session, credential_file))


def _credential_scope(
    session: Session, config: JsonObject, secret: str | None, version: str | None
) -> JsonObject:
    """Return the scope that names a secret, the config's own unless another is given."""
    held = session.resource(SECRET, secret or config["credential_scope"]["secret_id"])
    scope: JsonObject = {"kind": "byom", "secret_id": held["id"]}
    if version is not None:
        scope["secret_version_id"] = version_of(session, held, version)["id"]
    return scope


def _doubt_about(secret: JsonObject) -> str | None:
    """Return why machines may not be made with a credential; None: nothing speaks against it."""
    validation = secret.get("validation") or {}
    error = clean(validation.get("error"))
    if validation.get("state") == "invalid":
        return f"The value is stored, and the provider does not accept it: {error}"
    return f"The value is stored, and was not validated: {error}" if error else None


def _create(session: Session, body: JsonObject, secret: JsonObject, *, is_new: bool) -> JsonObject:
    try:
        return session.client.create("/compute_configs", body)
    except CliError as failure:
        if is_new:
            failure.notes += (("kept", f"the credential, as secret {secret['id']}"),)
            failure.next_commands = (
                f"the same command with --secret {secret['id']}",
                *failure.next_commands,
            )
        raise


def _provider_of(secret: JsonObject) -> str:
    kind = str(secret.get("kind"))
    if not kind.startswith(_KIND_PREFIX):
        message = f"Secret {clean(secret['name'])} is no credential of a cloud: its kind is {kind}."
        raise CliError(message, ExitCode.USAGE, next_commands=("bulkhead secrets list",))
    return kind.removeprefix(_KIND_PREFIX)


def _path(config: JsonObject) -> str:
    return f"/compute_configs/{segment(config['id'])}"


def _show(session: Session, config: JsonObject) -> None:
    provider_config = config["provider_config"]
    credential = config["credential_scope"]
    session.output.fields(
        config,
        (
            ("Name", config["name"]),
            ("Provider", config["provider"]),
            ("Place", provider_config["region"]),
            ("Then", ", ".join(map(clean, provider_config.get("fallbacks") or ())) or None),
            ("Image", provider_config["image"]),
            ("Types", provider_config.get("machine_type_filter")),
            ("Id", config["id"]),
            ("Secret", credential.get("secret_id")),
            ("Version", credential.get("secret_version_id") or "the current one"),
            ("Created", moment(config["created_at"])),
            ("Updated", moment(config["updated_at"])),
        ),
    )
