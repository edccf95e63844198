"""Machines: the servers of clusters."""

import shlex
from typing import Annotated

import typer

from cli.client import JsonObject, segment
from cli.completion import names_of
from cli.confirmation import confirm_by_name
from cli.errors import ApiError
from cli.options import NoWaitOption, command
from cli.output import Column
from cli.session import CLUSTER, MACHINE, Session
from cli.text import age, clean, duration, moment, remaining
from cli.waiting import see_through

app = typer.Typer(help="Machines: list, rename, cordon, delete.", no_args_is_help=True)

_COLUMNS = (
    Column("NAME", "shown_name"),
    Column("STATE", "state"),
    Column("HEALTH", "shown_health"),
    Column("CERTIFICATES", "certificates_end"),
    Column("BUSY", "busy"),
    Column("AGE", "age"),
    Column("ID", "id", minor=True),
)

_CERTIFICATES = (
    ("kubelet_client", "Kubelet certificate, client"),
    ("kubelet_serving", "Kubelet certificate, server"),
    ("tunnel", "Tunnel token"),
)

MachineArgument = Annotated[
    str,
    typer.Argument(metavar="MACHINE", help="Id or exact name.", autocompletion=names_of(MACHINE)),
]


@command(
    app,
    "list",
    examples=("bulkhead machines list", "bulkhead machines list --cluster demo --json"),
)
def list_machines(
    session: Session,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="CLUSTER", help="Of this one only.", autocompletion=names_of(CLUSTER)),
    ] = None,
) -> None:
    """List machines with their health, and when the first of their certificates ends."""
    filters: JsonObject = {}
    if cluster is not None:
        filters["cluster_id"] = session.id_of(CLUSTER, cluster)
    entries = session.client.read_list("/machines", **filters)
    if not session.output.as_json:
        entries = [
            {
                **entry,
                "shown_name": _name_of(entry),
                "shown_health": _health_of(entry),
                "certificates_end": remaining(_first_end(entry)),
                "busy": "yes" if entry.get("reconciling") else "",
                "age": age(entry["created_at"]),
            }
            for entry in entries
        ]
    session.show_list("machines", entries, _COLUMNS, "bulkhead bootstraps create CLUSTER")


@command(app, "get", examples=("bulkhead machines get web-1",))
def get_machine(session: Session, machine: MachineArgument) -> None:
    """Show a machine: its health and why, its certificates and its addresses."""
    _show(session, session.resource(MACHINE, machine))


@command(app, "rename", examples=("bulkhead machines rename web-1 front-1",))
def rename_machine(
    session: Session,
    machine: MachineArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Up to 120 characters.")],
) -> None:
    """Give a machine another name to be shown; its node keeps its own."""
    found = session.resource(MACHINE, machine)
    changed = session.client.change("PATCH", _path(found), etag=found["etag"], body={"name": name})
    _show(session, changed)


@command(app, "cordon", examples=("bulkhead machines cordon web-1",))
def cordon_machine(
    session: Session,
    machine: MachineArgument,
    no_wait: NoWaitOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Let a machine take no new pods; those on it stay."""
    found = session.resource(MACHINE, machine)
    name = _name_of(found)
    operation = _ask(session, found, "POST", ":cordon")
    if see_through(session, operation, subject=name, no_wait=no_wait) is not None:
        session.output.say(("✓ ", "green"), f"Machine {name} takes no new pods.")
        session.output.next_commands(f"bulkhead machines uncordon {shlex.quote(name)}")


@command(app, "uncordon", examples=("bulkhead machines uncordon web-1",))
def uncordon_machine(
    session: Session,
    machine: MachineArgument,
    no_wait: NoWaitOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Let a machine take new pods again."""
    found = session.resource(MACHINE, machine)
    name = _name_of(found)
    operation = _ask(session, found, "POST", ":uncordon")
    if see_through(session, operation, subject=name, no_wait=no_wait) is not None:
        session.output.say(("✓ ", "green"), f"Machine {name} takes new pods again.")


@command(
    app,
    "delete",
    examples=("bulkhead machines delete web-1", "bulkhead machines delete web-1 --yes --no-wait"),
)
def delete_machine(
    session: Session,
    machine: MachineArgument,
    yes: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool, typer.Option("--yes", "-y", help="Do not ask; needed where there is no terminal.")
    ] = False,
    no_wait: NoWaitOption = False,  # noqa: FBT002 - the same
) -> None:
    """Drain a machine and take it out of its cluster; the server is left as it was before."""
    found = session.resource(MACHINE, machine)
    name = _name_of(found)
    if not yes:
        effect = f"This drains machine {name} and takes it out of its cluster."
        confirm_by_name(session, name, doing="deleting", effect=effect, done="deleted")
    operation = _ask(session, found, "DELETE", "")
    ended = see_through(session, operation, subject=name, no_wait=no_wait)
    if ended is not None:
        session.output.say(
            ("✓ ", "green"),
            f"Machine {name} is out of its cluster after {duration(ended.elapsed_seconds)}.",
        )


def _path(machine: JsonObject) -> str:
    return f"/machines/{segment(machine['id'])}"


def _ask(session: Session, machine: JsonObject, method: str, verb: str) -> JsonObject:
    """Ask for a change of the machine; once more when it was changed since it was read."""
    path = f"{_path(machine)}{verb}"
    try:
        return session.client.change(method, path, etag=machine["etag"])
    except ApiError as error:
        if error.reason != "ABORTED":
            raise
        newer = session.client.get(_path(machine))
        if newer.get("name") != machine.get("name"):
            raise
        return session.client.change(method, path, etag=newer["etag"])


def _name_of(machine: JsonObject) -> str:
    return clean(machine.get("name") or machine.get("hostname") or machine["id"])


def _health_of(machine: JsonObject, *, with_since: bool = False) -> str:
    told = machine.get("health") or {}
    health = clean(told.get("state")) or "-"
    if with_since:
        health = f"{health} for {age(told.get('since'))}"
    return health if machine.get("schedulable", True) else f"{health}, cordoned"


def _first_end(machine: JsonObject) -> int | None:
    certificates = (machine.get("certificates") or {}).values()
    ends = [one["expires_at"] for one in certificates if one.get("expires_at") is not None]
    return min(ends, default=None)


def _show(session: Session, machine: JsonObject) -> None:
    health = machine.get("health") or {}
    certificates = machine.get("certificates") or {}
    offset = machine.get("clock_offset_seconds")
    session.output.fields(
        machine,
        (
            ("Name", _name_of(machine)),
            ("State", machine["state"]),
            ("Stage", machine.get("stage")),
            ("Health", _health_of(machine, with_since=True)),
            ("Because", health.get("reason")),
            ("Id", machine["id"]),
            ("Cluster", machine["cluster_id"]),
            ("Node", machine.get("node_name")),
            ("Server", machine.get("hostname")),
            ("Platform", f"{machine.get('operating_system')}/{machine.get('architecture')}"),
            ("Addresses", ", ".join(machine.get("addresses") or ())),
            ("Kubelet", machine.get("kubelet_version")),
            *(
                (label, _certificate(certificates[key]))
                for key, label in _CERTIFICATES
                if key in certificates
            ),
            ("Last report", f"{age(machine.get('last_report_at'))} ago"),
            ("Clock", None if offset is None else f"{offset:+d} s"),
            ("Operation", machine.get("active_operation_id")),
            ("Created", moment(machine["created_at"])),
        ),
    )


def _certificate(one: JsonObject) -> str | None:
    if one.get("expires_at") is None:
        return None
    return f"ends in {remaining(one['expires_at'])}, renewed {age(one.get('renewed_at'))} ago"
