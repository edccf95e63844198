"""Defines a command: its own arguments, the options that all commands share, and how it ends."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer
from rich.markup import escape
from typer.core import TyperCommand

from cli.configuration import (
    CA_FILE_VARIABLE,
    URL_VARIABLE,
    WORKSPACE_VARIABLE,
    Wishes,
)
from cli.errors import CliError, ExitCode
from cli.explanations import explain
from cli.invocation import Invocation
from cli.output import Output
from cli.session import Session

Parameters = ParamSpec("Parameters")

_PANEL = "Connection and output"

_JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print the result as JSON.", rich_help_panel=_PANEL),
]
_WorkspaceOption = Annotated[
    str | None,
    typer.Option(
        "--workspace",
        metavar="WORKSPACE",
        help=f"Act in this workspace: id, name or slug. [{WORKSPACE_VARIABLE}]",
        rich_help_panel=_PANEL,
    ),
]
_UrlOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help=f"The address of the API. [{URL_VARIABLE}]",
        rich_help_panel=_PANEL,
    ),
]
_CaFileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help=f"Trust only these certificate authorities (PEM). [{CA_FILE_VARIABLE}]",
        rich_help_panel=_PANEL,
    ),
]

_SHARED: dict[str, tuple[Any, Any]] = {
    "as_json": (_JsonOption, False),
    "workspace_choice": (_WorkspaceOption, None),
    "url": (_UrlOption, None),
    "ca_file": (_CaFileOption, None),
}

SHARED_OPTIONS = frozenset({"--json", "--workspace", "--url", "--ca-file"})

_NO_VALUE_HERE = (
    " A value comes from standard input or --value-file, never from an argument. If this was one, "
    "it is now in your shell's history: remove it there."
)

YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Do not ask; needed where there is no terminal.")
]

NoWaitOption = Annotated[
    bool, typer.Option("--no-wait", help="Return at once; the operation goes on.")
]


def command(
    app: typer.Typer, name: str, *, examples: Sequence[str]
) -> Callable[
    [Callable[Concatenate[Session, Parameters], None]],
    Callable[Concatenate[Session, Parameters], None],
]:
    """Register a function as a command.

    The function's first parameter is its `Session`; Typer gets the others and the shared options.
    Its docstring is the help text.

    Args:
        app: the group of commands.
        name: what is typed.
        examples: whole command lines, shown under the help.
    """

    def register(
        function: Callable[Concatenate[Session, Parameters], None],
    ) -> Callable[Concatenate[Session, Parameters], None]:
        def run(**arguments: Any) -> None:  # noqa: ANN401 - Typer passes what the signature says
            shared = {key: arguments.pop(key) for key in _SHARED}
            _run(function, shared, arguments)

        _give_signature(run, function)
        epilog = "\n".join(
            ["[bold]Examples[/bold]", *(f"[dim]$[/dim] {escape(line)}" for line in examples)]
        )
        app.command(
            name, cls=_Command, help=_unwrapped(inspect.getdoc(function) or ""), epilog=epilog
        )(run)
        return function

    return register


class _Command(TyperCommand):
    """A command that repeats nothing of an argument too many: it may be a credential."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - a private type
        """Read the words behind the command."""
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as error:
            error.message = error.message.replace("Value error, ", "")
            takes_value = any(parameter.name == "value_file" for parameter in self.params)
            if error.message.startswith("Got unexpected extra argument"):
                error.message = "There is an argument too many; it is not repeated here."
                if takes_value:
                    error.message += _NO_VALUE_HERE
            elif takes_value and getattr(error, "option_name", None) == "--value":
                error.message = "There is no option --value." + _NO_VALUE_HERE
            raise


def _give_signature(run: Callable[..., None], function: Callable[..., None]) -> None:
    """Let Typer see the function's own parameters, without the session, and the shared ones."""
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [parameter.replace(kind=keyword) for parameter in own]
    parameters += [
        inspect.Parameter(key, keyword, default=default, annotation=annotation)
        for key, (annotation, default) in _SHARED.items()
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


def _unwrapped(text: str) -> str:
    """Join the lines of each paragraph, so that the terminal's width decides where they break."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _run(function: Callable[..., None], shared: dict[str, Any], arguments: dict[str, Any]) -> None:
    ca_file = shared["ca_file"]
    invocation = Invocation(
        workspace=shared["workspace_choice"],
        url=shared["url"],
        ca_file=None if ca_file is None else str(ca_file),
    )
    output = Output(as_json=shared["as_json"], invocation=invocation)
    wishes = Wishes(url=shared["url"], ca_file=ca_file, workspace=shared["workspace_choice"])
    session = Session(output=output, wishes=wishes, is_sure=bool(arguments.get("yes")))
    try:
        function(session, **arguments)
    except CliError as failure:
        explain(session, failure)
        output.error(failure)
        raise typer.Exit(failure.exit_code) from None
    except (KeyboardInterrupt, typer.Abort):
        interrupted = CliError("Nothing more is done.", ExitCode.INTERRUPTED)
        interrupted.title = "Interrupted"
        output.error(interrupted)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    finally:
        session.close()
