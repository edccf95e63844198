"""`bulkhead`: puts the groups of commands together."""

import sys

import typer

from cli.commands import account, clusters, operations, quotas, regions, tokens, workspaces

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

app = typer.Typer(
    name="bulkhead",
    help=_HELP,
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    # A traceback with local variables would show tokens.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for group, name in (
    (workspaces.app, "workspaces"),
    (regions.app, "regions"),
    (clusters.app, "clusters"),
    (operations.app, "operations"),
    (tokens.app, "tokens"),
    (quotas.app, "quotas"),
):
    app.add_typer(group, name=name)
account.add_commands(app)


def main() -> None:
    """Run the command line; the console script."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is shown with a question mark, not as a crash.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app(prog_name="bulkhead")


if __name__ == "__main__":
    main()
