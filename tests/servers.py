"""Real servers for a test session, in a directory of their own that goes with the session."""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg

from infra.control_planes.processes import host_supervisor
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
from infra.supervisor.supervisor import Supervisor
from tests.shadow import shadow_of


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
    with shadow_of("tests.servers", directory):
        try:
            yield _home_in(directory)
        finally:
            remove(directory)


@contextlib.contextmanager
def running_servers() -> Iterator[Servers]:
    """Run the servers and a control-plane host; what they commit does not wait for disks."""
    with temporary_home() as home:
        stack = Stack(home, EmbeddedSettings.model_construct(home=None), durable=False)
        stack.up(SERVERS | {Part.CONTROL_PLANES})
        yield Servers(stack)


def remove(directory: Path) -> None:
    """End whatever runs in a test's home, and remove the directory around it."""
    if not directory.exists():
        return
    home = _home_in(directory)
    stack = Stack(home)
    stack.end_lost()
    if Part.CLOUDS in stack.supervisor.groups():
        # Killed, they would leave their servers on this machine.
        stack.down()
    if home.ports_file.exists():
        kill(host_supervisor(stack.control_planes))
    kill(stack.supervisor)
    node_address.forget(home.node_address_file)
    shutil.rmtree(directory)


def kill(supervisor: Supervisor) -> None:
    """End a supervisord and all that it runs at once: what they could still write is of no use."""
    if (pid := supervisor.pid) is not None:
        # Else its keeper would bring it back.
        supervisor.files.stopped.touch(mode=0o600)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    supervisor.shutdown()


def _home_in(directory: Path) -> Home:
    return Home(directory / "home")
