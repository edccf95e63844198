"""Packages: charts with immutable versions."""

import contextlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from cli.client import JsonObject, segment
from cli.completion import names_of
from cli.confirmation import confirm_by_name
from cli.documents import document_in
from cli.errors import ApiError, CliError, ExitCode
from cli.options import NoWaitOption, YesOption, command
from cli.output import Column
from cli.session import PACKAGE, PACKAGE_VERSION, PRODUCT, Session, is_id
from cli.text import age, clean, duration, moment, plural
from cli.waiting import see_through

app = typer.Typer(help="Packages: charts, with versions that never change.", no_args_is_help=True)

_COLUMNS = (
    Column("NAME", "name"),
    Column("SOURCE", "place", wraps=True),
    Column("NEWEST", "newest"),
    Column("AGE", "age"),
    Column("ID", "id", minor=True),
)
_VERSION_COLUMNS = (
    Column("VERSION", "semver"),
    Column("CHANNEL", "channel"),
    Column("PUBLISHED", "published"),
    Column("ID", "id"),
    Column("CHART", "ref", minor=True),
)

_ReferenceOption = Annotated[
    str | None,
    typer.Option(
        metavar="REFERENCE", help="The chart, its tag or its digest, where it is not the version."
    ),
]
_InputsOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A JSON Schema of the values that customers may give."),
]
PackageArgument = Annotated[
    str,
    typer.Argument(metavar="PACKAGE", help="Id or exact name.", autocompletion=names_of(PACKAGE)),
]


@command(
    app,
    "create",
    examples=(
        "bulkhead packages create shop oci://registry.example.com/charts/shop --revision 1.4.0",
        "bulkhead packages create web https://charts.example.com --chart web --revision '^2'",
    ),
)
def create_package(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 120 characters.")],
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="oci:// with the chart's name, or a repository."),
    ],
    revision: Annotated[
        str, typer.Option(metavar="VERSION", help="The first version: one, or a range of them.")
    ],
    chart: Annotated[
        str | None, typer.Option(metavar="NAME", help="The chart, where SOURCE does not name it.")
    ] = None,
    values: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Defaults of the package over those of the chart."),
    ] = None,
    no_wait: NoWaitOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Make a package of a chart; its first version is resolved to a digest.

    A private registry is read with what `bulkhead registries create` stored.
    """
    place: JsonObject = {"kind": "helm", "repo_url": source, "target_revision": revision}
    if chart is not None:
        place["chart"] = chart
    if values is not None:
        place["values"] = document_in(values)
    operation = session.client.create("/packages", {"name": name, "sources": [place]})
    ended = see_through(session, operation, subject=name, no_wait=no_wait)
    if ended is None:
        return
    took = duration(ended.elapsed_seconds)
    session.output.say(("✓ ", "green"), f"Package {clean(name)} is there after {took}.")
    quoted = shlex.quote(clean(name))
    session.output.next_commands(
        f"bulkhead packages get {quoted}", f"bulkhead products create NAME --package {quoted}"
    )


@command(app, "list", examples=("bulkhead packages list",))
def list_packages(session: Session) -> None:
    """List the packages of the workspace."""
    entries = session.client.read_list("/packages")
    if not session.output.as_json:
        entries = [
            {
                **entry,
                "place": _place_of(entry),
                "newest": _newest(session, entry),
                "age": age(entry["created_at"]),
            }
            for entry in entries
        ]
    session.show_list(
        "packages", entries, _COLUMNS, "bulkhead packages create NAME oci://... --revision VERSION"
    )


@command(app, "get", examples=("bulkhead packages get shop", "bulkhead packages get shop --json"))
def get_package(session: Session, package: PackageArgument) -> None:
    """Show a package and its versions, newest first."""
    found = session.resource(PACKAGE, package)
    versions = session.client.read_list(f"{path_of(found)}/versions")
    output = session.output
    if output.as_json:
        output.data({**found, "versions": versions})
        return
    output.fields(
        found,
        (
            ("Name", found["name"]),
            ("Source", _place_of(found)),
            ("Description", found.get("description")),
            ("Id", found["id"]),
            ("Created", moment(found["created_at"])),
        ),
    )
    output.say()
    rows = [{**entry, "published": age(entry["published_at"])} for entry in versions]
    output.listing(rows, _VERSION_COLUMNS, ("No version is published yet.",))


@command(
    app,
    "publish",
    examples=(
        "bulkhead packages publish shop 1.5.0",
        "bulkhead packages publish shop 1.5.0 --kubernetes-min 1.33 --provider hcloud",
        "bulkhead packages publish shop 2.0.0 --ref oci://registry.example.com/charts/shop:2.0.0",
    ),
)
def publish_version(
    session: Session,
    package: PackageArgument,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A semantic version.")],
    ref: _ReferenceOption = None,
    inputs: _InputsOption = None,
    kubernetes_min: Annotated[
        str | None, typer.Option(metavar="VERSION", help="The least Kubernetes that it runs on.")
    ] = None,
    kubernetes_max: Annotated[
        str | None, typer.Option(metavar="VERSION", help="The newest Kubernetes it runs on.")
    ] = None,
    provider: Annotated[
        list[str] | None, typer.Option(metavar="PROVIDER", help="Only there; may be repeated.")
    ] = None,
    region: Annotated[
        list[str] | None, typer.Option(metavar="REGION", help="Only there; may be repeated.")
    ] = None,
) -> None:
    """Publish a version, resolved to a digest; what is published never changes.

    Nothing is installed by this: `bulkhead rollouts create` brings it to installs.
    """
    found = session.resource(PACKAGE, package)
    body: JsonObject = {
        "semver": version,
        "ref": ref or version,
        "input_schema": {} if inputs is None else document_in(inputs),
    }
    compatibility = _compatibility(kubernetes_min, kubernetes_max, provider, region)
    if compatibility is not None:
        body["compatibility"] = compatibility
    made = session.client.create(f"{path_of(found)}/versions", body)
    output = session.output
    if output.as_json:
        output.data(made)
        return
    output.say(("✓ ", "green"), f"{clean(found['name'])} {clean(made['semver'])} ({made['id']})")
    output.say(("  chart: ", "dim"), clean(made["ref"]), copied=True)
    output.next_commands(
        f"bulkhead rollouts create PRODUCT {clean(made['semver'])} --plan-only",
    )


@command(
    app,
    "inputs",
    examples=("bulkhead packages inputs shop", "bulkhead packages inputs shop 1.4.0 > schema.json"),
)
def show_inputs(
    session: Session,
    package: PackageArgument,
    version: Annotated[
        str | None, typer.Argument(metavar="VERSION", help="By default the newest one.")
    ] = None,
) -> None:
    """Print the JSON Schema of a version's values."""
    found = session.resource(PACKAGE, package)
    chosen = version_of(session, found["id"], version or found["latest_version_id"])
    answer = session.client.get(f"{path_of(found)}/versions/{segment(chosen['id'])}/inputs")
    session.output.raw(json.dumps(answer, indent=2) + "\n")


@command(app, "delete", examples=("bulkhead packages delete shop --yes",))
def delete_package(
    session: Session,
    package: PackageArgument,
    yes: YesOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Delete a package and its versions. Refused while a product or an install is of it.

    Products are archived and never deleted, so that their package stays with them.
    """
    found = session.resource(PACKAGE, package)
    name = clean(found["name"])
    if not yes:
        effect = f"This deletes package {name} and all of its versions; charts stay where they are."
        confirm_by_name(session, name, doing="deleting", effect=effect, done="deleted")
    try:
        session.client.change("DELETE", path_of(found), etag=found.get("etag"))
    except ApiError as error:
        if "product_ids" in error.metadata:
            # What the API said stands where its products cannot be read.
            with contextlib.suppress(CliError):
                error.message, error.next_commands = _why_it_stays(session, name, error.metadata)
        raise
    if session.output.as_json:
        session.output.data({"id": found["id"], "deleted": True})
    else:
        session.output.say(("✓ ", "green"), f"Package {name} is deleted.")


def path_of(package: JsonObject) -> str:
    """Return the place of a package in the API."""
    return f"/packages/{segment(package['id'])}"


def version_of(session: Session, package_id: str, version: str) -> JsonObject:
    """Read a version of a package by its id or its semantic version.

    Raises:
        CliError: there is none.
    """
    path = f"/packages/{segment(package_id)}/versions"
    if is_id(PACKAGE_VERSION, version):
        return session.client.get(f"{path}/{segment(version)}")
    for entry in session.client.pages(path):
        if entry["semver"] == version.removeprefix("v"):
            return entry
    message = f"The package has no version {version!r}."
    raise CliError(
        message, ExitCode.NOT_FOUND, next_commands=(f"bulkhead packages get {package_id}",)
    )


def _why_it_stays(
    session: Session, name: str, held_by: Mapping[str, str]
) -> tuple[str, tuple[str, ...]]:
    """Return why a package is not deleted, and what can be done instead."""
    ids = [one for one in held_by["product_ids"].split(",") if one]
    products = [session.client.get(f"{PRODUCT.path}/{segment(one)}") for one in ids]
    offered = [one for one in products if one["state"] != "archived"]
    installs = int(held_by.get("installs", "0"))
    told = [f"Package {name} stays."]
    if products:
        told.append(f"It is that of {_names(products)}; products can be archived, not deleted.")
        nothing = "Nothing of it is offered any more."
        effect = f"Archive {_names(offered)}: nothing of it is offered then."
        told.append(effect if offered else nothing)
    if installs:
        told.append(f"It has {plural(installs, 'install')}.")
    archive = [f"bulkhead products archive {shlex.quote(clean(one['name']))}" for one in offered]
    return " ".join(told), (*archive, *(("bulkhead installs list",) if installs else ()))


def _names(products: Sequence[JsonObject]) -> str:
    return ", ".join(clean(one["name"]) for one in products)


def _newest(session: Session, package: JsonObject) -> str:
    version = package.get("latest_version_id")
    if not version:
        return "none yet"
    return clean(version_of(session, package["id"], version)["semver"])


def _place_of(package: JsonObject) -> str:
    source = package.get("source") or {}
    return clean(source.get("oci_ref") or source.get("repo_url") or source.get("repository_id"))


def _compatibility(
    kubernetes_min: str | None,
    kubernetes_max: str | None,
    providers: list[str] | None,
    regions: list[str] | None,
) -> JsonObject | None:
    bounds = {
        key: value
        for key, value in (("minVersion", kubernetes_min), ("maxVersion", kubernetes_max))
        if value is not None
    }
    if not bounds and not providers and not regions:
        return None
    return {
        "clusterTypes": ["managed_kaas"],
        "kubernetes": bounds,
        "placement": {"providers": providers or "any", "regions": regions or "any"},
    }
