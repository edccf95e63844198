"""Machines in clouds: suspended to a snapshot, resumed, replaced by new ones."""

import shlex
from typing import Annotated, Literal

import typer

from cli.client import JsonObject
from cli.commands.machines.group import (
    MachineArgument,
    app,
    ask,
    shown_name,
)
from cli.confirmation import confirm_by_name
from cli.leftovers import tell_what_is_left
from cli.options import NoWaitOption, YesOption, command
from cli.session import MACHINE, Session
from cli.text import duration
from cli.waiting import see_through


@command(app, "suspend", examples=("bulkhead machines suspend web-1",))
def suspend_machine(
    session: Session,
    machine: MachineArgument,
    reason: Annotated[
        Literal["manual", "downgrade"], typer.Option(help="Why, as is written down.")
    ] = "manual",
    no_wait: NoWaitOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Drain a machine in a cloud, keep its disk as a snapshot, and remove its server.

    A snapshot costs far less than a server; it is kept for 90 days.
    """
    found = session.resource(MACHINE, machine)
    name = shown_name(found)
    operation = ask(session, found, "POST", ":suspend", {"reason": reason})
    ended = see_through(session, operation, subject=name, no_wait=no_wait)
    if ended is not None:
        session.output.say(("✓ ", "green"), f"Machine {name} is suspended; its disk is kept.")
        tell_what_is_left(session, ended.operation)
        session.output.next_commands(f"bulkhead machines resume {shlex.quote(name)}")


@command(app, "resume", examples=("bulkhead machines resume web-1",))
def resume_machine(
    session: Session,
    machine: MachineArgument,
    no_wait: NoWaitOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Make a suspended machine's server again, from its snapshot."""
    found = session.resource(MACHINE, machine)
    name = shown_name(found)
    operation = ask(session, found, "POST", ":resume", {})
    ended = see_through(session, operation, subject=name, no_wait=no_wait)
    if ended is not None:
        session.output.say(
            ("✓ ", "green"),
            f"Machine {name} is active again after {duration(ended.elapsed_seconds)}.",
        )
        tell_what_is_left(session, ended.operation)


@command(
    app,
    "replace",
    examples=("bulkhead machines replace web-1", "bulkhead machines replace web-1 --yes"),
)
def replace_machine(
    session: Session,
    machine: MachineArgument,
    yes: YesOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
    no_wait: NoWaitOption = False,  # noqa: FBT002 - the same
) -> None:
    """Make a new machine of the same shape, and delete the old one when the new one is ready."""
    found = session.resource(MACHINE, machine)
    name = shown_name(found)
    if not yes:
        effect = f"This makes another machine like {name}, and then deletes {name} and its disk."
        confirm_by_name(session, name, doing="replacing", effect=effect, done="replaced")
    operation = ask(session, found, "POST", ":replace")
    ended = see_through(session, operation, subject=name, no_wait=no_wait)
    if ended is not None:
        _tell_replacement(session, name, ended.operation)


def _tell_replacement(session: Session, name: str, operation: JsonObject) -> None:
    new = (operation.get("response") or {}).get("machine_id")
    session.output.say(
        ("✓ ", "green"), f"Machine {name} is replaced" + (f" by {new}." if new else ".")
    )
    if new:
        session.output.next_commands(f"bulkhead machines get {new}")
