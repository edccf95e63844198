"""What only the client knows about a failure: where it looked, and whose choices it used."""

from http import HTTPStatus

from cli.configuration import TOKEN_VARIABLE, WORKSPACE_VARIABLE
from cli.errors import ApiError, CliError, ExitCode
from cli.session import Session
from cli.text import clean


def explain(session: Session, failure: CliError) -> None:
    """Add to a failure, in place, which workspace it is about or where its token came from."""
    if isinstance(failure, ApiError) and failure.status == HTTPStatus.UNAUTHORIZED:
        _explain_token(session, failure)
    elif isinstance(failure, ApiError) and failure.is_about_workspace:
        _explain_choice(session, failure)
    elif failure.exit_code is ExitCode.NOT_FOUND and session.acts_in_workspace:
        failure.notes += (("looked in", session.place),)


def _explain_token(session: Session, failure: ApiError) -> None:
    source = session.token_source
    if source is None:
        return
    failure.message = f"The token from {source} is rejected: {failure.message}"
    if source == TOKEN_VARIABLE:
        failure.next_commands = (f"unset {TOKEN_VARIABLE}", *failure.next_commands)
    elif source == str(session.configuration.owner_file):
        failure.next_commands = (
            "make up   (embedded stack: gives its owner a token that is valid)",
            *failure.next_commands,
        )


def _explain_choice(session: Session, failure: ApiError) -> None:
    choice = session.workspace_choice
    if choice is None:
        return
    name = clean(choice.name)
    if choice.is_remembered:
        failure.message = (
            f"The remembered workspace {name} is not at {session.connection.url} any more, "
            "or this token does not reach it."
        )
        failure.next_commands = (
            "bulkhead workspaces list",
            "bulkhead workspaces use WORKSPACE",
            "bulkhead workspaces use --none   (forgets it: the token's own is used)",
        )
    else:
        origin = "--workspace" if session.wishes.workspace else WORKSPACE_VARIABLE
        failure.message = f"This token does not reach the workspace {name} that {origin} names."
