"""Operations: what every long-running request answers with."""

from collections.abc import Sequence
from typing import Annotated

import typer

from cli.client import JsonObject, segment
from cli.errors import CliError, ExitCode, StillRunningError
from cli.follow import follow
from cli.install_waits import APPROVAL
from cli.leftovers import tell_what_is_left
from cli.names import names_by_id
from cli.options import NoWaitOption, command
from cli.output import Column
from cli.progress import OperationProgress
from cli.session import CLUSTER, INSTALL, MACHINE, PACKAGE, Session
from cli.text import age, clean, duration, moment
from cli.waiting import OperationEndedError, subject_of, title_of, type_of

app = typer.Typer(help="Operations: watch and cancel what is going on.", no_args_is_help=True)

_COLUMNS = (
    Column("TYPE", "type"),
    Column("STATE", "state"),
    Column("TOOK", "took", right=True),
    Column("AGE", "age"),
    Column("ON", "on"),
    Column("ID", "id", minor=True),
)
_STEP_COLUMNS = (
    Column("STEP", "name"),
    Column("STATUS", "status"),
    Column("TOOK", "took", right=True),
    Column("DETAIL", "detail", wraps=True),
)

# What has a name that an operation does not tell. Not secrets: who may not look at them would be
# in the audit log for it.
_OWNERS = {
    "cluster": CLUSTER,
    "install": INSTALL,
    "machine": MACHINE,
    "package": PACKAGE,
}

OperationArgument = Annotated[str, typer.Argument(metavar="OPERATION", help="Its id, op_...")]


@command(
    app,
    "list",
    examples=("bulkhead operations list", "bulkhead operations list --cluster demo --limit 5"),
)
def list_operations(
    session: Session,
    cluster: Annotated[
        str | None, typer.Option(metavar="CLUSTER", help="Only those of a cluster: id or name.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
) -> None:
    """List operations, newest first."""
    owner: dict[str, object] = {}
    if cluster is not None:
        owner = {"owner_type": "cluster", "owner_id": session.id_of(CLUSTER, cluster)}
    entries = session.client.read_list("/operations", limit=limit, **owner)
    if not session.output.as_json:
        names = _names_of_owners(session, entries)
        entries = [
            {
                **entry,
                "on": names[entry["owner_id"]],
                "type": type_of(entry),
                "age": age(entry["started_at"]),
                "took": duration(OperationProgress(entry).elapsed_seconds),
            }
            for entry in entries
        ]
    session.show_list("operations", entries, _COLUMNS, "bulkhead clusters create NAME")


@command(app, "get", examples=("bulkhead operations get op_0199...",))
def get_operation(session: Session, operation: OperationArgument) -> None:
    """Show an operation and its steps."""
    found = _read(session, operation)
    progress = OperationProgress(found)
    error = found.get("error") or found.get("last_error") or {}
    output = session.output
    output.fields(
        found,
        (
            ("Operation", found["id"]),
            ("Type", type_of(found)),
            ("State", found["state"]),
            ("On", f"{found['owner_type']} {_named_owner(session, found)}"),
            ("Started", moment(found["started_at"])),
            ("Took" if found["done"] else "So far", duration(progress.elapsed_seconds)),
            ("Now", progress.notice or (None if found["done"] else progress.doing)),
            ("Left", (found.get("inventory") or {}).get("left")),
            ("Error", error.get("message")),
        ),
    )
    steps = progress.steps()
    if steps and not output.as_json:
        output.say()
        rows = [
            {
                "name": step.name,
                "status": step.status,
                "took": "" if step.seconds is None else duration(step.seconds),
                "detail": step.detail,
            }
            for step in steps
        ]
        output.listing(rows, _STEP_COLUMNS, ())
    _tell_next(session, found)


@command(
    app,
    "watch",
    examples=("bulkhead operations watch", "bulkhead operations watch op_0199..."),
)
def watch_operation(
    session: Session,
    operation: Annotated[
        str | None,
        typer.Argument(metavar="OPERATION", help="Its id; the newest running one by default."),
    ] = None,
) -> None:
    """Show an operation live until it ends; the exit code tells how it ended."""
    found = _newest_running(session) if operation is None else _read(session, operation)
    output = session.output
    subject = _names_of_owners(session, [found])[found["owner_id"]]
    seen = follow(session.client, output, found, title_of(found, subject))
    ended = seen.operation
    if output.as_json:
        output.data(ended)
    if ended["state"] != "SUCCEEDED":
        raise OperationEndedError(ended)
    output.say(("✓ ", "green"), f"{type_of(ended)} succeeded in {duration(seen.elapsed_seconds)}.")


@command(app, "cancel", examples=("bulkhead operations cancel op_0199...",))
def cancel_operation(
    session: Session,
    operation: OperationArgument,
    no_wait: NoWaitOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Ask an operation to stop and undo what it did, and wait until nothing is left of it."""
    found = _read(session, operation)
    answer = session.client.change("POST", f"/operations/{segment(found['id'])}:cancel")
    output = session.output
    if no_wait:
        if output.as_json:
            output.data(answer)
        else:
            output.say(f"Asked {found['id']} to stop.")
            output.next_commands(f"bulkhead operations watch {found['id']}")
        return
    try:
        seen = follow(session.client, output, answer, title_of(answer, subject_of(answer)))
    except StillRunningError as stopped:
        # The cancel was asked for already.
        stopped.next_commands = (f"bulkhead operations watch {found['id']}",)
        raise
    ended = seen.operation
    if output.as_json:
        output.data(ended)
    if ended["state"] == "FAILED":
        raise OperationEndedError(ended)
    if ended["state"] != "CANCELLED":
        message = f"{type_of(ended)} had succeeded before the cancel took effect."
        raise CliError(message, ExitCode.CONFLICT)
    output.say(("✓ ", "green"), f"{type_of(ended)} is cancelled and undone.")
    tell_what_is_left(session, ended)


def _named_owner(session: Session, operation: JsonObject) -> str:
    """Return the name and the id of what an operation changes; the id where it has no name."""
    owner_id = clean(operation["owner_id"])
    if session.output.as_json:
        return owner_id
    name = _names_of_owners(session, [operation])[operation["owner_id"]]
    return owner_id if name == owner_id else f"{name} ({owner_id})"


def _tell_next(session: Session, operation: JsonObject) -> None:
    """Say what can be typed about an operation that is under way."""
    if operation["done"]:
        return
    if operation.get("waiting_for") == APPROVAL:
        owner_id = clean(operation["owner_id"])
        session.output.next_commands(
            f"bulkhead installs plan {owner_id}", f"bulkhead installs approve {owner_id}"
        )
    operation_id = clean(operation["id"])
    session.output.next_commands(f"bulkhead operations watch {operation_id}")
    if operation.get("cancellable"):
        session.output.next_commands(f"bulkhead operations cancel {operation_id}")


def _names_of_owners(session: Session, operations: Sequence[JsonObject]) -> dict[str, str]:
    # What is deleted has its name in the operation that created it: the last of its entries.
    names = {entry["owner_id"]: subject_of(entry) for entry in operations}
    for kind, noun in _OWNERS.items():
        wanted = {entry["owner_id"] for entry in operations if entry["owner_type"] == kind}
        names |= names_by_id(session, noun, wanted)
    return names


def _read(session: Session, operation_id: str) -> JsonObject:
    return session.client.get(f"/operations/{segment(operation_id)}")


def _newest_running(session: Session) -> JsonObject:
    for entry in session.client.read_list("/operations", limit=100):
        if not entry["done"]:
            return _read(session, clean(entry["id"]))
    message = "No operation is running."
    raise CliError(message, ExitCode.NOT_FOUND, next_commands=("bulkhead operations list",))
