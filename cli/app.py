"""The commands of `bulkhead`, put together."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli.commands import (
    account,
    audit,
    bootstraps,
    clusters,
    compute_configs,
    compute_policy,
    compute_settings,
    compute_types,
    grants,
    installs,
    leaks,
    machines,
    members,
    operations,
    packages,
    products,
    quotas,
    regions,
    registries,
    rollouts,
    secrets,
    stops,
    tokens,
    workspace_logs,
    workspaces,
)
from cli.options import SHARED_OPTIONS

_HELP = """Kubernetes clusters, isolated per customer.

The API and the token are found in this order: options and environment (BULKHEAD_API_URL, \
BULKHEAD_API_TOKEN, BULKHEAD_CA_FILE), the stored login, the embedded stack found from the current \
directory upward (.bulkhead/owner.env, or BULKHEAD_HOME/owner.env).
"""

_EPILOG = """[bold]Start[/bold]
[dim]$[/dim] bulkhead login --url https://bulkhead.example.com
[dim]$[/dim] bulkhead regions create frankfurt
[dim]$[/dim] bulkhead clusters create demo
[dim]$[/dim] bulkhead clusters kubeconfig demo -o demo.kubeconfig

[bold]Exit codes[/bold]
  0  done                    5    conflict, precondition or quota
  1  failed                  6    unavailable
  2  wrong usage or input    7    the operation failed
  3  not found               8    the operation was cancelled
  4  not authorised          130  interrupted"""


class _Group(TyperGroup):
    """A group of commands that tells where the options belong that all commands share."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - a private type
        """Read the words before the command."""
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as error:
            option = getattr(error, "option_name", None)
            if option in SHARED_OPTIONS:
                error.message = (
                    f"{option} belongs behind the command: {ctx.command_path} ... {option}"
                )
            raise


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - Typer calls it with the flag
    if wanted:
        typer.echo(f"bulkhead {account.version_number()}")
        raise typer.Exit


app = typer.Typer(
    name="bulkhead",
    cls=_Group,
    help=_HELP,
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    # A traceback with local variables would show tokens.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for parent, group, name in (
    (app, workspaces.app, "workspaces"),
    (workspaces.app, workspace_logs.app, "logs"),
    (app, members.app, "members"),
    (app, regions.app, "regions"),
    (app, clusters.app, "clusters"),
    (app, bootstraps.app, "bootstraps"),
    (app, machines.app, "machines"),
    (app, compute_configs.app, "compute-configs"),
    (app, secrets.app, "secrets"),
    (secrets.app, secrets.rotation_app, "rotation"),
    (secrets.app, secrets.consumers_app, "consumers"),
    (secrets.app, secrets.purge_app, "purge"),
    (secrets.app, secrets.policy_app, "policy"),
    (app, registries.app, "registries"),
    (app, packages.app, "packages"),
    (app, products.app, "products"),
    (app, installs.app, "installs"),
    (app, grants.app, "grants"),
    (app, rollouts.app, "rollouts"),
    (app, stops.app, "stops"),
    (app, operations.app, "operations"),
    (app, tokens.app, "tokens"),
    (app, audit.app, "audit"),
    (app, quotas.app, "quotas"),
):
    parent.add_typer(group, name=name, cls=_Group)
account.add_commands(app)
leaks.add_commands(app)
compute_settings.add_commands(clusters.app)
compute_types.add_commands(compute_configs.app)
compute_policy.add_commands(workspaces.app)


@app.callback()
def _root(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    pass
