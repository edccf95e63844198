"""Emergency stops: while one is in force, nothing new begins in its scope."""

from collections.abc import Sequence
from typing import Annotated, Literal

import typer

from cli.client import JsonObject, segment
from cli.confirmation import confirm_by_name
from cli.errors import CliError, ExitCode
from cli.names import names_by_id
from cli.options import YesOption, command
from cli.output import Column
from cli.session import EMERGENCY_STOP, PRODUCT, REGION, Session
from cli.text import age, clean, plural

app = typer.Typer(
    help="Emergency stops: nothing new begins until they are lifted.", no_args_is_help=True
)

# What is stopped by its id; a provider has a name alone.
_SUBJECTS = {"product": PRODUCT, "region": REGION}

_COLUMNS = (
    Column("SCOPE", "scope"),
    Column("OF", "of"),
    Column("STATE", "shown_state"),
    Column("REASON", "reason", wraps=True),
    Column("AGE", "age"),
    Column("ID", "id", minor=True),
)


@command(
    app,
    "create",
    examples=(
        "bulkhead stops create --reason 'Incident 42'",
        "bulkhead stops create --scope product --of shop --reason 'Version 2 loses orders'",
        "bulkhead stops create --scope region --of frankfurt --reason 'Power failure' --yes",
    ),
)
def create_stop(
    session: Session,
    reason: Annotated[str, typer.Option(help="Why, as everybody reads it whom it stops.")],
    scope: Annotated[
        Literal["workspace", "product", "provider", "region", "all"],
        typer.Option(help="What is stopped; all is for the platform's own people."),
    ] = "workspace",
    subject: Annotated[
        str | None, typer.Option("--of", metavar="NAME", help="The product, provider or region.")
    ] = None,
    yes: YesOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Stop: within a second nothing new begins; what runs comes to a safe point and waits there."""
    has_subject = scope in {"product", "provider", "region"}
    if has_subject != (subject is not None):
        message = f"--scope {scope} " + ("needs --of NAME." if has_subject else "takes no --of.")
        raise CliError(message, ExitCode.USAGE)
    body: JsonObject = {"scope": scope, "reason": reason}
    if subject is not None:
        body["subject"] = _subject_id(session, scope, subject)
    if not yes:
        told = scope if subject is None else f"{scope} {clean(subject)}"
        effect = f"This holds every operation and rollout in its scope: {told}."
        confirm_by_name(session, scope, doing="stopping", effect=effect, done="stopped")
    made = session.client.create(EMERGENCY_STOP.path, body)
    if session.output.as_json:
        session.output.data(made)
        return
    session.output.say(("■ ", "red"), f"Stopped ({made['id']}): {clean(made['reason'])}")
    session.output.next_commands(f"bulkhead stops lift {made['id']}")


@command(app, "list", examples=("bulkhead stops list", "bulkhead stops list --all"))
def list_stops(
    session: Session,
    lifted_too: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool, typer.Option("--all", help="Also those that are lifted.")
    ] = False,
) -> None:
    """List the stops in force, those of the whole platform among them."""
    state = "all" if lifted_too else "in_force"
    entries = session.client.read_list(EMERGENCY_STOP.path, state=state)
    if not session.output.as_json:
        names = _names_of_subjects(session, entries)
        entries = [
            {
                **entry,
                "of": names.get(entry.get("subject") or "", entry.get("subject")),
                "shown_state": clean(entry["state"]).replace("_", " "),
                "age": age(entry["created_at"]),
            }
            for entry in entries
        ]
    empty: tuple[str, ...] = ()
    if not entries and session.output.shows_progress:
        told = "No stop was ever made" if lifted_too else "Nothing is stopped"
        how = "`bulkhead stops create --help` says what can be stopped; `bulkhead stops lift` ends"
        empty = (f"{told} in {session.place}.", f"{how} a stop.")
    session.output.listing(entries, _COLUMNS, empty)


@command(app, "lift", examples=("bulkhead stops lift stop_0199...",))
def lift_stop(
    session: Session,
    stop: Annotated[
        str | None,
        typer.Argument(metavar="STOP", help="Its id; by default the only one in force."),
    ] = None,
) -> None:
    """Let everything go on where it stopped; nothing that was done is done again."""
    stop_id = stop or _only_one(session)
    answer = session.client.change("POST", f"{EMERGENCY_STOP.path}/{segment(stop_id)}:lift")
    if session.output.as_json:
        session.output.data(answer)
        return
    others = len(session.client.read_list(EMERGENCY_STOP.path, state="in_force"))
    if others:
        left = f"{plural(others, 'other stop')} {'is' if others == 1 else 'are'} in force"
        session.output.say(("✓ ", "green"), f"{stop_id} is lifted; {left}.")
        session.output.next_commands("bulkhead stops list")
    else:
        session.output.say(("✓ ", "green"), f"{stop_id} is lifted; everything goes on.")


def _names_of_subjects(session: Session, stops: Sequence[JsonObject]) -> dict[str, str]:
    names: dict[str, str] = {}
    for scope, noun in _SUBJECTS.items():
        wanted = {stop["subject"] for stop in stops if stop["scope"] == scope}
        names |= names_by_id(session, noun, wanted)
    return names


def _subject_id(session: Session, scope: str, subject: str) -> str:
    noun = _SUBJECTS.get(scope)
    return subject if noun is None else session.id_of(noun, subject)


def _only_one(session: Session) -> str:
    in_force = session.client.read_list(EMERGENCY_STOP.path, state="in_force")
    if len(in_force) == 1:
        return str(in_force[0]["id"])
    message = "No stop is in force."
    if in_force:
        ids = ", ".join(str(entry["id"]) for entry in in_force)
        message = f"{len(in_force)} stops are in force; say which one: {ids}."
    raise CliError(
        message,
        ExitCode.USAGE if in_force else ExitCode.NOT_FOUND,
        next_commands=(EMERGENCY_STOP.list_command,),
    )
