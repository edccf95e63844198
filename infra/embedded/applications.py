"""Our own processes: the worker, the API, and the supervisord of the control planes."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

from domain.names import CONTROL_TASK_QUEUE, STACKS_TASK_QUEUE, task_queue_of_host
from infra.embedded.home import Home
from infra.embedded.ports import Ports
from infra.embedded.server import Part, PartFailedError, answers
from infra.embedded.temporal import Temporal
from infra.settings import (
    ApiSettings,
    ControlPlaneSettings,
    DatabaseSettings,
    HelmSettings,
    OpenBaoSettings,
    OutboundSettings,
    ProviderSettings,
    RegistrySettings,
    SecretStoreSettings,
    StackSettings,
    TemporalSettings,
)
from infra.supervisor.configuration import source_root
from infra.supervisor.program import ProcessInfo, Program

# The name of the one control-plane host of an embedded stack.
HOST = "local"

_HOST_MODULE = "infra.control_planes.host"

# A stop waits for etcd and the API servers of every control plane.
_HOST_TIMEOUT_SECONDS = 120


SettingsGroup = (
    DatabaseSettings
    | TemporalSettings
    | OpenBaoSettings
    | SecretStoreSettings
    | ControlPlaneSettings
    | OutboundSettings
    | ApiSettings
    | ProviderSettings
    | RegistrySettings
    | StackSettings
    | HelmSettings
)

# The fields of `infra.settings` that hold each group.
_PREFIXES: dict[type[SettingsGroup], str] = {
    DatabaseSettings: "DATABASE",
    TemporalSettings: "TEMPORAL",
    OpenBaoSettings: "OPENBAO",
    SecretStoreSettings: "SECRET_STORE",
    ControlPlaneSettings: "CONTROL_PLANES",
    OutboundSettings: "OUTBOUND",
    ApiSettings: "API",
    ProviderSettings: "PROVIDERS",
    RegistrySettings: "REGISTRY",
    StackSettings: "STACKS",
    HelmSettings: "HELM",
}


def environment_of(*groups: SettingsGroup) -> dict[str, str]:
    """Return the variables from which a process reads these settings again."""
    variables: dict[str, str] = {}
    for group in groups:
        for name, value in group.model_dump(mode="json", exclude_defaults=True).items():
            text = value if isinstance(value, str) else json.dumps(value)
            variables[f"{_PREFIXES[type(group)]}__{name.upper()}"] = text
    return variables


def code_changed_at() -> float:
    """Return when what our processes are made of last changed, in Unix seconds."""
    root = source_root()
    files = [
        path
        for folder in ("activities", "api", "domain", "infra", "workflows")
        for path in Path(root, folder).rglob("*.*")
        if path.parent.name != "__pycache__"
    ]
    # The folder of packages changes whenever one is installed, replaced or removed.
    packages = Path(sysconfig.get_path("purelib"))
    return max(path.stat().st_mtime for path in (root / "worker.py", packages, *files))


class Worker:
    """The worker, which serves both the control queue and this machine's control planes."""

    part = Part.WORKER

    def __init__(
        self, environment: dict[str, str], temporal: Temporal, *, runs_stacks: bool
    ) -> None:
        self._environment = environment
        self._temporal = temporal
        self._runs_stacks = runs_stacks

    @property
    def address(self) -> str:
        """The queues that it polls."""
        stacks = (STACKS_TASK_QUEUE,) if self._runs_stacks else ()
        return ", ".join((CONTROL_TASK_QUEUE, task_queue_of_host(HOST), *stacks))

    def prepare(self, *, running: bool) -> None:
        """Do nothing."""

    def program(self) -> Program:
        """Return the worker's process."""
        return Program(
            name=self.part,
            command=[sys.executable, "-m", "worker"],
            directory=source_root(),
            environment=self._environment,
            # Running activities get the time to end or to say how far they came.
            stop_seconds=30,
            priority=30,
        )

    def is_ready(self, process: ProcessInfo) -> bool:
        """Tell whether this process polls."""
        return self._temporal.has_poller(CONTROL_TASK_QUEUE, process.started_at)

    def is_half_made(self) -> bool:
        """Return False: it keeps nothing."""
        return False

    def repair(self) -> None:
        """Do nothing."""


class Api:
    """The web process.

    Attributes:
        https_address: where it answers with a certificate of the platform's authority.
    """

    part = Part.API

    def __init__(self, environment: dict[str, str], ports: Ports, https_address: str) -> None:
        self._environment = environment
        self._ports = ports
        self.https_address = f"https://{https_address}"

    @property
    def address(self) -> str:
        """Where it answers without TLS, on loopback."""
        return f"http://127.0.0.1:{self._ports.api}"

    def prepare(self, *, running: bool) -> None:
        """Do nothing."""

    def program(self) -> Program:
        """Return the web process."""
        return Program(
            name=self.part,
            command=[sys.executable, "-m", "api"],
            directory=source_root(),
            environment=self._environment,
            stop_seconds=20,
            priority=40,
        )

    def is_ready(self, process: ProcessInfo) -> bool:
        """Tell whether it finds everything that it needs."""
        del process
        return answers(f"{self.address}/readyz")

    def is_half_made(self) -> bool:
        """Return False: it keeps nothing."""
        return False

    def repair(self) -> None:
        """Do nothing."""


def run_host(home: Home, environment: dict[str, str], *arguments: str) -> None:
    """Start the control planes' own supervisord, or stop it with all that it runs (`--stop`).

    Raises:
        PartFailedError: it said no; its words are in the log file.
    """
    log_file = home.supervisor / "logs" / f"{Part.CONTROL_PLANES}.log"
    with log_file.open("w") as log:
        result = subprocess.run(
            [sys.executable, "-m", _HOST_MODULE, *arguments],
            check=False,
            cwd=source_root(),
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=_HOST_TIMEOUT_SECONDS,
        )
    if result.returncode != 0:
        message = f"The control planes' supervisor ended with status {result.returncode}."
        raise PartFailedError(Part.CONTROL_PLANES, message, log_file)
