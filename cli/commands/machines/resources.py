"""Machines themselves: listed, shown, renamed, cordoned, deleted."""

import shlex
import time
from typing import Annotated

import typer

from cli.client import JsonObject
from cli.commands.machines.group import (
    MachineArgument,
    app,
    ask,
    is_in_cloud,
    names_of_clusters,
    path_of,
    shown_name,
)
from cli.completion import names_of
from cli.confirmation import confirm_by_name
from cli.errors import ApiError
from cli.leftovers import tell_what_is_left
from cli.names import called
from cli.options import NoWaitOption, YesOption, command
from cli.output import Column
from cli.session import CLUSTER, MACHINE, Session
from cli.text import age, clean, duration, moment, remaining
from cli.waiting import see_through

_ForceOption = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Do not wait for a cluster that does not answer: nothing is drained there.",
    ),
]

_COLUMNS = (
    Column("NAME", "shown_name"),
    Column("CLUSTER", "cluster"),
    Column("STATE", "state"),
    Column("HEALTH", "shown_health"),
    Column("SIZE", "instance_type"),
    Column("PLACE", "place"),
    Column("CERTIFICATES", "certificates_end"),
    Column("BUSY", "busy"),
    Column("AGE", "age"),
    Column("ID", "id", minor=True),
)

# Servers report every 30 s and kubelets every 10 s: what is older missed one of them.
_HEARD_WITHIN_SECONDS = 45

_CERTIFICATES = (
    ("kubelet_client", "Kubelet certificate, client"),
    ("kubelet_serving", "Kubelet certificate, server"),
    ("tunnel", "Tunnel token"),
)


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
        clusters = names_of_clusters(session) if entries else {}
        entries = [
            {
                **entry,
                "shown_name": shown_name(entry),
                "cluster": clusters.get(entry["cluster_id"], entry["cluster_id"]),
                "shown_health": _health_of(entry),
                "certificates_end": remaining(_first_end(entry)),
                "busy": "yes" if entry.get("reconciling") else "",
                "age": age(entry["created_at"]),
            }
            for entry in entries
        ]
    session.show_list(
        "machines",
        entries,
        _COLUMNS,
        "bulkhead bootstraps create CLUSTER   (a server of yours; in a cloud: machines create)",
    )


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
    changed = session.client.change(
        "PATCH", path_of(found), etag=found["etag"], body={"name": name}
    )
    _show(session, changed)


@command(app, "cordon", examples=("bulkhead machines cordon web-1",))
def cordon_machine(
    session: Session,
    machine: MachineArgument,
    no_wait: NoWaitOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Let a machine take no new pods; those on it stay."""
    found = session.resource(MACHINE, machine)
    name = shown_name(found)
    operation = ask(session, found, "POST", ":cordon")
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
    name = shown_name(found)
    operation = ask(session, found, "POST", ":uncordon")
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
    yes: YesOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
    force: _ForceOption = False,  # noqa: FBT002 - the same
    no_wait: NoWaitOption = False,  # noqa: FBT002 - the same
) -> None:
    """Drain a machine and take it out of its cluster.

    A server that the platform made in a cloud is removed with everything that it had there, and
    the account is asked whether anything is left; one of your own is left as it was before.

    Where the cluster is lost, --force removes it all the same, also when its delete waits already.
    """
    found = session.resource(MACHINE, machine)
    name = shown_name(found)
    if not yes:
        effect = f"This drains machine {name} and takes it out of its cluster."
        if is_in_cloud(found):
            effect += " Its server and its disk are removed, for good."
        confirm_by_name(session, name, doing="deleting", effect=effect, done="deleted")
    try:
        operation = ask(session, found, "DELETE", "?force=true" if force else "")
    except ApiError as error:
        if not force and error.reason in {"CONFLICT", "FAILED_PRECONDITION"}:
            lost = f"bulkhead machines delete {shlex.quote(name)} --force   (is its cluster lost?)"
            error.next_commands = (*error.next_commands, lost)
        raise
    ended = see_through(session, operation, subject=name, no_wait=no_wait)
    if ended is not None:
        session.output.say(
            ("✓ ", "green"),
            f"Machine {name} is out of its cluster after {duration(ended.elapsed_seconds)}.",
        )
        tell_what_is_left(session, ended.operation)
        if is_in_cloud(found):
            session.output.next_commands(f"bulkhead machines inventory {found['id']}")


def _health_of(machine: JsonObject, *, with_since: bool = False) -> str:
    told, heard = machine.get("health") or {}, machine.get("last_heard_at")
    health = clean(told.get("state")) or "-"
    if with_since:
        health = f"{health} for {age(told.get('since'))}"
    # One that is suspended has no server to be heard of.
    is_awake = machine["state"] != "SUSPENDED"
    if is_awake and heard is not None and time.time() - heard > _HEARD_WITHIN_SECONDS:
        health = f"{health} (last heard of {age(heard)} ago)"
    return health if machine.get("schedulable", True) else f"{health}, cordoned"


def _ago(moment_of: object) -> str | None:
    return None if moment_of is None else f"{age(moment_of)} ago"


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
            ("Name", shown_name(machine)),
            ("State", machine["state"]),
            ("Stage", machine.get("stage")),
            ("Health", _health_of(machine, with_since=True)),
            ("Because", health.get("reason")),
            ("Id", machine["id"]),
            ("Cluster", called(session, CLUSTER, machine["cluster_id"])),
            ("Node", machine.get("node_name")),
            ("Server", machine.get("hostname")),
            ("Size", machine.get("instance_type")),
            ("Place", machine.get("place")),
            ("Provider", _provider_id(machine)),
            ("Public address", (machine.get("provider_resource") or {}).get("public_ip")),
            ("Platform", _platform(machine)),
            ("Addresses", ", ".join(machine.get("addresses") or ())),
            ("Snapshot", _snapshot(machine.get("current_suspension"))),
            ("Kubelet", machine.get("kubelet_version")),
            *(
                (label, _certificate(certificates[key]))
                for key, label in _CERTIFICATES
                if key in certificates
            ),
            ("Last report", _ago(machine.get("last_report_at"))),
            ("Last heard of", _ago(machine.get("last_heard_at"))),
            ("Clock", None if offset is None else f"{offset:+d} s"),
            ("Operation", machine.get("active_operation_id")),
            ("Created", moment(machine["created_at"])),
        ),
    )


def _provider_id(machine: JsonObject) -> str | None:
    # A machine without a server, such as one that is suspended, has an empty one.
    return (machine.get("provider_id") or None) if is_in_cloud(machine) else None


def _platform(machine: JsonObject) -> str | None:
    system = machine.get("operating_system")
    return f"{system}/{machine.get('architecture')}" if system else None


def _snapshot(suspension: JsonObject | None) -> str | None:
    if suspension is None:
        return None
    snapshot = suspension["snapshot_ref"]
    cents = suspension["monthly_cost_cents"]
    return (
        f"{clean(snapshot.get('id') or snapshot['snapshot_id'])}, {snapshot['size_gb']} GB, about "
        f"{cents / 100:.2f} a month, kept until {moment(suspension['expires_at'])}"
    )


def _certificate(one: JsonObject) -> str | None:
    if one.get("expires_at") is None:
        return None
    return f"ends in {remaining(one['expires_at'])}, renewed {age(one.get('renewed_at'))} ago"
