"""Clusters: the main job."""

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from cli.client import JsonObject, segment
from cli.cluster_contents import what_goes_with
from cli.completion import names_of
from cli.confirmation import confirm_by_name
from cli.errors import ApiError, CliError, ExitCode
from cli.names import called
from cli.options import NoWaitOption, YesOption, command
from cli.output import Column
from cli.preflight import first_machines
from cli.private_files import write_private
from cli.session import CLUSTER, REGION, Session
from cli.text import age, clean, duration, moment, plural, remaining
from cli.waiting import see_through

app = typer.Typer(help="Clusters: create, suspend, resume, delete.", no_args_is_help=True)

_COLUMNS = (
    Column("NAME", "name"),
    Column("STATE", "state"),
    Column("BUSY", "busy"),
    Column("AGE", "age"),
    Column("ID", "id", minor=True),
)

# Certificates and keys in base64; no name, address or id is that long.
_ENCODED = re.compile(r"[A-Za-z0-9+/=]{120,}")

_NetworkProfileOption = Annotated[
    str | None,
    typer.Option(metavar="PROFILE", help="linux_cilium or linux_bridge; else as the API is set."),
]
_MachinesOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CONFIG:TYPE[:COUNT]",
        help="Machines in a cloud, made with it and undone with it; several times for several "
        "shapes.",
    ),
]
ClusterArgument = Annotated[
    str,
    typer.Argument(metavar="CLUSTER", help="Id or exact name.", autocompletion=names_of(CLUSTER)),
]


@command(
    app,
    "create",
    examples=(
        "bulkhead clusters create demo --region frankfurt",
        "bulkhead clusters create demo --machines hetzner:cpx22:2",
        "bulkhead clusters create demo --no-wait --json | jq -r .id",
    ),
)
def create_cluster(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 100 characters.")],
    region: Annotated[
        str | None,
        typer.Option(
            metavar="REGION",
            help="Id or name; may be left out where there is one only.",
            autocompletion=names_of(REGION),
        ),
    ] = None,
    network_profile: _NetworkProfileOption = None,
    machines: _MachinesOption = None,
    allow_same_name: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool, typer.Option("--allow-same-name", help="Even if a cluster has this name already.")
    ] = False,
    no_wait: NoWaitOption = False,  # noqa: FBT002 - the same
) -> None:
    """Create a cluster, and show each step until its API server answers.

    Of --machines the provider is asked first what they cost, and whether it has them.
    """
    if not allow_same_name:
        _refuse_same_name(session, name)
    body: JsonObject = {"name": name, "region_id": _region_id(session, region)}
    if machines:
        body["machines"] = [first_machines(session, text) for text in machines]
    if network_profile is not None:
        body["network_profile"] = network_profile
    operation = session.client.create("/clusters", body)
    ended = see_through(session, operation, subject=name, no_wait=no_wait)
    if ended is not None:
        session.output.say(
            ("✓ ", "green"),
            f"Cluster {clean(name)} is active after {duration(ended.elapsed_seconds)} "
            f"({operation['owner_id']})",
        )
        file = shlex.quote(f"{clean(name)}.kubeconfig")
        session.output.next_commands(
            f"bulkhead clusters kubeconfig {shlex.quote(clean(name))} -o {file}",
        )


@command(
    app,
    "list",
    examples=("bulkhead clusters list", "bulkhead clusters list --json | jq -r '.[].name'"),
)
def list_clusters(session: Session) -> None:
    """List the clusters of the workspace."""
    entries = session.client.read_list("/clusters")
    if not session.output.as_json:
        entries = [
            {
                **entry,
                "age": age(entry["created_at"]),
                "busy": "yes" if entry.get("reconciling") else "",
            }
            for entry in entries
        ]
    session.show_list(
        "clusters", entries, _COLUMNS, "bulkhead clusters create NAME --region REGION"
    )


@command(app, "get", examples=("bulkhead clusters get demo",))
def get_cluster(session: Session, cluster: ClusterArgument) -> None:
    """Show a cluster."""
    found = session.resource(CLUSTER, cluster)
    _show(session, found)
    if found["state"] == "suspended":
        name = shlex.quote(clean(found["name"]))
        session.output.next_commands(f"bulkhead clusters resume {name}")


@command(app, "update", examples=("bulkhead clusters update demo --name production",))
def update_cluster(
    session: Session,
    cluster: ClusterArgument,
    name: Annotated[str | None, typer.Option(help="The new name.")] = None,
    region: Annotated[
        str | None, typer.Option(metavar="REGION", help="The new region: id or name.")
    ] = None,
) -> None:
    """Rename a cluster, or give it the label of another region."""
    body = {"name": name} if name is not None else {}
    if region is not None:
        body["region_id"] = session.id_of(REGION, region)
    if not body:
        message = "Nothing to change: give --name or --region."
        raise CliError(message, ExitCode.USAGE)
    current = session.resource(CLUSTER, cluster)
    _show(session, session.client.change("PATCH", _path(current), etag=current["etag"], body=body))


@command(
    app,
    "delete",
    examples=("bulkhead clusters delete demo", "bulkhead clusters delete demo --yes --no-wait"),
)
def delete_cluster(
    session: Session,
    cluster: ClusterArgument,
    yes: YesOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
    no_wait: NoWaitOption = False,  # noqa: FBT002 - the same
    force: Annotated[  # noqa: FBT002 - the same
        bool, typer.Option("--force", help="With its installs: where it does not answer any more.")
    ] = False,
) -> None:
    """Delete a cluster that has no machines and no installs. This cannot be taken back."""
    found = session.resource(CLUSTER, cluster)
    name = clean(found["name"])
    if not yes:
        effect = f"This deletes cluster {name} and everything in it, for good."
        effect += what_goes_with(session, found, force=force)
        confirm_by_name(session, name, doing="deleting", effect=effect, done="deleted")
    operation = _ask(session, found, "DELETE", "?force=true" if force else "")
    ended = see_through(session, operation, subject=name, no_wait=no_wait)
    if ended is not None:
        session.output.say(("✓ ", "green"), f"Cluster {name} is deleted; nothing is left of it.")


@command(app, "suspend", examples=("bulkhead clusters suspend demo",))
def suspend_cluster(
    session: Session,
    cluster: ClusterArgument,
    no_wait: NoWaitOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Stop a cluster's control plane and keep its data."""
    found = session.resource(CLUSTER, cluster)
    name = clean(found["name"])
    operation = _ask(session, found, "POST", ":suspend")
    ended = see_through(session, operation, subject=name, no_wait=no_wait)
    if ended is not None:
        session.output.say(("✓ ", "green"), f"Cluster {name} is suspended; its data is kept.")
        session.output.next_commands(f"bulkhead clusters resume {shlex.quote(name)}")


@command(app, "resume", examples=("bulkhead clusters resume demo",))
def resume_cluster(
    session: Session,
    cluster: ClusterArgument,
    no_wait: NoWaitOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Start a suspended cluster again, with the data that it had."""
    found = session.resource(CLUSTER, cluster)
    name = clean(found["name"])
    operation = _ask(session, found, "POST", ":resume")
    ended = see_through(session, operation, subject=name, no_wait=no_wait)
    if ended is not None:
        session.output.say(
            ("✓ ", "green"),
            f"Cluster {name} is active again after {duration(ended.elapsed_seconds)}.",
        )


@command(
    app,
    "kubeconfig",
    examples=(
        "bulkhead clusters kubeconfig demo -o demo.kubeconfig",
        "kubectl --kubeconfig demo.kubeconfig get namespaces",
    ),
)
def fetch_kubeconfig(
    session: Session,
    cluster: ClusterArgument,
    file: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write it there, readable by you only."
        ),
    ] = None,
    force: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool, typer.Option("--force", help="Replace a file that is something else.")
    ] = False,
) -> None:
    """Fetch an administrator's kubeconfig. It is a credential: keep it to yourself."""
    cluster_id = session.id_of(CLUSTER, cluster)
    answer = session.client.get(f"/clusters/{segment(cluster_id)}/kubeconfig")
    output = session.output
    if file is None:
        if output.as_json:
            output.data(answer)
        else:
            output.raw(answer["kubeconfig"].rstrip("\n") + "\n")
        return
    write_private(
        file, answer["kubeconfig"], replace=force or _is_older(file, answer["kubeconfig"])
    )
    if output.as_json:
        output.data({"file": str(file.absolute()), "cluster_id": cluster_id})
        return
    output.say(("✓ ", "green"), f"Wrote {file}, readable by you only.")
    quoted = shlex.quote(str(file))
    output.next_commands(
        f"kubectl --kubeconfig {quoted} get namespaces",
        f"export KUBECONFIG={shlex.quote(str(file.absolute()))}",
    )


def _is_older(file: Path, kubeconfig: str) -> bool:
    """Whether the file is an earlier answer: the same but for the certificates and keys in it.

    A kubeconfig is valid for a short time and fetched again under the same name; a file in which
    a person keeps other clusters must not be lost to that.
    """
    try:
        present = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return _ENCODED.sub("", present) == _ENCODED.sub("", kubeconfig)


def _path(cluster: JsonObject) -> str:
    return f"/clusters/{segment(cluster['id'])}"


def _ask(session: Session, cluster: JsonObject, method: str, verb: str) -> JsonObject:
    """Ask for a change of the whole cluster; once more when it was changed since it was read.

    That is safe for verbs that overwrite nothing, as long as it is still the cluster that the
    person named.
    """
    path = f"{_path(cluster)}{verb}"
    try:
        return session.client.change(method, path, etag=cluster["etag"])
    except ApiError as error:
        if error.reason != "ABORTED":
            raise
        newer = session.client.get(_path(cluster))
        if newer["name"] != cluster["name"]:
            raise
        return session.client.change(method, path, etag=newer["etag"])


def _region_id(session: Session, region: str | None) -> str:
    if region is not None:
        return session.id_of(REGION, region)
    regions = session.client.read_list("/regions")
    if len(regions) == 1:
        return str(regions[0]["id"])
    if not regions:
        message = "There is no region yet; a cluster needs one."
        raise CliError(message, ExitCode.USAGE, next_commands=("bulkhead regions create NAME",))
    names = ", ".join(f"{clean(entry['name'])} ({entry['id']})" for entry in regions)
    message = f"There are {plural(len(regions), 'region')}; choose one with --region: {names}."
    raise CliError(message, ExitCode.USAGE)


def _refuse_same_name(session: Session, name: str) -> None:
    """Refuse a name that is taken; only a courtesy, as the API lets clusters share names."""
    taken = [entry for entry in session.client.pages("/clusters") if entry["name"] == name]
    if not taken:
        return
    which = ", ".join(f"{entry['id']} ({entry['state']})" for entry in taken)
    message = (
        f"There is a cluster named {name!r} already: {which}. "
        "Nothing was created; --allow-same-name makes another one."
    )
    raise CliError(
        message,
        ExitCode.CONFLICT,
        next_commands=(
            f"bulkhead clusters get {taken[0]['id']}",
            f"bulkhead clusters create {shlex.quote(clean(name))} --allow-same-name",
        ),
    )


def _show(session: Session, cluster: JsonObject) -> None:
    session.output.fields(
        cluster,
        (
            ("Name", cluster["name"]),
            ("State", cluster["state"]),
            ("Id", cluster["id"]),
            ("Region", called(session, REGION, cluster.get("region_id"))),
            ("Network", cluster.get("network_profile")),
            ("Provider", cluster["provider"]),
            ("Certificates", _certificates(cluster.get("certificates") or {})),
            ("Operation", cluster.get("active_operation_id")),
            ("Created", moment(cluster["created_at"])),
            ("Updated", moment(cluster["updated_at"])),
        ),
    )


def _certificates(certificates: JsonObject) -> str | None:
    if certificates.get("expires_at") is None:
        return None
    renewed = certificates.get("renewed_at")
    told = f"end in {remaining(certificates['expires_at'])}"
    return told if renewed is None else f"{told}, renewed {age(renewed)} ago"
