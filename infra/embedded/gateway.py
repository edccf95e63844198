"""The gateway: haproxy, on the one port by which servers reach everything."""

import hashlib
import socket
from pathlib import Path

from infra.embedded.server import Part
from infra.gateway import Gateway, haproxy, write_configuration
from infra.supervisor.program import ProcessInfo, Program

_CONNECT_SECONDS = 2.0


class GatewayServer:
    """The embedded gateway.

    Args:
        directory: of its configuration.
        gateway: where it listens and what is behind it.
        program: haproxy's path.
    """

    part = Part.GATEWAY

    def __init__(self, directory: Path, gateway: Gateway, program: str) -> None:
        self._directory = directory
        self._gateway = gateway
        self._program = program

    @property
    def address(self) -> str:
        """Where it listens, for people."""
        return f"{self._gateway.address}:{self._gateway.port} by server name"

    def prepare(self, *, running: bool) -> None:
        """Write its configuration, and have it read."""
        del running
        self._directory.mkdir(mode=0o700, exist_ok=True)
        haproxy.check(self._program, write_configuration(self._directory, self._gateway))

    def program(self) -> Program:
        """Return haproxy's process."""
        configuration = write_configuration(self._directory, self._gateway)
        return Program(
            name=self.part,
            command=haproxy.command(self._program, configuration),
            directory=self._directory,
            # Another configuration is another program, and so a restart.
            environment={"CONFIGURATION": self._digest(configuration)},
            priority=40,
        )

    def _digest(self, configuration: Path) -> str:
        content = configuration.read_bytes() + repr(self._gateway).encode()
        return hashlib.sha256(content).hexdigest()

    def is_ready(self, process: ProcessInfo) -> bool:
        """Tell whether it takes connections."""
        del process
        address = (self._gateway.address, self._gateway.port)
        try:
            socket.create_connection(address, _CONNECT_SECONDS).close()
        except OSError:
            return False
        return True

    def is_half_made(self) -> bool:
        """Return False: it keeps nothing."""
        return False

    def repair(self) -> None:
        """Do nothing."""
