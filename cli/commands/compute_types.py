"""Sizes of machines that a provider offers in the place of a compute config."""

import shlex
from typing import Annotated

import typer

from cli.commands.compute_configs import ConfigArgument
from cli.options import command
from cli.output import Column
from cli.preflight import instance_types, price_text, show_unknown_prices
from cli.session import COMPUTE_CONFIG, Session
from cli.text import clean

_MIB_A_GIB = 1024

_TYPE_COLUMNS = (
    Column("TYPE", "name"),
    Column("CPU", "cpu", right=True),
    Column("MEMORY", "memory", right=True),
    Column("DISK", "disk", right=True),
    Column("PROCESSOR", "architecture"),
    Column("OFFERED", "offered"),
    Column("AN HOUR", "price", right=True),
)


def add_commands(app: typer.Typer) -> None:
    """Register the command beside those of compute configs."""
    command(
        app,
        "types",
        examples=(
            "bulkhead compute-configs types hetzner",
            "bulkhead compute-configs types hetzner --json | jq -r '.[].name'",
        ),
    )(list_types)


def list_types(
    session: Session,
    config: ConfigArgument,
    all_types: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool, typer.Option("--all", help="Also what the provider has none of there now.")
    ] = False,
) -> None:
    """List the sizes of machines that the provider offers in the config's place."""
    found = session.resource(COMPUTE_CONFIG, config)
    entries = instance_types(session.client, found)
    entries = [entry for entry in entries if all_types or entry.get("available")]
    if not session.output.as_json:
        entries = [
            {
                **entry,
                "cpu": f"{entry['cpu']:g}",
                "memory": _gib(entry["memory_mib"]),
                "disk": _gib(entry["storage_mib"]),
                "offered": "yes" if entry.get("available") else "no",
                "price": price_text(entry.get("price_per_hour"), entry.get("currency")),
            }
            for entry in entries
        ]
    empty = f"bulkhead compute-configs update {shlex.quote(clean(found['name']))} --place PLACE"
    session.show_list("instance types", entries, _TYPE_COLUMNS, empty)
    if not session.output.as_json:
        show_unknown_prices(session, entries)


def _gib(mib: int | None) -> str:
    return "" if not mib else f"{round(mib / _MIB_A_GIB, 1):g} GiB"
