"""The clouds in which a stack makes machines: three on this machine, or the providers' own."""

import os
import socket
import sys
from pathlib import Path
from typing import Final

import httpx
from pydantic import BaseModel

from domain.cloud import Provider
from domain.errors import BulkheadError, Reason
from infra.embedded.home import Home
from infra.embedded.ports import Ports
from infra.embedded.server import Part
from infra.local_cloud import LocalCloud
from infra.local_cloud.profile import local_profile_of
from infra.local_cloud.provider_programs.install import install
from infra.settings import EmbeddedSettings, ProviderSettings
from infra.supervisor.configuration import source_root
from infra.supervisor.files import write_atomically
from infra.supervisor.program import ProcessInfo, Program

_MODULE: Final = "infra.local_cloud"
_CONNECT_SECONDS: Final = 2.0
# Google's is a key of 2048 bits, which takes a second to find.
_ANSWER_SECONDS: Final = 30.0


class Clouds(BaseModel):
    """What was chosen.

    Attributes:
        local: three clouds run on this machine, and stand for the providers of the same names.
        pulumi_home: where the engine finds the providers' own programs.
    """

    local: bool = False
    pulumi_home: Path | None = None

    @property
    def are_used(self) -> bool:
        """Whether machines can be made in any cloud."""
        return self.local or self.pulumi_home is not None


def load(path: Path) -> Clouds:
    """Return what was chosen."""
    try:
        return Clouds.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Clouds()


def wanted(home: Home, settings: EmbeddedSettings) -> Clouds:
    """Return what the next `up` chooses: what is set, else what was chosen before."""
    before = load(home.clouds_file)
    local = before.local if settings.local_clouds is None else settings.local_clouds
    return Clouds(local=local, pulumi_home=settings.pulumi_home or before.pulumi_home)


def ensure(home: Home, settings: EmbeddedSettings, *, has_address: bool) -> None:
    """Choose or keep the clouds.

    Raises:
        BulkheadError: FAILED_PRECONDITION when the stack cannot have them.
    """
    clouds = wanted(home, settings)
    if problem := _problem_of(clouds, has_address=has_address):
        raise BulkheadError(Reason.FAILED_PRECONDITION, problem)
    if clouds.are_used:
        write_atomically(home.clouds_file, clouds.model_dump_json(indent=2) + "\n")
    else:
        home.clouds_file.unlink(missing_ok=True)


def _problem_of(clouds: Clouds, *, has_address: bool) -> str:
    if clouds.local and not has_address:
        return (
            "Servers of local clouds must reach the stack: set BULKHEAD_NODE_ADDRESS, to `local` "
            "for instance, or BULKHEAD_LOCAL_CLOUDS=0."
        )
    if clouds.local and (sys.platform != "linux" or os.geteuid() != 0):
        return "Local clouds boot servers on this machine, which takes root on Linux."
    return ""


class CloudsServer:
    """The process that answers as the three clouds.

    Args:
        home: the stack's home.
        ports: the stack's ports.
    """

    part = Part.CLOUDS

    def __init__(self, home: Home, ports: Ports) -> None:
        self._home = home
        self._ports: dict[Provider, int] = {
            provider: getattr(ports, f"clouds_{provider}") for provider in Provider
        }

    @property
    def address(self) -> str:
        """Where each of them answers, for people."""
        return ", ".join(f"{provider} {url}" for provider, url in self._urls.items())

    @property
    def providers(self) -> ProviderSettings:
        """Where the API and the worker find them."""
        settings: dict[str, str] = {}
        for provider, url in self._urls.items():
            settings |= local_profile_of(provider).settings(url)
        return ProviderSettings.model_validate(settings)

    @property
    def _urls(self) -> dict[Provider, str]:
        return {provider: f"http://127.0.0.1:{port}" for provider, port in self._ports.items()}

    def prepare(self, *, running: bool) -> None:
        """Make their directory; what clouds that ended have left there is nobody's any more."""
        self._home.clouds.mkdir(mode=0o700, exist_ok=True)
        if not running:
            LocalCloud(self._home.clouds).remove()

    def program(self) -> Program:
        """Return their process."""
        ports = [f"--{provider}-port={port}" for provider, port in self._ports.items()]
        return Program(
            name=self.part,
            command=[
                sys.executable,
                "-m",
                _MODULE,
                f"--directory={self._home.clouds}",
                "clouds",
                *ports,
            ],
            directory=source_root(),
            environment=_environment(),
            stop_seconds=20,
            priority=25,
        )

    def is_ready(self, process: ProcessInfo) -> bool:
        """Tell whether each of them takes connections."""
        del process
        return all(_takes_connections(port) for port in self._ports.values())

    def is_half_made(self) -> bool:
        """Return False: they keep nothing that could be."""
        return False

    def repair(self) -> None:
        """Do nothing."""

    def ensure_accounts(self, process: ProcessInfo) -> None:
        """Have an account at each of them, and its credential in a file that we alone can read.

        They forget their accounts when they end: what was made before `process` started is made
        again.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when one of them makes no account.
        """
        directory = self._home.cloud_accounts
        directory.mkdir(mode=0o700, exist_ok=True)
        for provider, url in self._urls.items():
            file = directory / provider
            if not file.exists() or file.stat().st_mtime < process.started_at:
                write_atomically(file, _new_credential(provider, url))


def _environment() -> dict[str, str]:
    """Return what boots servers with this machine's programs, from the image that the user has."""
    kept = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    cache = os.environ.get("XDG_CACHE_HOME")
    return kept if cache is None else {**kept, "XDG_CACHE_HOME": cache}


def _takes_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), _CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _new_credential(provider: Provider, url: str) -> str:
    """Make an account and return its credential, in the form in which a secret holds it."""
    profile = local_profile_of(provider)
    try:
        # The environment's proxies have no part in what goes over loopback.
        with httpx.Client(trust_env=False, timeout=_ANSWER_SECONDS) as client:
            answer = client.post(f"{url}/_accounts", json=dict(profile.new_account))
            return profile.credential(answer.raise_for_status().json())
    except (httpx.HTTPError, ValueError) as error:
        raise BulkheadError(
            Reason.DEPENDENCY_UNAVAILABLE,
            f"The local cloud {provider} makes no account: {error}",
            metadata={"part": Part.CLOUDS},
        ) from error


def install_programs(home: Home, clouds: Clouds) -> None:
    """Put the provider programs of the local clouds where Pulumi looks for them."""
    if clouds.local and clouds.pulumi_home is None:
        home.pulumi.mkdir(mode=0o700, exist_ok=True)
        install(home.pulumi)
