"""Which installs a rollout is for, as people write it."""

import shlex
from collections.abc import Sequence
from typing import Annotated, Literal

import typer

from cli.arguments import pairs_of
from cli.client import JsonObject
from cli.commands.installs.group import names_of_installs
from cli.completion import finished, names_of
from cli.errors import CliError, ExitCode
from cli.session import CLUSTER, INSTALL, REGION, Session, is_id
from cli.text import clean, label_name_of

RegionOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="REGION", help="Only there; may be repeated.", autocompletion=names_of(REGION)
    ),
]
LabelOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Only installs with it; may be repeated."),
]
ChannelOption = Annotated[
    Literal["stable", "edge"] | None, typer.Option(help="Only installs of this channel.")
]
InstallOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="INSTALL",
        help="Only this one, by its id, its label `name` or its cluster; may be repeated.",
        autocompletion=finished(names_of_installs),
    ),
]


def selector_of(
    session: Session,
    product: JsonObject,
    regions: Sequence[str] | None,
    labels: Sequence[str] | None,
    channel: str | None,
    installs: Sequence[str] | None,
) -> JsonObject:
    """Return which installs of a product are meant; what is absent bounds nothing.

    Raises:
        CliError: a region or an install is unknown, or several are called so.
    """
    selector: JsonObject = {}
    if regions:
        selector["regions"] = [session.id_of(REGION, region) for region in regions]
    if labels:
        selector["labels"] = pairs_of(labels, "--label")
    if channel is not None:
        selector["channel"] = channel
    if installs:
        selector["install_ids"] = _ids_of(session, product, installs)
    return selector


def _ids_of(session: Session, product: JsonObject, texts: Sequence[str]) -> list[str]:
    """Return the ids of installs of a product, those that customers granted among them."""
    if all(is_id(INSTALL, text) for text in texts):
        return list(dict.fromkeys(texts))
    installs = list(session.client.pages(INSTALL.path, product_id=product["id"]))
    clusters = {one["id"]: clean(one["name"]) for one in session.client.pages(CLUSTER.path)}

    def id_of(text: str) -> str:
        if is_id(INSTALL, text):
            return text
        meant = [one["id"] for one in installs if text in _labels_of(one)] or [
            one["id"] for one in installs if clusters.get(one["cluster_id"]) == text
        ]
        if len(meant) != 1:
            raise _not_one(product, text, meant)
        return str(meant[0])

    return list(dict.fromkeys(map(id_of, texts)))


def _labels_of(install: JsonObject) -> set[str]:
    """Return what an install is called by its label; a customer's also as lists show it."""
    label = label_name_of(install)
    if not label or not install.get("granted"):
        return {label} - {""}
    customer = clean((install.get("customer_workspace") or {}).get("name"))
    return {label, f"{label} of {customer}"}


def _not_one(product: JsonObject, text: str, meant: Sequence[str]) -> CliError:
    name = clean(product["name"])
    listed = (f"bulkhead installs list --product {shlex.quote(name)}",)
    if not meant:
        message = f"{name} has no install {text!r}, and no cluster of this name has one of it."
        return CliError(message, ExitCode.NOT_FOUND, next_commands=listed)
    message = f"{len(meant)} installs are meant by {text!r}; use an id instead: {', '.join(meant)}."
    return CliError(message, ExitCode.USAGE, next_commands=listed)
