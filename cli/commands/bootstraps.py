"""Worker bootstraps: the command with which a server joins a cluster."""

from typing import Annotated

import typer

from cli.arguments import seconds_within
from cli.client import JsonObject, segment
from cli.commands.clusters import ClusterArgument
from cli.errors import ApiError, CliError
from cli.joining import bootstraps_of, joining_operation
from cli.options import NoWaitOption, command
from cli.output import Column
from cli.session import CLUSTER, Session
from cli.text import age, clean, moment, remaining
from cli.waiting import see_through

app = typer.Typer(
    help="Worker bootstraps: one-time rights of a server to join a cluster.", no_args_is_help=True
)

_SHORTEST_SECONDS = 60
_LONGEST_SECONDS = 86_400

_COLUMNS = (
    Column("ID", "id"),
    Column("STATUS", "status"),
    Column("USED BY", "used_by"),
    Column("EXPIRES", "expires"),
    Column("AGE", "age"),
)

_BootstrapArgument = Annotated[
    str, typer.Argument(metavar="BOOTSTRAP", help="Its id, from `bootstraps list`.")
]


@command(
    app,
    "create",
    examples=(
        "bulkhead bootstraps create demo",
        "bulkhead bootstraps create demo --wait",
        "bulkhead bootstraps create demo --ttl 1h --cloud-init > user-data",
        "bulkhead bootstraps create demo --json | jq -r .command",
    ),
)
def create_bootstrap(
    session: Session,
    cluster: ClusterArgument,
    ttl: Annotated[
        str, typer.Option(metavar="TIME", help="How long it may be used; from 1m to 1d.")
    ] = "15m",
    cloud_init: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool, typer.Option("--cloud-init", help="Print the user data of a new server instead.")
    ] = False,
    wait: Annotated[  # noqa: FBT002 - the same
        bool, typer.Option("--wait", help="Wait for the server, and show how it joins.")
    ] = False,
) -> None:
    """Print the command that makes a server a machine of the cluster. It works once."""
    seconds = seconds_within(ttl, "--ttl", _SHORTEST_SECONDS, _LONGEST_SECONDS)
    found = session.resource(CLUSTER, cluster)
    made = session.client.create(bootstraps_of(found["id"]), {"ttl_seconds": seconds})
    output = session.output
    told = made.get("cloud_init" if cloud_init else "command")
    if told is None:
        # The first answer was lost on the way, and the token is only ever told once.
        message = f"The bootstrap {made['id']} exists, but its command was lost on the way."
        revoke = f"bulkhead bootstraps revoke {found['id']} {made['id']}"
        raise CliError(message, next_commands=(revoke,))
    if output.as_json and not wait:
        output.data(made)
        return
    if cloud_init:
        output.note(
            f"User data of one new server. It works once, within {ttl}, and is not shown again:"
        )
        output.raw(told)
    elif not output.as_json:
        output.note(
            f"Run this as root on the server, within {ttl}; it works once, and is not shown again:"
        )
        output.say(clean(told), copied=True)
    if wait:
        _see_join(session, found, made)
        return
    output.next_commands(
        f"bulkhead bootstraps get {found['id']} {made['id']}",
        f"bulkhead machines list --cluster {found['id']}",
        beside=True,
    )


@command(app, "list", examples=("bulkhead bootstraps list demo",))
def list_bootstraps(session: Session, cluster: ClusterArgument) -> None:
    """List the worker bootstraps of a cluster; never their tokens."""
    cluster_id = session.id_of(CLUSTER, cluster)
    entries = session.client.read_list(bootstraps_of(cluster_id))
    if not session.output.as_json:
        entries = [
            {
                **entry,
                "status": _status_of(entry),
                "age": age(entry["created_at"]),
                "used_by": entry.get("machine_id") or "-",
                "expires": "-" if _is_used(entry) else remaining(entry.get("expires_at")),
            }
            for entry in entries
        ]
    session.show_list(
        "worker bootstraps", entries, _COLUMNS, f"bulkhead bootstraps create {cluster_id}"
    )


@command(app, "get", examples=("bulkhead bootstraps get demo wbs_0123",))
def get_bootstrap(
    session: Session, cluster: ClusterArgument, bootstrap: _BootstrapArgument
) -> None:
    """Show a worker bootstrap, and what a revoke of it would break."""
    found = _read(session, session.id_of(CLUSTER, cluster), bootstrap)
    session.output.fields(
        found,
        (
            ("Id", found["id"]),
            ("Status", _status_of(found)),
            ("Cluster", found["cluster_id"]),
            ("Used by", found.get("machine_id")),
            ("Used", moment(found.get("used_at"), missing="never")),
            ("Expires", "-" if _is_used(found) else moment(found.get("expires_at"))),
            ("Created", moment(found["created_at"])),
            ("A revoke", found.get("revoke_effect")),
        ),
    )


@command(app, "revoke", examples=("bulkhead bootstraps revoke demo wbs_0123",))
def revoke_bootstrap(
    session: Session,
    cluster: ClusterArgument,
    bootstrap: _BootstrapArgument,
    no_wait: NoWaitOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """End a worker bootstrap at once. Machines that joined stay."""
    cluster_id = session.id_of(CLUSTER, cluster)
    operation = _revoke(session, cluster_id, bootstrap)
    ended = see_through(session, operation, subject=bootstrap, no_wait=no_wait)
    if ended is not None:
        session.output.say(("✓ ", "green"), f"Bootstrap {clean(bootstrap)} joins no server.")


def _revoke(session: Session, cluster_id: str, bootstrap: str) -> JsonObject:
    """Ask for the revoke; once more when a server has used the bootstrap since it was read."""
    path = f"{bootstraps_of(cluster_id)}/{segment(bootstrap)}:revoke"
    try:
        etag = _read(session, cluster_id, bootstrap)["etag"]
        return session.client.change("POST", path, etag=etag)
    except ApiError as error:
        if error.reason != "ABORTED":
            raise
    return session.client.change("POST", path, etag=_read(session, cluster_id, bootstrap)["etag"])


def _is_used(bootstrap: JsonObject) -> bool:
    return bootstrap.get("used_at") is not None


def _status_of(bootstrap: JsonObject) -> str:
    """Return its status for a person: a used token is active to the API, but joins nothing."""
    is_spent = _is_used(bootstrap) and bootstrap["status"] == "active"
    return "used" if is_spent else str(bootstrap["status"])


def _read(session: Session, cluster_id: str, bootstrap: str) -> JsonObject:
    return session.client.get(f"{bootstraps_of(cluster_id)}/{segment(bootstrap)}")


def _see_join(session: Session, cluster: JsonObject, bootstrap: JsonObject) -> None:
    """Wait until a server used the bootstrap, and show its join to the end."""
    session.output.note("Waiting for the server ...")
    operation = joining_operation(session.client, bootstrap)
    machine_id = str(operation["owner_id"])
    ended = see_through(session, operation, subject=machine_id, no_wait=False)
    if ended is not None:
        session.output.note(
            ("✓ ", "green"), f"Machine {machine_id} is ready in {clean(cluster['name'])}."
        )
        session.output.next_commands(f"bulkhead machines get {machine_id}", beside=True)
