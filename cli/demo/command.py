"""The command of the demo."""

import sys
from typing import Annotated

import typer

from cli.demo.walkthrough import Walkthrough
from cli.errors import CliError, ExitCode
from cli.output import Output

_GO_ON = "make demo   (goes on where it stopped)"


def demo(
    fresh: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool, typer.Option("--fresh", help="With a new cluster: the demo's is deleted first.")
    ] = False,
) -> None:
    """Show the main job: one cluster, made through the public API, and used."""
    # Progress and results are one story here: they go to the same place, in order.
    output = Output(err=sys.stdout)
    try:
        Walkthrough(output).run(fresh=fresh)
    except CliError as failure:
        failure.next_commands = (_GO_ON, *(failure.next_commands or ("make status",)))
        output.error(failure)
        raise typer.Exit(failure.exit_code) from None
    except KeyboardInterrupt:
        stopped = CliError(
            "The demo stopped; what it started stays.",
            ExitCode.INTERRUPTED,
            next_commands=(_GO_ON, "make down"),
        )
        stopped.title = "Interrupted"
        output.error(stopped)
        raise typer.Exit(ExitCode.INTERRUPTED) from None


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(demo)
