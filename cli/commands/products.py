"""Products: what a workspace offers of a package."""

import shlex
from typing import Annotated

import typer

from cli.client import JsonObject, segment
from cli.completion import names_of
from cli.errors import CliError, ExitCode
from cli.names import called
from cli.options import command
from cli.output import Column
from cli.session import PACKAGE, PRODUCT, Session
from cli.text import age, clean, moment

app = typer.Typer(help="Products: what is offered of a package.", no_args_is_help=True)

_COLUMNS = (
    Column("NAME", "name"),
    Column("STATE", "state"),
    Column("VERSION", "pin"),
    Column("OFFERED", "offered"),
    Column("AGE", "age"),
    Column("PACKAGE", "package_id", minor=True),
    Column("ID", "id", minor=True),
)

ProductArgument = Annotated[
    str,
    typer.Argument(metavar="PRODUCT", help="Id or exact name.", autocompletion=names_of(PRODUCT)),
]
_VersionOption = Annotated[
    str | None,
    typer.Option(
        "--version",
        metavar="VERSION",
        help="What new installs get: a version, or latest for the newest release.",
    ),
]
_PublishedOption = Annotated[
    bool | None,
    typer.Option(
        "--published/--unpublished",
        help="Whether other workspaces may install it.",
        show_default=False,
    ),
]


@command(
    app,
    "create",
    examples=(
        "bulkhead products create shop --package shop",
        "bulkhead products create shop --package shop --version 1.4.0 --published",
    ),
)
def create_product(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="2 to 64 characters.")],
    package: Annotated[
        str,
        typer.Option(metavar="PACKAGE", help="Id or exact name.", autocompletion=names_of(PACKAGE)),
    ],
    version: _VersionOption = None,
    published: _PublishedOption = None,
    description: Annotated[str | None, typer.Option(help="Up to 500 characters.")] = None,
) -> None:
    """Offer a package as a product; without --version new installs get the newest release."""
    body: JsonObject = {
        "name": name,
        "package_id": session.id_of(PACKAGE, package),
        "package_version_pin": _pin(version),
    }
    body |= _offer(published, description)
    made = session.client.create("/products", body)
    if session.output.as_json:
        session.output.data(made)
        return
    session.output.say(("✓ ", "green"), f"Product {clean(name)} ({made['id']})")
    session.output.next_commands(
        f"bulkhead installs create {shlex.quote(clean(name))} --cluster CLUSTER"
    )


@command(app, "list", examples=("bulkhead products list",))
def list_products(session: Session) -> None:
    """List the products of the workspace."""
    entries = session.client.read_list("/products")
    if not session.output.as_json:
        entries = [
            {
                **entry,
                "package_id": entry["package"]["id"],
                "pin": _pin_text(entry),
                "offered": _offered(entry),
                "age": age(entry["created_at"]),
            }
            for entry in entries
        ]
    session.show_list(
        "products", entries, _COLUMNS, "bulkhead products create NAME --package PACKAGE"
    )


@command(app, "get", examples=("bulkhead products get shop",))
def get_product(session: Session, product: ProductArgument) -> None:
    """Show a product."""
    _show(session, session.resource(PRODUCT, product))


@command(
    app,
    "update",
    examples=(
        "bulkhead products update shop --version 1.5.0",
        "bulkhead products update shop --published",
    ),
)
def update_product(
    session: Session,
    product: ProductArgument,
    name: Annotated[str | None, typer.Option(help="The new name.")] = None,
    version: _VersionOption = None,
    published: _PublishedOption = None,
    description: Annotated[str | None, typer.Option(help="Up to 500 characters.")] = None,
) -> None:
    """Change what is offered; installs that exist stay as they are."""
    body = _offer(published, description)
    if name is not None:
        body["name"] = name
    if version is not None:
        body["package_version_pin"] = _pin(version)
    if not body:
        message = "Nothing to change: give an option."
        raise CliError(message, ExitCode.USAGE)
    found = session.resource(PRODUCT, product)
    _show(session, session.client.change("PATCH", path_of(found), etag=found["etag"], body=body))


@command(app, "archive", examples=("bulkhead products archive shop --reason 'Replaced by shop2'",))
def archive_product(
    session: Session,
    product: ProductArgument,
    reason: Annotated[str | None, typer.Option(help="Up to 500 characters.")] = None,
) -> None:
    """Offer a product no more; what is installed stays, and nothing of it is rolled out."""
    found = session.resource(PRODUCT, product)
    body = {} if reason is None else {"archive_reason": reason}
    path = f"{path_of(found)}:archive"
    changed = session.client.change("POST", path, etag=found["etag"], body=body)
    if session.output.as_json:
        session.output.data(changed)
        return
    name = clean(found["name"])
    session.output.say(("✓ ", "green"), f"Product {name} is archived.")
    session.output.next_commands(f"bulkhead products unarchive {shlex.quote(name)}")


@command(app, "unarchive", examples=("bulkhead products unarchive shop",))
def unarchive_product(session: Session, product: ProductArgument) -> None:
    """Offer an archived product again."""
    found = session.resource(PRODUCT, product)
    path = f"{path_of(found)}:unarchive"
    changed = session.client.change("POST", path, etag=found["etag"], body={})
    if session.output.as_json:
        session.output.data(changed)
        return
    session.output.say(("✓ ", "green"), f"Product {clean(found['name'])} is offered again.")


def path_of(product: JsonObject) -> str:
    """Return the place of a product in the API."""
    return f"/products/{segment(product['id'])}"


def _pin(version: str | None) -> JsonObject:
    if version is None or version == "latest":
        return {"kind": "latest"}
    return {"kind": "pinned", "version": version.removeprefix("v")}


def _offer(published: bool | None, description: str | None) -> JsonObject:  # noqa: FBT001 - an option
    body: JsonObject = {}
    if published is not None:
        body["marketplace"] = {"published": published}
    if description is not None:
        body["custom_description"] = description
    return body


def _pin_text(product: JsonObject) -> str:
    pin = product["package"]["version_pin"]
    return clean(pin.get("version") or pin["kind"])


def _offered(product: JsonObject) -> str:
    return "to all" if product["marketplace"]["published"] else "here only"


def _show(session: Session, product: JsonObject) -> None:
    session.output.fields(
        product,
        (
            ("Name", product["name"]),
            ("State", product["state"]),
            ("Package", called(session, PACKAGE, product["package"]["id"])),
            ("Version", _pin_text(product)),
            ("Which is", product["package"].get("default_version_id")),
            ("Offered", _offered(product)),
            ("Description", product.get("custom_description")),
            ("Archived", product.get("archive_reason")),
            ("Id", product["id"]),
            ("Created", moment(product["created_at"])),
            ("Updated", moment(product["updated_at"])),
        ),
    )
