"""Machines made in a cloud: what they will cost is told first, then each step is shown."""

import shlex
from typing import Annotated

import typer

from cli.client import JsonObject
from cli.commands.clusters import ClusterArgument
from cli.commands.machines.group import app
from cli.completion import names_of
from cli.errors import CliError, ExitCode
from cli.leftovers import tell_what_is_left
from cli.options import NoWaitOption, command
from cli.preflight import check_before_create, check_limit_of_cluster, fallbacks_of
from cli.progress import OperationProgress
from cli.session import CLUSTER, COMPUTE_CONFIG, Session
from cli.text import clean, duration, name_in, plural
from cli.waiting import see_through

_ConfigOption = Annotated[
    str,
    typer.Option(
        metavar="CONFIG",
        help="The compute config, in whose account and place: id or name.",
        autocompletion=names_of(COMPUTE_CONFIG),
    ),
]
_TypeOption = Annotated[
    str, typer.Option("--type", metavar="TYPE", help="Of `bulkhead compute-configs types CONFIG`.")
]
_FallbackOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PLACE[:TYPE]",
        help="Try this where the provider has none left; :TYPE alone keeps the place. May be "
        "given several times, the best first.",
    ),
]
_DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Tell price and allowance, and create nothing.")
]


@command(
    app,
    "create",
    examples=(
        "bulkhead machines create demo --config hetzner --type cpx22",
        "bulkhead machines create demo --config hetzner --type cpx22 --count 3 --name web",
        (
            "bulkhead machines create demo --config aws --type t3.large --fallback eu-central-1b "
            "--fallback eu-central-1b:t3a.large"
        ),
    ),
)
def create_machines(
    session: Session,
    cluster: ClusterArgument,
    config: _ConfigOption,
    instance_type: _TypeOption,
    count: Annotated[int, typer.Option(min=1, max=20, help="How many of this shape.")] = 1,
    fallback: _FallbackOption = None,
    name: Annotated[str | None, typer.Option(help="To be shown; up to 120 characters.")] = None,
    dry_run: _DryRunOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
    no_wait: NoWaitOption = False,  # noqa: FBT002 - the same
) -> None:
    """Make machines in a cloud, and show each step until their nodes are ready.

    First the provider is asked what they cost, whether it has them and how many more the account
    may have; nothing is created where the answer is that it cannot be.
    """
    cluster_found = session.resource(CLUSTER, cluster)
    config_found = session.resource(COMPUTE_CONFIG, config)
    wanted: JsonObject = {"instance_type": instance_type, "count": count}
    if fallback:
        wanted["fallbacks"] = fallbacks_of(fallback)
    if dry_run and no_wait:
        message = "--dry-run creates nothing to wait for: leave out --no-wait."
        raise CliError(message, ExitCode.USAGE)
    answer = check_before_create(session, config_found, wanted)
    if dry_run:
        check_limit_of_cluster(session, cluster_found, count)
        if session.output.as_json:
            session.output.data(answer)
        return
    wanted |= {"cluster_id": cluster_found["id"], "compute_config_id": config_found["id"]}
    if name is not None:
        wanted["name"] = name
    operation = session.client.create("/machines", wanted)
    made = {"kind": "cloud", "id": operation["owner_id"], "name": name}
    subject = name_in(made) if count == 1 else clean(cluster_found["name"])
    ended = see_through(session, operation, subject=subject, no_wait=no_wait)
    if ended is not None:
        told = f"Machine {subject} is" if count == 1 else f"{plural(count, 'machine')} are"
        _tell_made(session, told, ended, cluster_found)


def _tell_made(session: Session, told: str, ended: OperationProgress, cluster: JsonObject) -> None:
    took = duration(ended.elapsed_seconds)
    session.output.say(("✓ ", "green"), f"{told} ready in {clean(cluster['name'])} after {took}.")
    tell_what_is_left(session, ended.operation)
    machine_id = (ended.operation.get("response") or {}).get("machine_id")
    if machine_id:
        session.output.next_commands(
            f"bulkhead machines get {machine_id}", f"bulkhead machines inventory {machine_id}"
        )
        return
    cluster_name = shlex.quote(clean(cluster["name"]))
    session.output.next_commands(f"bulkhead machines list --cluster {cluster_name}")
