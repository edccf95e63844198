"""The command by which the operator of an embedded stack makes users, and gives them tokens."""

import argparse
from pathlib import Path

from rich.console import Console

from domain.errors import BulkheadError, Reason
from domain.tokens import TokenKind, new_token
from infra.embedded.console import say
from infra.embedded.new_users import (
    USER_HELP,
    MadeUser,
    NewUser,
    add_user_arguments,
    create_user,
    show_new_user,
    told,
    wanted_user,
)
from infra.embedded.owner import write_login
from infra.embedded.stack import Stack


def add_user_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of `python -m infra.embedded`."""
    user = commands.add_parser("user", help=USER_HELP)
    add_user_arguments(user)
    user.add_argument(
        "--to", type=Path, metavar="FILE", help="write address and token there, not to be seen"
    )


def run_user(stack: Stack, chosen: argparse.Namespace) -> None:
    """Make the user, and show the token once, or keep it in a file."""
    if chosen.to is None:
        show_new_user(stack.database, chosen)
        return
    file: Path = chosen.to.absolute()
    wanted = wanted_user(chosen)
    made = _create_with_file(stack, wanted, new_token(TokenKind.USER), file)
    what = told(wanted, made)
    say(Console(), f"{what} Address and token are in {file}, which only you can read.")


def _create_with_file(stack: Stack, wanted: NewUser, token: str, file: Path) -> MadeUser:
    if file.exists():
        raise BulkheadError(
            Reason.FAILED_PRECONDITION, f"{file} exists; nothing was changed, and no user made."
        )
    # Before the token is valid, so that no crash loses it.
    write_login(file, stack.home, token, stack.api.address)
    try:
        return create_user(stack.database, wanted, token)
    except BulkheadError:
        file.unlink(missing_ok=True)
        raise
