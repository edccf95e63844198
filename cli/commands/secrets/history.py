"""What happened to a secret, from its versions and from the audit log."""

from typing import Annotated

import typer

from cli.client import JsonObject
from cli.commands.audit import occasion_of, told_outcome
from cli.commands.secrets.group import SecretArgument, app, versions_of
from cli.errors import CliError, ExitCode
from cli.options import command
from cli.output import Column
from cli.session import SECRET, Session
from cli.text import clean, moment

_COLUMNS = (
    Column("TIME", "time", wraps=True),
    Column("VERSION", "version_number", right=True),
    Column("WHAT", "what"),
    Column("OUTCOME", "outcome"),
    Column("BY", "by", wraps=True, minor=True),
    Column("REQUEST OR OPERATION", "occasion", minor=True),
)


@command(
    app,
    "history",
    examples=("bulkhead secrets history stripe", "bulkhead secrets history stripe --limit 10"),
)
def show_history(
    session: Session,
    secret: SecretArgument,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
) -> None:
    """Show what happened to a secret: its versions, and who did, read or tried what.

    The audit log is for owners and admins; others see the versions alone.
    """
    found = session.resource(SECRET, secret)
    # Of a deleted secret the API shows no versions; the audit log still tells what was done.
    versions = versions_of(session, found) if found["state"] == "active" else []
    numbers = {version["id"]: version["version_number"] for version in versions}
    events = [_of_audit(entry, numbers) for entry in _audit_events(session, found, limit)]
    told = {(event["version_number"], event["what"]) for event in events}
    events += [event for version in versions for event in _of_version(version, told)]
    # Within one second the order of the ids counts: each begins with its time.
    events.sort(
        key=lambda event: (event["occurred_at"], event["id"].rpartition("_")[2]), reverse=True
    )
    events = events[:limit]
    if not session.output.as_json:
        events = [
            event
            | {
                "time": moment(event["occurred_at"]),
                "outcome": told_outcome(event.get("outcome", ""), event.get("reason")),
            }
            for event in events
        ]
    session.output.listing(events, _COLUMNS, (f"Nothing happened to {clean(found['name'])} yet.",))


def _audit_events(session: Session, secret: JsonObject, limit: int) -> list[JsonObject]:
    try:
        return session.client.read_list("/audit_events", limit=limit, resource_id=secret["id"])
    except CliError as failure:
        if failure.exit_code is not ExitCode.NOT_AUTHORISED:
            raise
        session.output.note("Without the audit log, which this token may not read.")
        return []


def _of_version(version: JsonObject, told: set[tuple[int | None, str]]) -> list[JsonObject]:
    """Return what a version tells of itself, and the audit log does not."""
    number = version["version_number"]
    ways = (
        ("version made", version["created_at"], ("secret.create", "secret_version.create")),
        ("version destroyed", version.get("destroyed_at"), ("secret_version.destroy",)),
    )
    return [
        {"id": version["id"], "occurred_at": at, "version_number": number, "what": what}
        for what, at, actions in ways
        if at is not None and not told & {(number, action) for action in actions}
    ]


def _of_audit(entry: JsonObject, numbers: dict[str, int]) -> JsonObject:
    details = entry["details"]
    return {
        "id": entry["id"],
        "occurred_at": entry["occurred_at"],
        "version_number": details.get("version_number") or numbers.get(details.get("version_id")),
        "what": entry["action"],
        "outcome": entry["outcome"],
        "reason": details.get("reason"),
        "by": f"{entry['actor_kind']} {entry['actor_id']}",
        "occasion": occasion_of(entry),
    }
