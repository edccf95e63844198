"""The command line of the demo."""

import sys
from typing import Annotated

import typer

from cli.demo.walkthrough import Walkthrough
from cli.errors import CliError, ExitCode
from cli.output import Output


def demo(
    fresh: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool, typer.Option("--fresh", help="Delete the demo's cluster first, and make a new one.")
    ] = False,
) -> None:
    """Show the main job: one cluster, made through the public API, and used."""
    # Progress and results are one story here: they go to the same place, in order.
    output = Output(err=sys.stdout)
    try:
        Walkthrough(output).run(fresh=fresh)
    except CliError as failure:
        if not failure.next_commands:
            failure.next_commands = ("make status", "make demo   (goes on where it stopped)")
        output.error(failure)
        raise typer.Exit(failure.exit_code) from None
    except KeyboardInterrupt:
        stopped = CliError(
            "The demo stopped; what it started stays.",
            ExitCode.INTERRUPTED,
            next_commands=("make demo   (goes on where it stopped)", "make down"),
        )
        stopped.title = "Interrupted"
        output.error(stopped)
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def main() -> None:
    """Run the demo."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(demo)
    app(prog_name="python -m cli.demo")


if __name__ == "__main__":
    main()
