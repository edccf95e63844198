"""The registry of charts on this machine: where whoever runs the stack pushes what they package.

Plain HTTP on loopback and without a login: only this machine reaches it. A package remembers the
digest of each chart, so that nobody changes a published version by pushing another one.
"""

import json
import os
from pathlib import Path

from infra.embedded.home import Home
from infra.embedded.ports import Ports
from infra.embedded.server import Part, answers
from infra.supervisor.files import write_atomically
from infra.supervisor.program import ProcessInfo, Program

# The program, of the tools that are pinned.
PROGRAM = "registry"


class ChartRegistry:
    """The registry program with a folder of its own.

    Args:
        home: the stack's home.
        ports: the stack's ports.

    Attributes:
        uid: whose process and files it has; None: the stack's own user's.
    """

    part = Part.CHARTS

    def __init__(self, home: Home, ports: Ports) -> None:
        self._program = home.programs / PROGRAM
        self._directory = home.charts
        self._port = ports.charts
        self.uid = ports.charts_uid if os.geteuid() == 0 else None

    @property
    def host_and_port(self) -> str:
        """Where it answers, as it stands in `oci://` references."""
        return f"127.0.0.1:{self._port}"

    @property
    def address(self) -> str:
        """Where charts are pushed to, for people."""
        return f"oci://{self.host_and_port}"

    def prepare(self, *, running: bool) -> None:
        """Write its configuration, and make the folder in which it keeps what is pushed."""
        del running
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._directory.chmod(0o711 if self.uid is not None else 0o700)
        self.storage.mkdir(mode=0o700, exist_ok=True)
        if self.uid is not None:
            os.chown(self.storage, self.uid, self.uid)
        configuration = {
            "version": 0.1,
            "log": {"level": "warn", "formatter": "json", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.storage)}},
            "http": {
                "addr": self.host_and_port,
                # Signs the state of uploads, which are this process's own; a new one ends them.
                "secret": os.urandom(16).hex(),
                "headers": {"X-Content-Type-Options": ["nosniff"]},
            },
        }
        if not self._configuration.exists():
            # JSON is YAML.
            write_atomically(self._configuration, json.dumps(configuration, indent=2) + "\n")
            if self.uid is not None:
                os.chown(self._configuration, self.uid, self.uid)

    def program(self) -> Program:
        """Return its process."""
        return Program(
            name=self.part,
            command=[str(self._program), "serve", str(self._configuration)],
            directory=self._directory,
            environment={
                # Otherwise it sends traces to whoever listens on loopback.
                "OTEL_TRACES_EXPORTER": "none",
                "REGISTRY_HTTP_ADDR": self.host_and_port,
            },
            uid=self.uid,
            priority=20,
        )

    def is_ready(self, process: ProcessInfo) -> bool:
        """Tell whether it answers."""
        del process
        return answers(f"http://{self.host_and_port}/v2/")

    def is_half_made(self) -> bool:
        """Return False: it writes whole files under other names first."""
        return False

    def repair(self) -> None:
        """Do nothing."""

    @property
    def storage(self) -> Path:
        """The folder of what was pushed."""
        return self._directory / "storage"

    @property
    def _configuration(self) -> Path:
        return self._directory / "registry.json"
