"""Purging a deleted secret before its time, which takes two people."""

import shlex

import typer

from cli.client import JsonObject
from cli.commands.secrets.group import SecretArgument, path_of
from cli.confirmation import confirm_by_name
from cli.errors import CliError, ExitCode
from cli.options import YesOption, command
from cli.session import SECRET, Session
from cli.text import clean

purge_app = typer.Typer(
    help="Purge a deleted secret now: one person asks, another one approves.",
    no_args_is_help=True,
)


@command(purge_app, "request", examples=("bulkhead secrets purge request stripe",))
def request_purge(
    session: Session,
    secret: SecretArgument,
    yes: YesOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Ask for the purge of a deleted secret; another person, an owner, has to approve it.

    `bulkhead members list` shows who is one; the operator of the platform makes another.
    """
    found = session.resource(SECRET, secret)
    answer = _ask(session, found, "requestPurge", doing="requesting a purge", yes=yes)
    if session.output.as_json:
        session.output.data(answer)
        return
    name = clean(found["name"])
    session.output.say(("✓ ", "green"), f"The purge of {name} waits for a second person.")
    session.output.next_commands(
        f"bulkhead secrets purge approve {shlex.quote(name)}   (as another owner)"
    )


@command(purge_app, "approve", examples=("bulkhead secrets purge approve stripe",))
def approve_purge(
    session: Session,
    secret: SecretArgument,
    yes: YesOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Approve a purge that somebody else asked for. This cannot be taken back."""
    found = session.resource(SECRET, secret)
    if found["state"] != "active" and found.get("purge_requested_by") is None:
        name = clean(found["name"])
        message = f"Nobody asked for the purge of {name} yet; another person has to do that first."
        request = f"bulkhead secrets purge request {shlex.quote(name)}"
        raise CliError(message, ExitCode.CONFLICT, next_commands=(request,))
    _ask(session, found, "approvePurge", doing="approving a purge", yes=yes)
    if session.output.as_json:
        session.output.data({"id": found["id"], "purging": True})
        return
    session.output.say(
        ("✓ ", "green"), f"Secret {clean(found['name'])} is being purged; nothing will be left."
    )
    session.output.next_commands(f"bulkhead audit list --resource {found['id']}")


def _ask(session: Session, secret: JsonObject, verb: str, *, doing: str, yes: bool) -> JsonObject:
    name = clean(secret["name"])
    if secret["state"] == "active":
        message = f"Secret {name} is not deleted: only a deleted secret is purged. Delete it first."
        raise CliError(
            message,
            ExitCode.CONFLICT,
            next_commands=(f"bulkhead secrets delete {shlex.quote(name)}",),
        )
    if not yes:
        effect = f"A purge destroys every value of {name} and what is known about it, for good."
        confirm_by_name(session, name, doing=doing, effect=effect, done="purged")
    return session.client.change(
        "POST",
        f"{path_of(secret)}:{verb}",
        body={"confirm_name": secret["name"]},
    )
