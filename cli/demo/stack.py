"""The stack that the demo talks to: one that is named by the environment, or the embedded one."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

import cli
from cli.configuration import (
    HOME_VARIABLE,
    OWNER_FILE,
    STATE_DIRECTORY,
    TOKEN_VARIABLE,
    URL_VARIABLE,
    Configuration,
    Connection,
    Wishes,
)
from cli.errors import CliError, ExitCode
from cli.output import Output

_READY_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """Where the demo works.

    Attributes:
        connection: the API, as the first owner or as whom the environment names.
        home: the folder of the embedded stack; the demo keeps its own files below it.
        is_embedded: whether it is the stack of this checkout.
    """

    connection: Connection
    home: Path
    is_embedded: bool


def reach_stack(output: Output) -> Stack:
    """Return the stack; bring the embedded one up when it does not answer.

    Raises:
        CliError: it does not come up.
    """
    home = Path(os.environ.get(HOME_VARIABLE, "").strip() or checkout() / STATE_DIRECTORY)
    if os.environ.get(URL_VARIABLE) and os.environ.get(TOKEN_VARIABLE):
        connection = Configuration().resolve(Wishes())
        output.note(f"Using the API at {connection.url}, which {URL_VARIABLE} names.")
        return Stack(connection=connection, home=home, is_embedded=False)
    # The owner's file alone: a stored login may belong to another platform.
    embedded = Configuration({HOME_VARIABLE: str(home)})
    known = embedded.embedded_owner()
    if known is None or not _is_ready(known):
        _bring_up(output)
        known = embedded.embedded_owner()
    else:
        output.note(f"The embedded stack is up at {known.url}.")
    if known is None:
        message = f"The embedded stack left no {OWNER_FILE} in {home}."
        raise CliError(message, next_commands=("make status",))
    return Stack(connection=known, home=home, is_embedded=True)


def checkout() -> Path:
    """Return the folder that the packages of the platform are in."""
    return Path(cli.__file__).resolve().parent.parent


def _is_ready(connection: Connection) -> bool:
    try:
        response = httpx.get(
            f"{connection.url}/readyz", timeout=_READY_TIMEOUT_SECONDS, trust_env=False
        )
    except httpx.HTTPError:
        return False
    return response.is_success


def _bring_up(output: Output) -> None:
    output.note("Bringing the embedded stack up: python -m infra.embedded up")
    sys.stdout.flush()
    result = subprocess.run(
        [sys.executable, "-m", "infra.embedded", "up"], check=False, cwd=checkout()
    )
    if result.returncode != 0:
        message = f"The embedded stack did not come up (status {result.returncode})."
        raise CliError(message, ExitCode.UNAVAILABLE, next_commands=("make status", "make up"))
