"""Asks a person before something is lost for good."""

import sys

import typer

from cli.errors import CliError, ExitCode
from cli.session import Session


def confirm_by_name(session: Session, name: str, *, doing: str, effect: str, done: str) -> None:
    """Have a person type the name of what will be lost.

    Args:
        session: the command's.
        name: what must be typed, already safe to show.
        doing: the verb for where there is nobody to ask, such as `deleting`.
        effect: what will happen, as a sentence.
        done: what did not happen if the person gives up, such as `deleted`.

    Raises:
        CliError: there is no terminal, or something else was typed.
    """
    if not sys.stdin.isatty() or not session.output.progress_console.is_terminal:
        message = f"Without a terminal, {doing} needs --yes. Nothing was {done}."
        raise CliError(message, ExitCode.USAGE)
    session.output.note(effect)
    typed = typer.prompt(
        f"Type its name, {name}, to go on", default="", show_default=False, err=True
    )
    if typed != name:
        message = f"That is not its name. Nothing was {done}."
        raise CliError(message)
