"""Real servers for a test session, in a directory of their own that goes with the session.

`python -m tests.servers HOME` is the session's shadow: it waits for the end of its input, which
comes with the end of the session in whatever way, and removes what is left.
"""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg

from infra.embedded import node_address
from infra.embedded.home import Home
from infra.embedded.server import Part
from infra.embedded.stack import SERVERS, Stack
from infra.settings import (
    ControlPlaneSettings,
    DatabaseSettings,
    EmbeddedSettings,
    OpenBaoSettings,
    TemporalSettings,
)
from infra.supervisor.configuration import source_root


class Servers:
    """PostgreSQL (migrated), Temporal and OpenBao, running."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.home = stack.home.directory

    @property
    def database(self) -> DatabaseSettings:
        return self.stack.database

    @property
    def temporal(self) -> TemporalSettings:
        return self.stack.temporal

    @property
    def temporal_ui(self) -> str:
        return f"http://127.0.0.1:{self.stack.ports.temporal_ui}"

    @property
    def control_planes(self) -> ControlPlaneSettings:
        return self.stack.control_planes

    def openbao(self, role: str) -> OpenBaoSettings:
        """Return the settings of a process of the role `worker` or `api`."""
        return self.stack.openbao(role)

    @contextlib.contextmanager
    def administrator(self, database: str = "bulkhead") -> Iterator[psycopg.Connection]:
        """Open a superuser's connection in autocommit mode."""
        with self.stack.administrator(database) as connection:
            # A test that waits in the loop of the very worker that holds the row waits for ever.
            connection.execute("SET lock_timeout = '10s'")
            yield connection


@contextlib.contextmanager
def temporary_home() -> Iterator[Home]:
    """Make a stack's home that is taken down and removed at the end, whatever the end is."""
    directory = Path(tempfile.mkdtemp(prefix="bulkhead-test-"))
    # As root, PostgreSQL and control planes are users of their own, below this directory.
    directory.chmod(0o711)
    home = Home(directory / "home")
    with subprocess.Popen(
        [sys.executable, "-m", "tests.servers", str(home.directory)],
        cwd=source_root(),
        stdin=subprocess.PIPE,
        start_new_session=True,
    ) as shadow:
        try:
            yield home
        finally:
            remove(home)
            assert shadow.stdin is not None
            shadow.stdin.close()
            shadow.wait(60)


@contextlib.contextmanager
def running_servers() -> Iterator[Servers]:
    """Run the servers and a control-plane host; what they commit does not wait for disks."""
    with temporary_home() as home:
        stack = Stack(home, EmbeddedSettings.model_construct(home=None), durable=False)
        stack.up(SERVERS | {Part.CONTROL_PLANES})
        yield Servers(stack)


def remove(home: Home) -> None:
    """Stop whatever runs in a test's home, and remove it."""
    if home.directory.parent.exists():
        Stack(home).down()
        node_address.forget(home.node_address_file)
        shutil.rmtree(home.directory.parent)


if __name__ == "__main__":
    sys.stdin.read()
    remove(Home(Path(sys.argv[1])))
