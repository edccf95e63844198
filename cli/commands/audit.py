"""The audit log of a workspace."""

import re
from enum import StrEnum
from typing import Annotated

import typer

from cli.client import JsonObject
from cli.errors import CliError, ExitCode
from cli.options import command
from cli.output import Column
from cli.session import SECRET, Session
from cli.text import moment

# A name, such as db_login, may look like a short id.
_ID = re.compile(r"[a-z]{2,5}_[0-9a-f]{32}")


class Outcome(StrEnum):
    """How what was tried ended."""

    ALLOWED = "allowed"
    DENIED = "denied"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


app = typer.Typer(help="The audit log: who did, read or tried what.", no_args_is_help=True)

_COLUMNS = (
    Column("TIME", "time", wraps=True),
    Column("ACTION", "action"),
    Column("OUTCOME", "outcome"),
    Column("ON", "resource_id", minor=True),
    Column("BY", "by", wraps=True, minor=True),
    Column("REQUEST OR OPERATION", "occasion", minor=True),
)


@command(
    app,
    "list",
    examples=(
        "bulkhead audit list",
        "bulkhead audit list --action secret_version.access --outcome denied --limit 200",
    ),
)
def list_audit_events(
    session: Session,
    action: Annotated[
        str | None, typer.Option(metavar="ACTION", help="Such as secret_version.access.")
    ] = None,
    resource_type: Annotated[
        str | None, typer.Option(metavar="TYPE", help="Such as secret or cluster.")
    ] = None,
    resource: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Only what was done to this: an id, or the name of a secret."
        ),
    ] = None,
    actor: Annotated[
        str | None, typer.Option(metavar="ID", help="Only what this user or token did.")
    ] = None,
    outcome: Annotated[Outcome | None, typer.Option(help="Only what ended so.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
) -> None:
    """List what was done and tried in the workspace, newest first; for owners and admins."""
    entries = session.client.read_list(
        "/audit_events",
        limit=limit,
        action=action,
        resource_type=resource_type,
        resource_id=None if resource is None else _id_of(session, resource),
        actor_id=actor,
        outcome=outcome,
    )
    if not session.output.as_json:
        entries = [
            {
                **entry,
                "time": moment(entry["occurred_at"]),
                "outcome": told_outcome(entry["outcome"], entry["details"].get("reason")),
                "by": f"{entry['actor_kind']} {entry['actor_id']}",
                "occasion": occasion_of(entry),
            }
            for entry in entries
        ]
    session.output.listing(entries, _COLUMNS, ("No such audit events.",))


def _id_of(session: Session, resource: str) -> str:
    if _ID.fullmatch(resource):
        return resource
    try:
        return session.id_of(SECRET, resource)
    except CliError as failure:
        if failure.exit_code is ExitCode.NOT_FOUND:
            failure.message += " What is no secret, or was purged, is given by its id."
        raise


def told_outcome(outcome: str, reason: str | None) -> str:
    """Return an outcome with why, where the log says why."""
    return outcome if reason is None else f"{outcome}: {reason}"


def occasion_of(entry: JsonObject) -> str | None:
    """Return what an entry belongs to: the operation for which a worker acted, or the request."""
    occasion = entry["details"].get("operation_id") or entry["request_id"]
    return None if occasion is None else str(occasion)
