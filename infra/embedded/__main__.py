"""`python -m infra.embedded up|down|status [--json]`."""

import argparse
import json
import sys

from pydantic import ValidationError
from rich.console import Console

from domain.errors import BulkheadError, Reason
from infra.embedded.console import print_addresses, print_failure, print_status, progress_on
from infra.embedded.home import Home, locate
from infra.embedded.stack import Stack
from infra.embedded.status import status_of
from infra.settings import EmbeddedSettings

# Of `status` when something is not right, and of every command that failed.
_NOT_RIGHT = 1
_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.embedded", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start everything, or bring it to the newest state")
    commands.add_parser("down", help="stop everything and keep all data")
    status = commands.add_parser("status", help="say what runs, and where")
    status.add_argument("--json", action="store_true", help="for programs")
    chosen = parser.parse_args(arguments)
    errors = Console(stderr=True)
    home: Home | None = None
    try:
        settings = _settings()
        home = locate(settings.home)
        stack = Stack(home, settings)
        match chosen.command:
            case "up":
                _up(stack)
            case "down":
                stack.down()
            case _:
                return _status(stack, as_json=chosen.json)
    except BulkheadError as error:
        print_failure(errors, error)
        if chosen.command == "up" and home is not None:
            errors.print("Next: `make status` shows every part, `make up` goes on from here.")
        return _NOT_RIGHT
    except KeyboardInterrupt:
        errors.print("Interrupted; what has started runs on. `make down` stops it.")
        return _INTERRUPTED
    return 0


def _settings() -> EmbeddedSettings:
    try:
        return EmbeddedSettings()
    except ValidationError as error:
        problems = "; ".join(
            f"BULKHEAD_{str(problem['loc'][0]).upper()}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise BulkheadError(Reason.INVALID_ARGUMENT, f"{problems}.") from error


def _up(stack: Stack) -> None:
    console = Console()
    console.print(f"Bulkhead in {stack.home.directory}", soft_wrap=True)
    with progress_on(console) as report:
        owner = stack.up(report=report)
    if owner is not None:
        print_addresses(console, stack, owner)


def _status(stack: Stack, *, as_json: bool) -> int:
    components = status_of(stack)
    if as_json:
        print(json.dumps([component.as_json() for component in components], indent=2))
    else:
        print_status(Console(), components)
    return 0 if all(component.is_right for component in components) else _NOT_RIGHT


if __name__ == "__main__":
    sys.exit(main())
