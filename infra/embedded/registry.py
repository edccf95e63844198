"""The image registry, for the nodes of a network that reaches no public one."""

import os
import ssl
import sys
from pathlib import Path

import httpx

from domain.names import REGISTRY_SERVER_NAME
from infra.embedded.home import Home
from infra.embedded.server import Part
from infra.openbao.signing import ApiOpenBao
from infra.registry import RegistryCertificate, RegistryFiles, write_configuration
from infra.settings import OpenBaoSettings, RegistrySettings
from infra.supervisor.configuration import source_root
from infra.supervisor.program import ProcessInfo, Program

# The group, and its only program, that keeps the certificate new.
REGISTRY_CERTIFICATE = "registry-certificate"

_KEEPER_MODULE = "infra.registry"


class RegistryServer:
    """The embedded registry. OpenBao must be there when it is prepared.

    Args:
        home: the stack's home.
        address: where it listens, `host:port`.
        openbao: the login with which its certificate is signed: the API's.
        uid: the user and group id that it runs as, None to be who runs supervisord.
    """

    part = Part.REGISTRY

    def __init__(self, home: Home, address: str, openbao: OpenBaoSettings, uid: int | None) -> None:
        self._files = RegistryFiles(home.registry)
        self._program = home.programs / "registry"
        self._address = address
        self._openbao = openbao
        self._uid = uid
        host = address.rpartition(":")[0].strip("[]")
        self.certificate_settings = RegistrySettings(
            certificate_file=self._files.certificate,
            ca_file=home.ca_file,
            server_names=[REGISTRY_SERVER_NAME, host],
            supervisor_dir=home.supervisor,
            uid=uid,
        )

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"https://{self._address}"

    def prepare(self, *, running: bool) -> None:
        """Write its configuration, and get it a certificate that is not due."""
        directory = self._files.directory
        directory.mkdir(mode=0o700, exist_ok=True)
        # As another user it passes through, and reads what is not for it alone.
        directory.chmod(0o711 if self._uid is not None else 0o700)
        write_configuration(self._files, self._address)
        self._files.configuration.chmod(0o644)
        if running:
            # Its keeper renews the certificate, and restarts it with that.
            return
        openbao = ApiOpenBao(self._openbao)
        try:
            RegistryCertificate(self.certificate_settings, openbao).ensure()
        finally:
            openbao.close()

    def program(self) -> Program:
        """Return the registry's process."""
        return Program(
            name=self.part,
            command=[str(self._program), "serve", str(self._files.configuration)],
            directory=self._files.directory,
            environment={
                # Otherwise it sends traces to whoever listens on loopback.
                "OTEL_TRACES_EXPORTER": "none",
                # Read at the start only: another address is another program.
                "ADDRESS": self._address,
            },
            uid=self._uid,
            priority=20,
        )

    def keeper(self, environment: dict[str, str]) -> Program:
        """Return the process that keeps the certificate new, beside the registry."""
        return Program(
            name=REGISTRY_CERTIFICATE,
            command=[sys.executable, "-m", _KEEPER_MODULE],
            directory=source_root(),
            environment=environment,
        )

    def is_ready(self, process: ProcessInfo) -> bool:
        """Tell whether it answers, with a certificate of the platform's authority."""
        del process
        return _answers(f"{self.address}/v2/", self.certificate_settings.ca_file)

    def is_half_made(self) -> bool:
        """Return False: what it serves is written by others, and it writes nothing."""
        return False

    def repair(self) -> None:
        """Do nothing."""


def _answers(url: str, ca_file: Path) -> bool:
    try:
        trust = ssl.create_default_context(cafile=os.fspath(ca_file))
        with httpx.Client(verify=trust, trust_env=False, timeout=2.0) as client:
            return client.get(url).status_code == httpx.codes.OK
    except (OSError, httpx.HTTPError):
        return False
