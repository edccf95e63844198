"""Leaks: what is left in accounts of the workspace and wanted by nobody."""

from typing import Annotated, Literal

import typer

from cli.client import JsonObject
from cli.options import command
from cli.output import Column
from cli.session import Session
from cli.text import age, clean, plural

_COLUMNS = (
    Column("PROVIDER", "provider"),
    Column("KIND", "kind"),
    Column("NAME", "name"),
    Column("PLACE", "place"),
    Column("STATE", "state"),
    Column("SEEN FOR", "seen_for"),
    Column("TRIED", "attempts", right=True),
    Column("LAST ERROR", "last_error", wraps=True),
    Column("PROVIDER'S ID", "cloud_id", minor=True),
)


def add_commands(app: typer.Typer) -> None:
    """Register the command at the top."""
    command(app, "leaks", examples=("bulkhead leaks", "bulkhead leaks --json"))(list_leaks)


def list_leaks(
    session: Session,
    state: Annotated[
        Literal["open", "resolved", "all"], typer.Option(help="Those that are gone, or all.")
    ] = "open",
) -> None:
    """List what carries the platform's tags in the workspace's accounts and nobody wants.

    What is surely the platform's own is being removed, again and again, until the account has none
    of it; an entry whose last error does not change needs a person. So does one with 0 tries: it
    may be somebody's, and the platform never removes it.
    """
    entries = session.client.read_list("/leaks", state=state)
    output = session.output
    if output.as_json:
        output.data(entries)
        return
    is_known = _tell_looks(session)
    if not entries and state == "open":
        if is_known:
            output.say(("✓ ", "green"), f"0 left: nothing that nobody wants, in {session.place}.")
        else:
            output.say(
                ("? ", "yellow"),
                "0 left where was looked; what is in the accounts marked ? is not known.",
            )
        return
    rows = [{**entry, "seen_for": age(entry["first_seen_at"])} for entry in entries]
    output.listing(rows, _COLUMNS, (f"No leaks in {session.place}.",))
    still = [entry for entry in entries if entry["state"] == "open"]
    tried = [entry for entry in still if entry["attempts"]]
    if tried:
        output.note((f"{_left(tried)}; ", "yellow"), "their removal is tried again on a schedule.")
    if untried := [entry for entry in still if not entry["attempts"]]:
        output.note(
            (f"{_left(untried)} and not tried; ", "yellow"),
            "what may be somebody's is left to you: remove it, or take the platform's tags off.",
        )


def _left(entries: list[JsonObject]) -> str:
    providers = ", ".join(sorted({clean(entry["provider"]) for entry in entries}))
    return f"{plural(len(entries), 'resource')} left at {providers}"


def _tell_looks(session: Session) -> bool:
    """Say when the account of each compute config was last looked at; return whether all were."""
    configs = session.client.read_list("/compute_configs")
    for config in configs:
        mark = ("  ", "") if _is_looked_at(config) else ("? ", "yellow")
        session.output.note(mark, f"{clean(config['name'])}: {_last_look(config)}")
    return all(map(_is_looked_at, configs))


def _is_looked_at(config: JsonObject) -> bool:
    return config.get("looked_at") is not None and not config.get("problem")


def _last_look(config: JsonObject) -> str:
    if "looked_at" not in config:
        return "it is not known when its account was looked at."
    problem = clean(config.get("problem"))
    if config["looked_at"] is None:
        return f"not looked at yet, which is done each hour. {problem}".rstrip()
    ago = age(config["looked_at"])
    return f"tried {ago} ago: {problem}" if problem else f"looked at {ago} ago."
