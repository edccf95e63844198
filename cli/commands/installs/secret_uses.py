"""Secrets to which the values of an install refer: named on the command line, or refused."""

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cli.client import NO_RETRY, JsonObject, segment
from cli.commands.secrets.group import refuse_deleted
from cli.documents import no_secret
from cli.errors import ApiError, CliError, ExitCode
from cli.session import SECRET, Session, find_by_name
from cli.text import clean

_SECRET_ID = re.compile(r"sec_[0-9a-f]{32}")
_MARK = "$secret"


def secret_id_called(session: Session, text: str) -> str:
    """Return the id of a secret that values may refer to.

    Raises:
        CliError: there is none, which repeats nothing of the text; or it is deleted.
    """
    # Only a whole id is sent: what looks like one in part may be a value.
    if _SECRET_ID.fullmatch(text):
        return text
    try:
        found = find_by_name(session.client, SECRET, text)
    except CliError as error:
        if isinstance(error, ApiError) or error.exit_code is not ExitCode.NOT_FOUND:
            raise
        raise no_secret() from error
    refuse_deleted(found)
    return str(found["id"])


@contextmanager
def explaining_secrets(
    session: Session, values: JsonObject, typed: str | None, *, kept: bool = False
) -> Iterator[None]:
    """Say what helps when a secret to which values refer cannot be read.

    Args:
        session: the command's.
        values: what the install has, or shall have.
        typed: what to type for the install; None where there is none yet.
        kept: whether the command has given the install values already.
    """
    try:
        yield
    except ApiError as error:
        if kept:
            error.notes += (("kept", "the new values, which the next update applies"),)
        path, secret_id = _use_at(values, error.faults[0].path[2:])
        if secret_id:
            error.notes += (("secret", secret_id),)
            error.next_commands = (
                _what_helps(session, secret_id, path, typed) or error.next_commands
            )
        raise


def _use_at(values: JsonObject, places: Sequence[str]) -> tuple[str, str]:
    """Return how a place in values is typed, and the id of the secret to which it refers."""
    path = ""
    node: Any = values
    for place in places:
        if isinstance(node, list) and place.isdecimal() and int(place) < len(node):
            path, node = f"{path}[{place}]", node[int(place)]
        elif isinstance(node, dict) and place in node:
            path, node = (f"{path}.{place}" if path else place), node[place]
        else:
            return "", ""
    said = node.get(_MARK) if isinstance(node, dict) else None
    return path, clean(said.get("id")) if isinstance(said, dict) else ""


def _what_helps(session: Session, secret_id: str, path: str, typed: str | None) -> tuple[str, ...]:
    try:
        state = session.client.get(f"{SECRET.path}/{segment(secret_id)}", retry=NO_RETRY)["state"]
    except ApiError as error:
        if error.exit_code is not ExitCode.NOT_FOUND:
            # Whether it is there was not told.
            return ()
        state = None
    if state == "active":
        return (f"bulkhead secrets versions {secret_id}",)
    helps = () if state is None else (f"bulkhead secrets restore {secret_id}",)
    if typed is None:
        return helps or ("bulkhead secrets list",)
    other = shlex.quote(f"{path}=SECRET")
    return (*helps, f"bulkhead installs update {shlex.quote(typed)} --secret {other}")
