"""Rollouts looked at: listed, shown, watched, their installs and their timelines."""

import shlex
from collections.abc import Sequence
from typing import Annotated

import typer

from cli.client import JsonObject
from cli.commands.installs.group import semvers
from cli.commands.rollouts.group import (
    RolloutArgument,
    app,
    follow_rollout,
    path_of,
    rollout_called,
    tell_end,
    title_of,
)
from cli.completion import names_of
from cli.options import command
from cli.output import Column
from cli.rollout_names import wave_called, wave_in_words, wave_name
from cli.rollout_progress import RolloutProgress, reason_to_wait, timeline
from cli.rollout_views import counts_text
from cli.session import PRODUCT, Session
from cli.text import age, clean, duration, moment, name_in

_COLUMNS = (
    Column("PRODUCT", "product"),
    Column("VERSION", "version"),
    Column("STATE", "state"),
    Column("WAVE", "wave_of", right=True),
    Column("INSTALLS", "installs", wraps=True),
    Column("WHY", "reason", wraps=True),
    Column("AGE", "age"),
    Column("ID", "id"),
)
_WAVE_COLUMNS = (
    Column("WAVE", "name"),
    Column("INSTALLS", "targets", right=True),
    Column("MOVED", "moved", right=True),
    Column("SKIPPED", "skipped", right=True),
    Column("FAILED", "failed", right=True),
    Column("OTHERS", "others", wraps=True),
)
_TARGET_COLUMNS = (
    Column("INSTALL", "name"),
    Column("WAVE", "shown_wave"),
    Column("STATE", "state"),
    Column("HEALTH", "health"),
    Column("WHY", "why", wraps=True),
    Column("HELPS", "command", minor=True),
    Column("ID", "install_id", minor=True),
)
# What has a column of its own.
_COUNTED = frozenset({"moved", "skipped", "failed"})


@command(
    app,
    "list",
    examples=("bulkhead rollouts list", "bulkhead rollouts list --product shop --limit 5"),
)
def list_rollouts(
    session: Session,
    product: Annotated[
        str | None,
        typer.Option(metavar="PRODUCT", help="Of this one only.", autocompletion=names_of(PRODUCT)),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
) -> None:
    """List rollouts, newest first."""
    filters: JsonObject = {}
    if product is not None:
        filters["product_id"] = session.id_of(PRODUCT, product)
    entries = session.client.read_list("/rollouts", limit=limit, **filters)
    if not session.output.as_json and entries:
        entries = _with_names(session, entries)
    session.show_list("rollouts", entries, _COLUMNS, "bulkhead rollouts create PRODUCT VERSION")


@command(app, "get", examples=("bulkhead rollouts get", "bulkhead rollouts get roll_0199..."))
def get_rollout(session: Session, rollout: RolloutArgument = None) -> None:
    """Show a rollout with its waves, what waits, and how it was meant to spread."""
    found = rollout_called(session, rollout, live_only=False)
    output = session.output
    if output.as_json:
        output.data(found)
        return
    progress = RolloutProgress(session.client, found)
    strategy = found["strategy"]
    output.fields(
        found,
        (
            ("Brings", title_of(session, found)),
            ("State", found["state"]),
            ("Why", progress.reason or None),
            ("Took" if found["done"] else "So far", duration(progress.elapsed_seconds)),
            ("Waiting", _waiting(found["waiting"])),
            ("Plan", found.get("plan_digest")),
            ("Approved", _approvals(found)),
            ("Gate", strategy["gate"]),
            ("Bakes", duration(strategy["bake_seconds"])),
            ("At a time", strategy["concurrency"]),
            ("May fail", _share(strategy["error_budget"])),
            ("Until", moment(found.get("deadline_at"))),
            ("Id", found["id"]),
            ("Created", f"{moment(found['created_at'])} by {found['created_by']}"),
        ),
    )
    output.say()
    rows = [
        {
            "name": wave.name,
            "targets": wave.targets,
            "moved": wave.moved,
            "skipped": wave.skipped,
            "failed": wave.failed,
            "others": _counts(wave.counts, without=_COUNTED),
        }
        for wave in progress.waves()
    ]
    output.listing(rows, _WAVE_COLUMNS, ("Its waves are not decided yet.",))
    output.next_commands(f"bulkhead rollouts targets {found['id']}", *_what_goes_on(found))


@command(app, "watch", examples=("bulkhead rollouts watch", "bulkhead rollouts watch shop"))
def watch_rollout(session: Session, rollout: RolloutArgument = None) -> None:
    """Show waves and installs live until the rollout ends; the exit code tells how it ended.

    0: it brought the version, except to what was left out. 7: it failed, or its way back did. 8: a
    person cancelled it or had it taken back.
    """
    found = rollout_called(session, rollout, live_only=rollout is None)
    tell_end(session, follow_rollout(session, found))


@command(
    app,
    "targets",
    examples=(
        "bulkhead rollouts targets",
        "bulkhead rollouts targets roll_0199... --state waiting",
    ),
)
def list_targets(
    session: Session,
    rollout: RolloutArgument = None,
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help="Such as waiting, moving or failed.")
    ] = None,
    wave: Annotated[
        str | None, typer.Option(metavar="WAVE", help="Of this one only: canary, 1, 2 and so on.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, in the order they move.")] = 50,
) -> None:
    """List a rollout's installs: why each is not further, when it is tried again, what helps."""
    found = rollout_called(session, rollout, live_only=False)
    number = None if wave is None else wave_called(found, wave)
    entries = session.client.read_list(
        f"{path_of(found)}/targets", limit=limit, state=state, wave=number
    )
    if not session.output.as_json:
        progress = RolloutProgress(session.client, found)
        rows = []
        for entry in progress.with_waits(entries):
            view = progress.view_of(entry)
            rows.append(
                {
                    **entry,
                    "name": view.name,
                    "shown_wave": view.wave,
                    "why": view.detail,
                    "command": view.command or None,
                }
            )
        entries = rows
    session.output.listing(entries, _TARGET_COLUMNS, ("No install of it is so.",))
    if not session.output.as_json and len(entries) == limit:
        session.output.note(f"Only the first {limit} are shown; --limit shows more.")


@command(app, "events", examples=("bulkhead rollouts events roll_0199...",))
def list_events(session: Session, rollout: RolloutArgument = None) -> None:
    """Print the timeline of a rollout."""
    found = rollout_called(session, rollout, live_only=False)
    events = session.client.read_list(f"{path_of(found)}/events")
    if session.output.as_json:
        session.output.data(events)
        return
    progress = RolloutProgress(session.client, found)
    for line in timeline(progress, events):
        session.output.say(line, copied=True)


def _with_names(session: Session, rollouts: Sequence[JsonObject]) -> list[JsonObject]:
    """Return rollouts with the names of their products and versions."""
    products = {one["id"]: one for one in session.client.pages(PRODUCT.path)}
    shown = {entry["product_id"] for entry in rollouts} & products.keys()
    packages = [{"package_id": products[one]["package"]["id"]} for one in shown]
    versions = semvers(session, packages)
    return [
        {
            **entry,
            "product": name_in(products.get(entry["product_id"], {})) or entry["product_id"],
            "version": versions.get(entry["package_version_id"], entry["package_version_id"]),
            "wave_of": wave_name(entry, entry["wave"]),
            "reason": RolloutProgress(session.client, entry).reason,
            "installs": _counts(entry["counts"]),
            "age": age(entry["created_at"]),
        }
        for entry in rollouts
    ]


def _what_goes_on(rollout: JsonObject) -> tuple[str, ...]:
    """Return what to do about a rollout in its state."""
    if rollout["state"] == "planned" and rollout.get("plan_digest"):
        digest = shlex.quote(clean(rollout["plan_digest"]))
        return (f"bulkhead rollouts approve {rollout['id']} --digest {digest}",)
    if rollout["done"]:
        return (f"bulkhead rollouts events {rollout['id']}",)
    if rollout["state"] == "paused":
        return (f"bulkhead rollouts resume {rollout['id']}",)
    return (f"bulkhead rollouts watch {rollout['id']}",)


def _counts(counts: JsonObject, *, without: frozenset[str] = frozenset()) -> str:
    pending = counts.get("pending")
    told = [counts_text(counts, without=without), f"{pending} to come" if pending else ""]
    return ", ".join(part for part in told if part)


def _waiting(waiting: JsonObject) -> str | None:
    told = [f"{number}: {reason_to_wait(what)}" for what, number in sorted(waiting.items())]
    return "; ".join(told) or None


def _approvals(rollout: JsonObject) -> str | None:
    told = [
        f"{wave_in_words(rollout, one['wave'])} by {clean(one['principal_id'])}"
        for one in rollout.get("approvals") or ()
    ]
    return ", ".join(told) or None


def _share(share: JsonObject) -> str:
    if share.get("percent") is not None:
        return f"{share['percent']} % of a wave"
    return f"{share.get('count', 0)} of a wave"
