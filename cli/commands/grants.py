"""Grants: what a customer lets a vendor do with an install, and takes back at any time."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import typer

from cli.client import JsonObject, segment
from cli.commands.installs.group import (
    InstallArgument,
    install_called,
    semvers,
    typed_name,
)
from cli.commands.packages import version_of
from cli.confirmation import confirm_by_name
from cli.errors import ApiError, CliError, ExitCode
from cli.names import called, names_by_id, title_of
from cli.options import YesOption, command
from cli.output import Column
from cli.session import CLUSTER, GRANT, PACKAGE_VERSION, PRODUCT, WORKSPACE, Session, is_id
from cli.text import age, clean, label_name_of, name_in

app = typer.Typer(
    help="Grants: which vendor may move which install by rollouts.", no_args_is_help=True
)

_COLUMNS = (
    Column("INSTALL", "install"),
    Column("ROLE", "role"),
    Column("CONSENT", "consent"),
    Column("WAITS", "waits"),
    Column("HEALTH", "health"),
    Column("VERSION", "version", minor=True),
    Column("STATE", "state"),
    Column("WITH", "other", wraps=True, minor=True),
    Column("AGE", "age"),
    Column("ID", "id", minor=True),
)

_GrantArgument = Annotated[
    str, typer.Argument(metavar="GRANT", help="Its id, or the install that it is about.")
]


@command(
    app,
    "give",
    examples=(
        "bulkhead grants give shop-eu",
        "bulkhead grants give shop-eu --consent ask",
    ),
)
def give_grant(
    session: Session,
    install: InstallArgument,
    consent: Annotated[
        Literal["automatic", "ask"],
        typer.Option(help="ask: each version waits until you agreed to it."),
    ] = "automatic",
) -> None:
    """Let the vendor of an install's product move it by rollouts.

    The vendor sees its version, its health and the digest of a plan: never values, logs or
    secrets. Your window, your holds and your pin stay above every rollout.
    """
    found = install_called(session, install)
    body = {"install_id": found["id"], "consent": consent}
    made = session.client.create("/grants", body)
    if session.output.as_json:
        session.output.data(made)
        return
    vendor = called(session, WORKSPACE, made["vendor_workspace_id"])
    asked = "" if consent == "automatic" else ", version by version, as you agree"
    session.output.say(("✓ ", "green"), f"{vendor} may move {title_of(session, found)}{asked}.")
    session.output.next_commands(f"bulkhead grants revoke {shlex.quote(typed_name(found))}")


@command(app, "list", examples=("bulkhead grants list", "bulkhead grants list --json"))
def list_grants(session: Session) -> None:
    """List the grants that the workspace gave, and those that it got."""
    entries = session.client.read_list(GRANT.path)
    if not session.output.as_json and entries:
        entries = _with_names(session, entries)
    session.show_list("grants", entries, _COLUMNS, "bulkhead grants give INSTALL")
    if not session.output.as_json and entries:
        session.output.next_commands(
            *(f"bulkhead grants consent {entry['id']}" for entry in entries if entry["waits"]),
            beside=True,
        )


@command(app, "revoke", examples=("bulkhead grants revoke shop-eu --yes",))
def revoke_grant(
    session: Session,
    grant: _GrantArgument,
    yes: YesOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Take a grant back: from this moment nothing of the vendor's begins on the install."""
    found = _grant_called(session, grant)
    name = clean(grant)
    if not yes:
        vendor = called(session, WORKSPACE, found["vendor_workspace_id"])
        effect = f"The vendor {vendor} can then no longer move it."
        confirm_by_name(session, name, doing="revoking", effect=effect, done="revoked")
    path = f"{GRANT.path}/{segment(found['id'])}"
    answer = session.client.change("DELETE", path, etag=found.get("etag"))
    if session.output.as_json:
        session.output.data(answer or {"id": found["id"], "revoked": True})
    else:
        session.output.say(("✓ ", "green"), f"The grant of {name} is revoked.")


@command(
    app,
    "consent",
    examples=("bulkhead grants consent shop-eu", "bulkhead grants consent shop-eu 1.5.0"),
)
def consent_to_version(
    session: Session,
    grant: _GrantArgument,
    version: Annotated[
        str | None,
        typer.Argument(
            metavar="VERSION",
            help="Its id, or its semantic version; without one, the version that waits.",
        ),
    ] = None,
) -> None:
    """Agree to a version: a rollout that waits for this goes on with the install."""
    found = _grant_called(session, grant)
    waiting: JsonObject = found.get("waiting_version") or {}
    version = version or waiting.get("semver")
    if version is None:
        message = f"No version waits for a consent to {clean(grant)}; name one."
        raise CliError(message, ExitCode.USAGE)
    is_waiting = version in {waiting.get("id"), waiting.get("semver")}
    chosen = waiting["id"] if is_waiting else _version_id(session, found, version)
    if is_waiting and not session.output.as_json:
        for check in waiting.get("checks") or ():
            session.output.say(
                f"  The vendor then checks it in your cluster: {_check_told(check)}."
            )
    body = {"package_version_id": chosen}
    path = f"{GRANT.path}/{segment(found['id'])}:consent"
    answer = session.client.change("POST", path, body=body)
    if session.output.as_json:
        session.output.data(answer)
    else:
        session.output.say(("✓ ", "green"), f"{clean(grant)} may get {clean(version)}.")


def _with_names(session: Session, grants: Sequence[JsonObject]) -> list[JsonObject]:
    """Return grants with what people call what they refer to."""
    products = {one["id"]: one for one in session.client.pages(PRODUCT.path)}
    clusters = {one["id"]: name_in(one) for one in session.client.pages(CLUSTER.path)}
    packages = [{"package_id": one["package"]["id"]} for one in products.values()]
    versions = semvers(session, packages)
    vendors = {one["vendor_workspace_id"] for one in grants if one["role"] == "given"}
    # A customer may belong to the vendor's workspace as well; who does not sees its id.
    workspaces = names_by_id(session, WORKSPACE, vendors)

    def other_side_of(grant: JsonObject) -> str:
        if grant["role"] != "given":
            return clean(grant["customer_workspace"]["name"])
        vendor: str = grant["vendor_workspace_id"]
        return workspaces.get(vendor, vendor)

    return [
        {
            **grant,
            "install": _install_name(grant, products, clusters),
            "version": versions.get(
                grant.get("current_version_id") or "", grant.get("current_version_id")
            ),
            "state": "in force" if grant.get("revoked_at") is None else "revoked",
            "other": other_side_of(grant),
            "waits": (grant.get("waiting_version") or {}).get("semver", ""),
            "age": age(grant["created_at"]),
        }
        for grant in grants
    ]


def _check_told(check: JsonObject) -> str:
    if check["kind"] == "job":
        command = " ".join([clean(check["image"]), *map(clean, check.get("command") or ())])
        return f"a Job of {command}"
    place = f"{clean(check.get('service'))}:{clean(check.get('port'))}{clean(check.get('path'))}"
    return f"its Service {place} is asked ({clean(check['kind'])})"


def _install_name(
    grant: JsonObject, products: Mapping[str, JsonObject], clusters: Mapping[str, str]
) -> str:
    """Return how a person calls the install: its label, or what it is of and where; else its id."""
    product = name_in(products.get(grant["product_id"]) or {})
    cluster = clusters.get(grant["cluster_id"], "")
    placed = f"{product or 'install'} on {cluster}" if cluster else ""
    return label_name_of(grant) or placed or clean(grant["install_id"])


def _grant_called(session: Session, text: str) -> JsonObject:
    """Read a grant by its id, or the one in force that an install has."""
    if is_id(GRANT, text):
        return session.client.get(f"{GRANT.path}/{segment(text)}")
    install = install_called(session, text)
    for entry in session.client.pages(GRANT.path):
        if entry["install_id"] == install["id"] and entry.get("revoked_at") is None:
            return entry
    message = f"No grant of {clean(text)} is in force."
    raise CliError(
        message,
        ExitCode.NOT_FOUND,
        next_commands=(f"bulkhead grants give {shlex.quote(clean(text))}",),
    )


def _version_id(session: Session, grant: JsonObject, version: str) -> str:
    if is_id(PACKAGE_VERSION, version):
        return version
    install = session.client.get(f"/installs/{segment(grant['install_id'])}")
    try:
        return str(version_of(session, install["package_id"], version)["id"])
    except ApiError as error:
        if error.exit_code is not ExitCode.NOT_FOUND:
            raise
        waiting = grant.get("waiting_version")
        message = (
            "The package is its vendor's, who tells the version's id: pkgv_..."
            if waiting is None
            else f"{clean(waiting['semver'])} waits; the vendor tells another one's id."
        )
        raise CliError(message, ExitCode.USAGE) from error
