"""Brings a stack up or down, says what runs of it, saves it, puts it back, or removes it."""

import argparse
import json
import sys

from pydantic import ValidationError
from rich.console import Console

from domain.errors import BulkheadError, Reason
from infra.embedded import local_servers, node_address
from infra.embedded.console import (
    print_addresses,
    print_failure,
    print_status,
    progress_on,
    say,
)
from infra.embedded.home import Home, locate
from infra.embedded.maintenance import (
    add_commands,
    run_backup,
    run_restore,
    run_rotate_seal_key,
)
from infra.embedded.stack import Stack
from infra.embedded.status import status_of
from infra.embedded.users import add_user_command, run_user
from infra.gateway import haproxy
from infra.settings import EmbeddedSettings
from infra.tools import ensure

# Of `status` when something is not right, and of every command that failed.
_NOT_RIGHT = 1
# Of `status` when nothing of it runs, as after `down`; for `make status` that is no error.
_STOPPED = 3
_INTERRUPTED = 130

_AFTER_INTERRUPT = {
    "up": "Interrupted; what has started runs on. `make up` goes on, `make down` stops it.",
    "down": "Interrupted; some of it may still run, and all data is kept. `make down` goes on, "
    "`make status` shows what runs.",
    "status": "Interrupted.",
    "images": "Interrupted.",
    "backup": "Interrupted; nothing was changed, and no file was written.",
    "restore": "Interrupted. When something was replaced already, `make up` says so, and the same "
    "`make restore` goes on.",
    "rotate-seal-key": "Interrupted; the secret store opens all the same. `make rotate-seal-key` "
    "goes on.",
    "user": "Interrupted. Where a user was made, EXISTING=1 gives them another token.",
    "purge": "Interrupted; what is not removed yet is still there. `make purge` goes on.",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    chosen = _parser().parse_args(arguments)
    errors = Console(stderr=True)
    home: Home | None = None
    try:
        settings = _settings()
        home = locate(settings.home)
        stack = Stack(home, settings)
        return _run(stack, chosen)
    except BulkheadError as error:
        print_failure(errors, error)
        if chosen.command == "up" and home is not None:
            say(errors, "Next: `make status` shows every part, `make up` goes on from here.")
        return _NOT_RIGHT
    except KeyboardInterrupt:
        say(errors, _AFTER_INTERRUPT[chosen.command])
        return _INTERRUPTED


def _run(stack: Stack, chosen: argparse.Namespace) -> int:
    match chosen.command:
        case "up":
            _up(stack)
        case "down":
            _down(stack)
        case "purge":
            return _purge(stack, is_agreed=chosen.yes)
        case "backup":
            run_backup(stack, chosen)
        case "restore":
            return 0 if run_restore(stack, chosen, _is_wanted) else _NOT_RIGHT
        case "images":
            _print_images(stack)
        case "rotate-seal-key":
            run_rotate_seal_key(stack, chosen)
        case "user":
            run_user(stack, chosen)
        case _:
            return _status(stack, as_json=chosen.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.embedded", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start everything, or bring it to the newest state")
    commands.add_parser("down", help="stop everything and keep all data")
    status = commands.add_parser("status", help="say what runs, and where")
    status.add_argument("--json", action="store_true", help="for programs")
    commands.add_parser("images", help="print, as JSON, how nodes name the images of the registry")
    purge = commands.add_parser("purge", help="stop everything and remove all data")
    purge.add_argument("--yes", action="store_true", help="do not ask")
    add_commands(commands)
    add_user_command(commands)
    return parser


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
    say(console, f"Bulkhead in {stack.home.directory}")
    if stack.home.link is not None:
        say(
            console,
            f"Its state is there because other users cannot enter {stack.home.link.parent}, and "
            f"as root PostgreSQL runs as one of them; {stack.home.link.name} links to it.",
        )
    _say_what_is_lost(console, stack)
    if stack.lacks_gateway:
        _install_gateway(console)
    # Before anything is drawn: what is missing takes minutes, and says so itself.
    ensure(stack.programs)
    if stack.wants_local_clouds:
        local_servers.prepare(stack.home)
    with progress_on(console, "ready") as report:
        owner = stack.up(report=report)
    if owner is not None:
        print_addresses(console, stack, owner)


def _install_gateway(console: Console) -> None:
    """Install haproxy where that may be done; else say what goes without it."""
    without = "Without it servers reach each cluster by ports of its own."
    if not haproxy.is_installable():
        say(
            console,
            f"haproxy is not installed. {without} Install it (version 2.6 or newer) and run `make "
            "up` again to have one port for everything.",
        )
        return
    say(console, "Installing haproxy with apt-get: by it servers reach everything on one port.")
    try:
        haproxy.install()
    except BulkheadError as error:
        say(console, f"{error.message} {without}", style="yellow")


def _down(stack: Stack) -> None:
    console = Console()
    _say_what_is_lost(console, stack)
    with progress_on(console, "stopped") as report:
        stack.down(report)
    directory = stack.home.directory
    if stack.home.ports_file.exists():
        say(console, f"Everything is kept in {directory}; `make up` brings it back.")
    else:
        say(console, f"There is no stack in {directory}; `make up` makes one.")
    if stack.home.ports_file.exists() and stack.local_clouds is not None:
        say(
            console,
            "The local clouds have forgotten their accounts; with the next `make up` they begin "
            "anew, and the servers that they had are gone. Compute configs then need the new "
            "credentials: docs/clouds.md, `Playing without an account`, has the two commands.",
        )
    if servers := local_servers.running(stack.home):
        say(
            console,
            f"The demo's servers {', '.join(servers)} run on and wait for the stack; `make purge` "
            "removes them.",
        )


def _purge(stack: Stack, *, is_agreed: bool) -> int:
    console = Console()
    directory = stack.home.directory
    if not (stack.home.ports_file.exists() or stack.lost()):
        say(console, f"There is no stack in {directory}.")
        return 0
    if not is_agreed:
        words = f"This removes every cluster, record and key in {directory} for ever."
        if not stack.clouds.local:
            words += (
                " What clusters have in clouds stays there and costs money: delete those clusters "
                "first."
            )
        if not _is_wanted(words):
            return _NOT_RIGHT
    _say_what_is_lost(console, stack)
    with progress_on(console, "stopped") as report:
        stack.down(report)
        if stack.home.demo.exists() or stack.home.clouds.exists():
            with report("local servers"):
                local_servers.remove(stack.home)
    node_address.forget(stack.home.node_address_file)
    if stack.home.remove():
        say(console, f"Removed {directory}.")
    else:
        say(console, f"Removed the stack; {directory} has other files, which stay.")
    return 0


def _is_wanted(words: str) -> bool:
    """Ask whether to go on after these words.

    Raises:
        BulkheadError: FAILED_PRECONDITION when nobody is there to be asked.
    """
    console = Console()
    say(console, words)
    if not sys.stdin.isatty():
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "Nobody is there to ask, so nothing was changed; YES=1 (`--yes`) does not ask.",
        )
    if input("Type yes to go on: ").strip().lower() != "yes":
        say(console, "Nothing was changed.")
        return False
    return True


def _status(stack: Stack, *, as_json: bool) -> int:
    console = Console()
    lost = stack.lost()
    if lost and not as_json:
        say(
            console,
            f"{_processes(lost)} of a stack whose directory was removed still run; `make down` "
            "ends it.",
            style="red",
        )
    components = status_of(stack)
    if as_json:
        print(json.dumps([component.as_json() for component in components], indent=2))
    elif all(component.pid is None for component in components):
        say(
            console,
            f"Everything is stopped and kept in {stack.home.directory}; `make up` starts it.",
        )
        return _NOT_RIGHT if lost else _STOPPED
    else:
        print_status(console, components)
        if stack.node_address is None:
            say(console, "No server can join: BULKHEAD_NODE_ADDRESS was never set.", style="dim")
        elif not stack.clouds.are_used:
            names = "BULKHEAD_LOCAL_CLOUDS and BULKHEAD_PULUMI_HOME were never set"
            say(console, f"No machines can be made in clouds: {names}.", style="dim")
        if stack.home.link is not None:
            say(console, f"State: {stack.home.directory}", style="dim")
    return _NOT_RIGHT if lost or not all(found.is_right for found in components) else 0


def _print_images(stack: Stack) -> None:
    images = stack.images
    if images is None:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "The stack has no registry: set BULKHEAD_NODE_ADDRESS and run `make up`.",
        )
    print(images.model_dump_json(indent=2))


def _say_what_is_lost(console: Console, stack: Stack) -> None:
    if lost := stack.lost():
        say(
            console,
            f"{_processes(lost)} of a stack whose directory was removed still run; ending it.",
        )


def _processes(pids: list[int]) -> str:
    return f"The supervisors (process {', '.join(map(str, pids))})"
