"""Servers that boot on this machine, by the command with which a person would boot them."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.demo.stack import checkout
from cli.errors import CliError, ExitCode
from cli.invocation import shown
from cli.private_files import write_private
from cli.text import clean

_NETWORK = "demo"
_SHOWN_CHARACTERS = 2000
# A server's console, which an error quotes, is written for a terminal.
_CONTROL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f]")


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalServer:
    """One server of the demo: its host name, whether it is on, its address."""

    name: str
    running: bool
    address: str


class LocalCloud:
    """The demo's own directory of servers; `make purge` removes it with all that runs of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def prepare(self) -> bool:
        """Install what booting servers takes; False where they cannot be, after saying why."""
        return self._pass_through("prepare") == 0

    def make_image(self) -> None:
        """Make the image of servers, which takes a minute the first time and says so.

        Raises:
            CliError: it cannot be made.
        """
        # The path of the image is of no interest here.
        if self._pass_through("image", stdout=subprocess.DEVNULL) != 0:
            message = "The image of local servers cannot be made."
            raise CliError(message, next_commands=("make server-image",))

    def servers(self) -> dict[str, LocalServer]:
        """Return all servers by name."""
        if not self._directory.is_dir():
            return {}
        entries = json.loads(self._run("list", "--json"))
        return {entry["name"]: LocalServer(**entry) for entry in entries}

    def boot(self, name: str, user_data: str | None = None) -> None:
        """Switch a server on, making it if it is new; returns when it has booted.

        Args:
            name: its host name.
            user_data: for cloud-init of a new one; it carries a token, so it is in a file for as
                long as the command reads it, and never in an argument.

        Raises:
            CliError: it does not boot.
        """
        arguments = ["boot", name, "--network", _NETWORK]
        if user_data is None:
            self._run(*arguments)
            return
        file = self._directory.with_name(f"user-data-{name}")
        write_private(file, user_data)
        try:
            self._run(*arguments, "--user-data", str(file))
        finally:
            file.unlink(missing_ok=True)

    def look(self, name: str, command: str) -> str:
        """Run a shell command at a server's console and return what it printed.

        Raises:
            CliError: the server is off.
        """
        return self._run("run", name, command)

    def remove(self, name: str) -> None:
        """Switch a server off and throw it away."""
        self._run("remove", name)

    def typed(self, *arguments: str) -> str:
        """Return a command as a person types it."""
        python, directory = (
            shlex.quote(shown(path)) for path in (Path(sys.executable), self._directory)
        )
        words = ("-m", "infra.local_cloud", "--directory", directory, *arguments)
        return " ".join((python, *words))

    def _command(self, arguments: Sequence[str]) -> list[str]:
        program = [sys.executable, "-m", "infra.local_cloud", "--directory", str(self._directory)]
        return [*program, *arguments]

    def _pass_through(self, *arguments: str, stdout: int | None = None) -> int:
        """Let a person see what a command says while it runs; return its exit status."""
        sys.stdout.flush()
        return subprocess.run(
            self._command(arguments),
            check=False,
            cwd=checkout(),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            # All of the demo's story goes to one place, in order.
            stderr=sys.stdout,
        ).returncode

    def _run(self, *arguments: str) -> str:
        result = subprocess.run(
            self._command(arguments),
            check=False,
            cwd=checkout(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if result.returncode != 0:
            said = clean(_CONTROL_CODES.sub("", result.stderr[-_SHOWN_CHARACTERS:]))
            message = f"{self.typed(*arguments[:2])} failed: {said}"
            raise CliError(message, ExitCode.FAILED, next_commands=(self.typed("list"),))
        return result.stdout
