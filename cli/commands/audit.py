"""The audit log of a workspace."""

from typing import Annotated

import typer

from cli.client import JsonObject
from cli.options import command
from cli.output import Column
from cli.session import Session
from cli.text import moment

app = typer.Typer(help="The audit log: who did, read or tried what.", no_args_is_help=True)

_COLUMNS = (
    Column("TIME", "time"),
    Column("ACTION", "action"),
    Column("OUTCOME", "outcome"),
    Column("ON", "resource_id"),
    Column("BY", "by"),
    Column("REQUEST OR OPERATION", "occasion"),
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
        str | None, typer.Option(metavar="ID", help="Only what was done to this.")
    ] = None,
    actor: Annotated[
        str | None, typer.Option(metavar="ID", help="Only what this user or token did.")
    ] = None,
    outcome: Annotated[
        str | None,
        typer.Option(metavar="OUTCOME", help="allowed, denied, succeeded, failed or cancelled."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
) -> None:
    """List what was done and tried in the workspace, newest first; for owners and admins."""
    entries = session.client.read_list(
        "/audit_events",
        limit=limit,
        action=action,
        resource_type=resource_type,
        resource_id=resource,
        actor_id=actor,
        outcome=outcome,
    )
    if not session.output.as_json:
        entries = [
            {
                **entry,
                "time": moment(entry["occurred_at"]),
                "by": f"{entry['actor_kind']} {entry['actor_id']}",
                "occasion": occasion_of(entry),
            }
            for entry in entries
        ]
    session.output.listing(entries, _COLUMNS, ("No such audit events.",))


def occasion_of(entry: JsonObject) -> str | None:
    """Return what an entry belongs to: the operation for which a worker acted, or the request."""
    occasion = entry["details"].get("operation_id") or entry["request_id"]
    return None if occasion is None else str(occasion)
