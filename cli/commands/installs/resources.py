"""Installs themselves: listed, shown, and how their objects are."""

import shlex
from typing import Annotated

import typer

from cli.client import NO_RETRY, JsonObject, segment
from cli.commands.installs.group import (
    InstallArgument,
    app,
    install_called,
    path_of,
    render_before,
    semvers,
    typed_name,
)
from cli.completion import names_of
from cli.errors import ApiError, CliError
from cli.install_waits import APPROVAL, wait_in_words, waits_of
from cli.names import called, title_of
from cli.options import command
from cli.output import Column
from cli.progress import OperationProgress
from cli.session import CLUSTER, PRODUCT, REGION, Session
from cli.text import age, clean, label_name_of, moment, name_in
from cli.waiting import title_of as operation_title

_COLUMNS = (
    Column("NAME", "shown_name"),
    Column("CLUSTER", "cluster"),
    Column("VERSION", "shown_version"),
    Column("STATE", "state"),
    Column("HEALTH", "health"),
    Column("SYNC", "sync"),
    Column("NOTE", "note", wraps=True),
    Column("AGE", "age"),
    Column("ID", "id", minor=True),
)
_OBJECT_COLUMNS = (
    Column("OBJECT", "object"),
    Column("SYNC", "status"),
    Column("HEALTH", "shown_health"),
    Column("WHY", "why", wraps=True),
)
_POD_COLUMNS = (
    Column("POD", "name"),
    Column("STATE", "state"),
    Column("READY", "shown_ready"),
    Column("RESTARTS", "restarts", right=True),
    Column("CONTAINERS", "shown_containers", wraps=True),
)


@command(
    app,
    "list",
    examples=("bulkhead installs list", "bulkhead installs list --product shop --json"),
)
def list_installs(
    session: Session,
    product: Annotated[
        str | None,
        typer.Option(metavar="PRODUCT", help="Of this one only.", autocompletion=names_of(PRODUCT)),
    ] = None,
) -> None:
    """List the workspace's installs; with --product, also those that customers granted to it."""
    filters: JsonObject = {}
    if product is not None:
        filters["product_id"] = session.id_of(PRODUCT, product)
    entries = session.client.read_list("/installs", **filters)
    waits: dict[str, str] = {}
    if not session.output.as_json and entries:
        clusters = {one["id"]: name_in(one) for one in session.client.pages(CLUSTER.path)}
        products = {one["id"]: name_in(one) for one in session.client.pages(PRODUCT.path)}
        versions = semvers(session, entries)
        busy = [entry["id"] for entry in entries if entry.get("reconciling")]
        waits = waits_of(session.client, busy)
        entries = [
            {
                **entry,
                "shown_name": label_name_of(entry)
                or products.get(entry.get("product_id"))
                or entry.get("product_id"),
                "cluster": clusters.get(entry["cluster_id"], entry["cluster_id"]),
                "shown_version": versions.get(
                    entry["package_version_id"], entry["package_version_id"]
                ),
                "note": _note(entry, waits.get(entry["id"])),
                "age": age(entry["created_at"]),
            }
            for entry in entries
        ]
    session.show_list(
        "installs", entries, _COLUMNS, "bulkhead installs create PRODUCT --cluster CLUSTER"
    )
    approve = [
        f"bulkhead installs approve {shlex.quote(typed_name(entry))}"
        for entry in entries
        if waits.get(entry["id"]) == APPROVAL
    ]
    session.output.next_commands(*approve, beside=True)


@command(app, "get", examples=("bulkhead installs get shop-eu",))
def get_install(session: Session, install: InstallArgument) -> None:
    """Show an install: its version, its rules, and what it is doing."""
    found = install_called(session, install)
    versions = {} if session.output.as_json else semvers(session, [found])
    shown = {key: versions.get(found.get(key) or "", found.get(key)) for key in _VERSION_FIELDS}
    operation = None if session.output.as_json else _operation_on(session, found)
    hold = found.get("hold")
    labels = ", ".join(f"{key}={value}" for key, value in sorted(found["labels"].items()))
    session.output.fields(
        found,
        (
            ("Name", label_name_of(found) or None),
            ("State", found["state"]),
            ("Health", found["health"]),
            ("Why", found.get("health_message")),
            ("Objects", found.get("sync")),
            ("Version", shown["current_version_id"] or shown["package_version_id"]),
            ("Becomes", _other(shown["desired_version_id"], shown["current_version_id"])),
            ("Channel", found["channel"]),
            ("By itself", _automatic(found)),
            ("Window", _window(found.get("update_window"))),
            ("Held", None if hold is None else _hold_text(hold)),
            ("Drift", "corrected" if found.get("drift_correction") else "told"),
            ("Labels", labels or None),
            ("Cluster", called(session, CLUSTER, found["cluster_id"])),
            ("Region", called(session, REGION, found["region_id"])),
            ("Product", called(session, PRODUCT, found.get("product_id"))),
            ("Id", found["id"]),
            ("Operation", found.get("active_operation_id")),
            ("Now", _now(operation)),
            ("Created", moment(found["created_at"])),
            ("Updated", moment(found["updated_at"])),
        ),
    )
    _tell_operation(session, found, operation)


@command(app, "status", examples=("bulkhead installs status shop-eu",))
def show_status(session: Session, install: InstallArgument) -> None:
    """Show how an install's objects are, the ones that are not healthy first."""
    found = install_called(session, install)
    status = session.client.get(f"{path_of(found)}/status")
    output = session.output
    if output.as_json:
        output.data(status)
        return
    output.fields(
        status,
        (
            ("Install", title_of(session, found)),
            ("Health", status.get("health") or "not seen yet"),
            ("Objects", status.get("sync")),
            ("Revision", status.get("revision")),
            ("Operation", status.get("operation_phase")),
            ("Seen", f"{age(status.get('updated_at'))} ago" if status.get("updated_at") else None),
        ),
    )
    resources = status.get("resources") or []
    output.say()
    rows = [_object_row(one) for one in resources]
    rows.sort(key=lambda row: (row["shown_health"] in {"Healthy", ""}, row["object"]))
    operation = _operation_on(session, found)
    output.listing(rows, _OBJECT_COLUMNS, (_why_nothing(session, found, operation),))
    _tell_operation(session, found, operation)
    typed = shlex.quote(typed_name(found))
    if any(row["shown_health"] in {"Degraded", "Missing"} for row in rows):
        output.next_commands(f"bulkhead installs logs {typed} --tail 50")
        if _has_render_before(session, found):
            output.next_commands(f"bulkhead installs restore {typed}")


@command(app, "pods", examples=("bulkhead installs pods shop-eu",))
def list_pods(session: Session, install: InstallArgument) -> None:
    """List the pods of an install, how they are, and their containers."""
    found = install_called(session, install)
    pods = session.client.get(f"{path_of(found)}/pods")["data"]
    nothing: tuple[str, ...] = ()
    if not session.output.as_json:
        name, typed = title_of(session, found), shlex.quote(typed_name(found))
        nothing = (f"{name} has no pods now. Why:", f"  bulkhead installs status {typed}")
        pods = [
            {
                **pod,
                "state": pod.get("reason") or pod.get("phase"),
                "shown_ready": {True: "yes", False: "no"}.get(pod.get("ready")),
                "shown_containers": ", ".join(pod["containers"]),
            }
            for pod in pods
        ]
    session.output.listing(pods, _POD_COLUMNS, nothing)


_VERSION_FIELDS = ("package_version_id", "current_version_id", "desired_version_id")


def _has_render_before(session: Session, install: JsonObject) -> bool:
    """Whether there is something to which an install can be restored."""
    try:
        return bool(render_before(session, install))
    except CliError:
        return False


def _operation_on(session: Session, install: JsonObject) -> JsonObject | None:
    """Return the operation under way on an install, for show only."""
    operation_id = install.get("active_operation_id")
    if not operation_id:
        return None
    try:
        return session.client.get(f"/operations/{segment(operation_id)}", retry=NO_RETRY)
    except ApiError:
        return None


def _now(operation: JsonObject | None) -> str | None:
    """Return what an operation waits for."""
    if operation is None:
        return None
    if operation.get("waiting_for") == APPROVAL:
        return wait_in_words(APPROVAL)
    return OperationProgress(operation).wait or None


def _why_nothing(session: Session, install: JsonObject, operation: JsonObject | None) -> str:
    """Say why no object of an install is shown: what is being done, and where that is."""
    if operation is None:
        return "No object of it was seen yet; ask again in a moment."
    title = operation_title(operation, title_of(session, install))
    doing = _now(operation) or OperationProgress(operation).doing
    return f"{title}: {doing}. No object of it was seen yet."


def _tell_operation(session: Session, install: JsonObject, operation: JsonObject | None) -> None:
    """Say how the operation on an install is watched, or its plan looked at and approved."""
    if operation is None:
        return
    if operation.get("waiting_for") == APPROVAL:
        typed = shlex.quote(typed_name(install))
        session.output.next_commands(
            f"bulkhead installs plan {typed}", f"bulkhead installs approve {typed}"
        )
    else:
        session.output.next_commands(f"bulkhead operations watch {clean(operation['id'])}")


def _object_row(resource: JsonObject) -> JsonObject:
    health = resource.get("health") or {}
    return {
        "object": f"{clean(resource['kind'])}/{clean(resource['name'])}",
        "status": resource.get("status"),
        "shown_health": clean(health.get("status")),
        "why": clean(health.get("message") or resource.get("message")),
    }


def _note(install: JsonObject, waiting_for: str | None) -> str:
    notes = []
    if install.get("granted"):
        notes.append(f"of {clean(install['customer_workspace']['name'])}")
    if install.get("hold"):
        notes.append("held")
    if install.get("pinned_semver"):
        notes.append(f"pinned to {clean(install['pinned_semver'])}")
    if install.get("reconciling"):
        notes.append("busy" if waiting_for is None else wait_in_words(waiting_for))
    return ", ".join(notes)


def _other(wanted: str | None, current: str | None) -> str | None:
    return None if wanted == current else wanted


def _automatic(install: JsonObject) -> str | None:
    if "automatic_updates_enabled" not in install:
        return None
    pin = install.get("pinned_semver")
    told = "new versions of its channel" if install["automatic_updates_enabled"] else "nothing"
    return told if pin is None else f"{told}; pinned to {clean(pin)}"


def _window(window: JsonObject | None) -> str | None:
    if window is None:
        return None
    days = ", ".join(window["days"])
    return f"{window['start']} to {window['end']} on {days} ({window['timezone']})"


def _hold_text(hold: JsonObject) -> str:
    until = "" if hold.get("until") is None else f", until {moment(hold['until'])}"
    return f"{clean(hold['reason'])} (for {age(hold['since'])}{until})"
