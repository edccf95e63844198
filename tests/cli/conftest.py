"""The real `bulkhead` as a process of its own, against a real stack with its API and worker."""

import contextlib
import fcntl
import json
import os
import pty
import select
import shlex
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cli.commands.workspaces import create_in
from cli.configuration import Configuration, Wishes
from cli.output import Output
from cli.session import Session
from infra.embedded.home import Home
from infra.embedded.stack import Stack
from infra.settings import EmbeddedSettings
from tests.processes import is_busy
from tests.servers import temporary_home

TIMEOUT_SECONDS = 120
TYPING_SECONDS = 0.5


class Bulkhead:
    """Runs `bulkhead` as somebody who has no other configuration than what a test gives."""

    def __init__(self, folder: Path, **environment: str) -> None:
        installed = Path(sys.executable).with_name("bulkhead")
        self._program = [str(installed)] if installed.exists() else [sys.executable, "-m", "cli"]
        self.folder = folder
        self.environment = {
            "PATH": f"{_put_on_path(folder, self._program)}:{os.environ['PATH']}",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            **environment,
        }

    def run(
        self, *arguments: str, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one command without a terminal."""
        return subprocess.run(
            [*self._program, *arguments],
            check=False,
            cwd=self.folder,
            env={**self.environment, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )

    def ok(self, *arguments: str, **environment: str) -> str:
        """Run a command that must succeed; return its standard output."""
        result = self.run(*arguments, **environment)
        assert result.returncode == 0, result.stderr
        assert "\x1b" not in result.stdout + result.stderr
        return result.stdout

    def json(self, *arguments: str, **environment: str) -> Any:  # noqa: ANN401 - whatever it is
        """Run a command that must succeed; return its result."""
        return json.loads(self.ok(*arguments, "--json", **environment))

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """Ask the API as this person, and not at a terminal: for what is not looked at."""
        session = Session(
            output=Output(),
            wishes=Wishes(workspace=self.environment.get("BULKHEAD_WORKSPACE")),
            configuration=Configuration(self.environment),
        )
        try:
            yield session
        finally:
            session.close()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command without a terminal."""
        return subprocess.Popen(
            [*self._program, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def on_terminal(
        self, arguments: Sequence[str], *exchanges: tuple[str, str], **environment: str
    ) -> tuple[int, str]:
        """Run a command on a terminal of its own.

        Args:
            arguments: the command line.
            exchanges: what to wait for on the screen, and what to type then.
            environment: further variables.

        Returns:
            The exit code and everything that was shown.
        """
        leader, follower = pty.openpty()
        with subprocess.Popen(
            [*self._program, *arguments],
            cwd=self.folder,
            env={"TERM": "xterm-256color", **self.environment, **environment},
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
            preexec_fn=_take_terminal,  # noqa: PLW1509 - it only makes a system call
        ) as process:
            os.close(follower)
            try:
                shown = _converse(leader, process.pid, list(exchanges))
            finally:
                os.close(leader)
            return process.wait(TIMEOUT_SECONDS), shown


def _put_on_path(folder: Path, program: Sequence[str]) -> Path:
    """Install `bulkhead` for this person; return the folder that goes on PATH."""
    script = folder / "bin" / "bulkhead"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f'#!/bin/sh\nexec {shlex.join(program)} "$@"\n')
    script.chmod(0o755)
    return script.parent


def _take_terminal() -> None:
    # Ctrl-C reaches a process only through the terminal that controls it.
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _converse(leader: int, pid: int, exchanges: list[tuple[str, str]]) -> str:
    shown = ""
    seen = 0
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        ready, _, _ = select.select([leader], [], [], 1.0)
        if ready:
            try:
                part = os.read(leader, 65536)
            except OSError:  # how Linux tells that the last process closed the terminal
                part = b""
            if not part:
                return shown
            shown += part.decode(errors="replace")
        if exchanges and exchanges[0][0] in shown[seen:]:
            seen = len(shown)
            # Nobody types faster; and Python loses a Ctrl-C that comes between its prompt and its
            # read, to which a busy machine may let it come later still.
            time.sleep(TYPING_SECONDS)
            while is_busy(pid):
                assert time.monotonic() < deadline, f"busy: {shown}"
                time.sleep(0.01)
            os.write(leader, exchanges.pop(0)[1].encode())
    message = f"still running: {shown}"
    raise AssertionError(message)


@pytest.fixture(scope="session")
def stack_home() -> Iterator[Home]:
    """A whole stack, as `make up` makes it."""
    with temporary_home() as home:
        Stack(home, EmbeddedSettings.model_construct(home=None), durable=False).up()
        yield home


@pytest.fixture
def stranger(tmp_path: Path) -> Bulkhead:
    """Somebody who is not logged in anywhere."""
    return Bulkhead(tmp_path)


@pytest.fixture
def bulkhead(tmp_path: Path, stack_home: Home) -> Iterator[Bulkhead]:
    """The stack's first owner, in a new workspace that has no clusters when the test is over."""
    owner = Bulkhead(tmp_path, BULKHEAD_HOME=str(stack_home.directory))
    with owner.session() as session:
        workspace = create_in(session.account, {"name": "test"})
    owner.environment["BULKHEAD_WORKSPACE"] = workspace["id"]
    yield owner
    with owner.session() as session:
        clusters = list(session.client.pages("/clusters"))
    for cluster in clusters:
        owner.ok("clusters", "delete", cluster["id"], "--yes")
