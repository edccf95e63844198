"""Runs the system's own programs."""

import subprocess
from pathlib import Path

from domain.errors import BulkheadError, Reason

_TIMEOUT_SECONDS = 60.0


def execute(*command: str | Path, text: str = "", timeout: float = _TIMEOUT_SECONDS) -> str:
    """Run a program to its end and return what it printed.

    Args:
        command: the program and its arguments.
        text: its standard input.
        timeout: seconds after which it is ended.

    Raises:
        BulkheadError: INTERNAL, with what the program said, when it failed or was not there.
    """
    shown = " ".join(map(str, command))
    try:
        answer = subprocess.run(
            command, check=False, capture_output=True, input=text, text=True, timeout=timeout
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BulkheadError(
            Reason.INTERNAL,
            f"`{shown}` could not be run: {error}. `python -m infra.local_cloud check` says what"
            f" this machine lacks.",
        ) from error
    if answer.returncode != 0:
        raise BulkheadError(
            Reason.INTERNAL,
            f"`{shown}` ended with status {answer.returncode}: {answer.stderr.strip()}",
        )
    return answer.stdout


def succeeds(*command: str | Path) -> bool:
    """Whether a program can be run and ends with status 0."""
    try:
        return (
            subprocess.run(
                command, check=False, capture_output=True, timeout=_TIMEOUT_SECONDS
            ).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
