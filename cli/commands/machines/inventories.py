"""What the account at the provider still has of a machine, and how the machine has drifted."""

import json
import shlex
from typing import Annotated

import typer

from cli.client import JsonObject
from cli.commands.machines.group import MachineArgument, app, is_in_cloud, path_of, shown_name
from cli.errors import ApiError, ExitCode
from cli.leftovers import verdict_on
from cli.options import command
from cli.output import Column
from cli.session import MACHINE, Session, is_id
from cli.text import age, clean, moment

_COLUMNS = (
    Column("KIND", "kind"),
    Column("NAME", "name"),
    Column("PLACE", "place"),
    Column("BILLED", "billed"),
    Column("WANTED", "is_wanted"),
    Column("AGE", "age"),
    Column("PROVIDER'S ID", "id", minor=True),
)
_DRIFT_COLUMNS = (
    Column("WHEN", "when"),
    Column("STATE", "state"),
    Column("TRIGGER", "trigger"),
    Column("WHAT DIFFERS", "what", wraps=True),
    Column("ID", "id", minor=True),
)

_MOST_REPORTS = 20


@command(
    app,
    "inventory",
    examples=("bulkhead machines inventory web-1", "bulkhead machines inventory mch_0199..."),
)
def show_inventory(session: Session, machine: MachineArgument) -> None:
    """Show what the account at the provider had of a machine when it was last asked.

    It is asked by tag, with the provider's own client, after each create, failure, cancel and
    delete. A machine that is gone is found by its id.
    """
    machine_id = machine if is_id(MACHINE, machine) else session.id_of(MACHINE, machine)
    inventory = session.client.get(f"{path_of({'id': machine_id})}/inventory")
    output = session.output
    if output.as_json:
        output.data(inventory)
        return
    resources = inventory.get("resources") or []
    output.listing(
        [
            {
                **one,
                "billed": "yes" if one.get("costs") else "",
                "is_wanted": "" if one.get("wanted") is None else _yes(one["wanted"]),
                "age": age(one.get("created_at")),
            }
            for one in resources
        ],
        _COLUMNS,
        (),
    )
    if inventory.get("taken_at") is None and _is_own_server(session, machine_id):
        output.say("It is a server of your own: there is no account to ask.")
        return
    taken = moment(inventory.get("taken_at"), missing="never yet")
    output.say(*verdict_on(inventory), f" Taken {taken}.")
    if inventory.get("left"):
        output.next_commands("bulkhead leaks")


@command(
    app,
    "drift",
    examples=("bulkhead machines drift web-1", "bulkhead machines drift web-1 --look"),
)
def show_drift(
    session: Session,
    machine: MachineArgument,
    look: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool, typer.Option("--look", help="Ask the provider now, instead of showing old reports.")
    ] = False,
) -> None:
    """Show how a machine differs at the provider from what its stack says; nothing is mended."""
    found = session.resource(MACHINE, machine)
    path = f"{path_of(found)}/drift_reports"
    if look:
        reports = [session.client.create(path, {"trigger": "manual"})]
    else:
        reports = session.client.read_list(path, limit=_MOST_REPORTS)
    if not session.output.as_json:
        reports = [
            {
                **report,
                "when": f"{age(report['created_at'])} ago",
                "what": _differences(report.get("delta") or {}),
            }
            for report in reports
        ]
    begin = f"bulkhead machines drift {shlex.quote(shown_name(found))} --look"
    session.show_list("drift reports", reports, _DRIFT_COLUMNS, begin)


def _is_own_server(session: Session, machine_id: str) -> bool:
    """Whether a machine is there, and its server is none that the platform made."""
    try:
        return not is_in_cloud(session.client.get(path_of({"id": machine_id})))
    except ApiError as error:
        if error.exit_code is not ExitCode.NOT_FOUND:
            raise
        return False


def _yes(value: object) -> str:
    return "yes" if value else "no"


def _differences(delta: JsonObject) -> str:
    """Return what differs, by resource: `server: serverType`."""
    told = []
    for resource, what in sorted(delta.items()):
        if isinstance(what, dict):
            told.append(f"{resource}: {', '.join(sorted(map(str, what)))}")
        elif isinstance(what, list):
            told.append(f"{resource}: {', '.join(map(str, what))}")
        else:
            text = what if isinstance(what, str) else json.dumps(what)
            told.append(f"{resource}: {text}")
    return clean("; ".join(told))
