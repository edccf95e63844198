"""The command of the demo."""

import sys
from typing import Annotated

import typer

from cli.demo.walkthrough import Choices, Walkthrough
from cli.errors import CliError, ExitCode
from cli.output import Output

_GO_ON = "make demo   (goes on where it stopped)"


_FreshOption = Annotated[
    bool, typer.Option("--fresh", help="With a new cluster: the demo's is deleted first.")
]
_ServersOption = Annotated[
    bool,
    typer.Option(
        help="Whether servers that boot on this machine join; takes root on Debian or Ubuntu."
    ),
]
_CloudsOption = Annotated[
    bool | None,
    typer.Option(
        "--clouds/--no-clouds",
        help="Whether a machine on each of three local clouds joins, and is deleted again; "
        "without this as with servers.",
    ),
]
_RolloutOption = Annotated[
    bool, typer.Option(help="Whether a product is rolled out over three clusters at the end.")
]
_SimulatedNodesOption = Annotated[
    int,
    typer.Option(
        min=0,
        max=100,
        metavar="N",
        help="With so many simulated nodes instead of servers; takes no root.",
    ),
]


def demo(
    fresh: _FreshOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
    servers: _ServersOption = True,  # noqa: FBT002 - the same
    clouds: _CloudsOption = None,
    rollout: _RolloutOption = True,  # noqa: FBT002 - the same
    simulated_nodes: _SimulatedNodesOption = 0,
) -> None:
    """Show the main jobs: a cluster, made and used; servers that join it; a product rolled out."""
    # Progress and results are one story here: they go to the same place, in order.
    output = Output(err=sys.stdout)
    choices = Choices(
        fresh=fresh,
        servers=servers,
        clouds=servers if clouds is None else clouds,
        rollout=rollout,
        simulated_nodes=simulated_nodes,
    )
    try:
        Walkthrough(output, choices).run()
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
