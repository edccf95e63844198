"""Users that an operator makes, with their tokens: for every kind of stack.

Loads nothing that the image of the API does not have, in which composed stacks run it.
"""

import argparse
import re
import sys
from dataclasses import dataclass
from typing import Final

import psycopg

from domain.caller import Role
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.tokens import TokenKind, hash_of, new_token
from infra.embedded.owner import connected
from infra.settings import DatabaseSettings

# What can be typed anywhere and means one person.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")

USER_HELP: Final = "make a user with a token, which is shown once"

_MADE: Final = "made"
_REFUSALS: Final = {
    "no_workspace": "There is no workspace {workspace}; give its slug or its id.",
    "no_user": "There is no user {name} yet; without EXISTING=1 (`--existing`) one is made.",
    "taken": "There is a user {name} already. Take another name; or EXISTING=1 (`--existing`) "
    "gives that user the role, and another token in place of those they had.",
    "first_owner": "{name} is the first owner, whose token is in the owner's file: without that "
    "file the next start (`make up`, `docker compose up`) makes another one.",
    "lowered": "{name} has a higher role in {workspace}; `bulkhead members set-role` lowers it.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class NewUser:
    """Who shall be made; `exists`: whoever is there already gets another token."""

    name: str
    workspace: str
    role: Role
    exists: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeUser:
    """Who was made, and where."""

    user_id: str
    workspace_id: str


def add_user_arguments(user: argparse.ArgumentParser) -> None:
    """Add what says who shall be made."""
    user.add_argument("name", help="letters, digits and ._@+-")
    user.add_argument("--workspace", default="default", help="slug or id")
    user.add_argument("--role", type=Role, choices=tuple(Role), default=Role.MEMBER)
    user.add_argument(
        "--existing",
        action="store_true",
        help="the user is there already: another token, in place of the ones before",
    )


def show_new_user(settings: DatabaseSettings, chosen: argparse.Namespace) -> None:
    """Make the user, and print the token and nothing else to the standard output.

    Raises:
        BulkheadError: as `create_user`.
    """
    wanted, token = wanted_user(chosen), new_token(TokenKind.USER)
    what = told(wanted, create_user(settings, wanted, token))
    sys.stderr.write(f"{what} The token is not shown again; `bulkhead login` asks for it:\n")
    sys.stderr.flush()
    print(token)


def wanted_user(chosen: argparse.Namespace) -> NewUser:
    """Return who shall be made, of the arguments that `add_user_arguments` added."""
    return NewUser(
        name=chosen.name, workspace=chosen.workspace, role=chosen.role, exists=chosen.existing
    )


def told(wanted: NewUser, made: MadeUser) -> str:
    """Return who is what now, and where."""
    return f"{wanted.name} ({made.user_id}) is {wanted.role} of {made.workspace_id}."


def create_user(settings: DatabaseSettings, wanted: NewUser, token: str) -> MadeUser:
    """Make a user and have the token open the workspace.

    Raises:
        BulkheadError: INVALID_ARGUMENT for a name that is none; FAILED_PRECONDITION with what is
            in the way; DEPENDENCY_UNAVAILABLE while the database does not run.
    """
    if not _NAME.fullmatch(wanted.name):
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "A user's name has up to 100 letters, digits and ._@+-, a letter or digit first.",
        )
    try:
        with connected(settings) as connection:
            row = connection.execute(
                "SELECT outcome, made_user, made_in"
                " FROM create_user(%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (
                    new_id(Prefix.USER),
                    wanted.name,
                    wanted.workspace,
                    wanted.role,
                    new_id(Prefix.MEMBER),
                    new_id(Prefix.API_TOKEN),
                    hash_of(token),
                    new_id(Prefix.AUDIT_EVENT),
                    wanted.exists,
                ),
            ).fetchone()
    except psycopg.OperationalError as error:
        raise BulkheadError(
            Reason.DEPENDENCY_UNAVAILABLE,
            "The stack's database does not answer, and no user was made; start the stack first "
            "(`make up`, or `docker compose up --detach --wait`).",
        ) from error
    outcome, user_id, workspace_id = row or ("", "", "")
    if outcome != _MADE:
        words = _REFUSALS[outcome].format(name=wanted.name, workspace=wanted.workspace)
        raise BulkheadError(Reason.FAILED_PRECONDITION, f"{words} Nothing was changed.")
    return MadeUser(user_id=user_id, workspace_id=workspace_id)
