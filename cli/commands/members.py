"""Members of the workspace, and what each may do in it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from cli.client import JsonObject, segment
from cli.confirmation import confirm_by_name
from cli.errors import CliError, ExitCode
from cli.options import YesOption, command
from cli.output import Column
from cli.session import Session
from cli.text import age, clean


class AssignableRole(StrEnum):
    """What a member may be made; an owner is made by the operator of the platform."""

    ADMIN = "admin"
    MEMBER = "member"


app = typer.Typer(
    help="Members of the workspace: its people, and what each may do.", no_args_is_help=True
)

_COLUMNS = (
    Column("NAME", "name"),
    Column("ROLE", "role"),
    Column("AGE", "age"),
    Column("USER", "user_id"),
)

_LIST = "bulkhead members list"

_MemberArgument = Annotated[
    str, typer.Argument(metavar="MEMBER", help="The user's id, or the name in the list.")
]
_RoleOption = Annotated[AssignableRole, typer.Option(help="What they may do.")]


@command(app, "list", examples=("bulkhead members list", "bulkhead members list --workspace acme"))
def list_members(session: Session) -> None:
    """List the members of the workspace, newest first."""
    entries = session.client.read_list(_path(session))
    if not session.output.as_json:
        entries = [{**entry, "age": age(_joined(entry))} for entry in entries]
    session.output.listing(entries, _COLUMNS, ())


@command(app, "add", examples=("bulkhead members add USER --role admin",))
def add_member(
    session: Session,
    user: Annotated[
        str, typer.Argument(metavar="USER", help="The user's id; the operator makes users.")
    ],
    role: _RoleOption = AssignableRole.MEMBER,
) -> None:
    """Have a user belong to the workspace. Needs an owner.

    Users, and owners beside whoever made the workspace, are made by the operator of the platform:
    for the embedded stack by `make user`, with docker-compose by its `platform user`.
    """
    made = session.client.create(_path(session), {"user_id": user, "role": role})
    if session.output.as_json:
        session.output.data(made)
        return
    session.output.say(("✓ ", "green"), f"{_title(made)} is {clean(made['role'])} now.")


@command(app, "set-role", examples=("bulkhead members set-role ada --role member",))
def set_role(
    session: Session,
    member: _MemberArgument,
    role: Annotated[AssignableRole, typer.Option(help="What they may do from now on.")],
) -> None:
    """Give a member another role. Needs an owner; the last one stays it.

    With a lower role go the workspace tokens that the member made.
    """
    path = f"{_path(session)}/{segment(_find(session, member)['user_id'])}"
    changed = session.client.change("PATCH", path, body={"role": role})
    if session.output.as_json:
        session.output.data(changed)
        return
    session.output.say(("✓ ", "green"), f"{_title(changed)} is {clean(changed['role'])} now.")


@command(app, "remove", examples=("bulkhead members remove ada",))
def remove_member(
    session: Session,
    member: _MemberArgument,
    yes: YesOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Remove a member. Needs an owner, but to leave oneself; the last owner stays.

    Their access ends at once, and so do the workspace tokens that they made.
    """
    found = _find(session, member)
    title = _title(found)
    if not yes:
        effect = f"{title} loses access at once, and the tokens that they made here end."
        confirm_by_name(session, title, doing="removing a member", effect=effect, done="removed")
    session.client.change("DELETE", f"{_path(session)}/{segment(found['user_id'])}")
    if session.output.as_json:
        session.output.data({"user_id": found["user_id"], "removed": True})
        return
    session.output.say(("✓ ", "green"), f"{title} is removed.")
    session.output.next_commands("bulkhead tokens list   (those that they made are gone)")


def _path(session: Session) -> str:
    workspace = session.workspace_in_use
    if session.client.workspace_id is None and len(session.workspaces) > 1:
        # Which of them the API would act in is not told, and people are not removed by a guess.
        message = "The token reaches several workspaces; say which: --workspace WORKSPACE."
        raise CliError(
            message, ExitCode.USAGE, next_commands=("bulkhead workspaces use WORKSPACE",)
        )
    if workspace is None:
        message = "The token reaches no workspace, or not the chosen one."
        commands = ("bulkhead workspaces list", "bulkhead workspaces use WORKSPACE")
        raise CliError(message, ExitCode.NOT_AUTHORISED, next_commands=commands)
    return f"/workspaces/{segment(workspace['id'])}/members"


def _find(session: Session, member: str) -> JsonObject:
    entries = session.client.read_list(_path(session))
    found = [entry for entry in entries if entry["user_id"] == member]
    found = found or [entry for entry in entries if entry.get("name") == member]
    if len(found) == 1:
        return found[0]
    if not found:
        message = f"There is no member {member!r} in {session.place}."
        raise CliError(message, ExitCode.NOT_FOUND, next_commands=(_LIST,))
    message = f"{len(found)} members are named {member!r}; use the id of the user instead."
    raise CliError(message, ExitCode.USAGE, next_commands=(_LIST,))


def _title(member: JsonObject) -> str:
    return clean(member.get("name") or member["user_id"])


def _joined(member: JsonObject) -> int:
    return int(datetime.fromisoformat(member["joined_at"]).timestamp())
