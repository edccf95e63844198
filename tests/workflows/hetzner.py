"""Hetzner's API on loopback, whose servers join as soon as they are made, without being booted.

What a server does is a `tests.workflows.machine.servers.Server`: rows as its reports write them,
and a kubelet at its cluster's API. It begins when the API switches a server on whose user data has
a good token, and ends when the API removes it.
"""

import asyncio
import contextlib
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import requests

from domain.cloud import CloudResource, Provider
from domain.identifiers import Prefix
from domain.secret import SecretValue
from domain.tokens import hash_of
from infra.clouds.cloud import Cloud
from infra.clouds.registry import open_cloud
from infra.local_cloud.provider_programs.install import install
from infra.local_cloud.serving import LOOPBACK, free_port, served
from infra.settings import ProviderSettings, StackSettings
from infra.tools import toolbox
from tests.workflows.machine.fleet import Fleet

_TOKEN = re.compile(r"bulkhead_wbt_[0-9A-Za-z]+")
_STACK = re.compile(r"[0-9a-f]{32}")
_SNAPSHOT = "snapshot-"
NODE_URL = "https://192.0.2.1:8443"


class Joining:
    """Servers that join the fleet's cluster by the token in their user data."""

    def __init__(self) -> None:
        self._fleet: Fleet | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._servers: dict[str, Future[None]] = {}
        # By which token what is on a disk has joined; for keys that do not tell a stack.
        self._tokens: dict[str, bytes] = {}
        # Servers that are made from now on never call.
        self.silent = False
        # Copies of disks end only while it is set.
        self.copying = threading.Event()
        self.copying.set()

    @contextlib.contextmanager
    def joining(self, fleet: Fleet) -> Iterator[None]:
        """Have servers join a fleet's cluster."""
        self._fleet, self._loop = fleet, asyncio.get_running_loop()
        try:
            yield
        finally:
            self._fleet = None
            for key in list(self._servers):
                self.remove(key)

    def create(
        self,
        key: str,
        *,
        user_data: str,
        network_key: str,  # noqa: ARG002 - of the interface
        image: str,
    ) -> IPv4Address | None:
        """Switch a server on, which joins at once."""
        token = _TOKEN.search(user_data)
        if token is not None and self._fleet is not None and not self.silent:
            assert self._loop is not None
            self._tokens[key] = hash_of(token[0])
            self._servers[key] = asyncio.run_coroutine_threadsafe(
                self._fleet.serve(self._tokens[key]), self._loop
            )
        disk_of = image.removeprefix(_SNAPSHOT)
        if disk_of in self._tokens:
            self._tokens[key] = self._tokens[disk_of]
        if image.startswith(_SNAPSHOT):
            self._wake(key)
        return None

    def power_off(self, key: str) -> None:
        """End what the server does."""
        self.remove(key)

    def power_on(self, key: str) -> None:
        """Have the server be what it was."""
        self._wake(key)

    def snapshot(self, key: str) -> str:
        """Return a key: what the server is stands in the rows of its machine."""
        self.copying.wait()
        return f"{_SNAPSHOT}{key}"

    def remove_snapshot(self, snapshot_key: str) -> None:
        """Do nothing."""

    def remove(self, key: str) -> None:
        """End what the server does."""
        if serving := self._servers.pop(key, None):
            serving.cancel()

    def _wake(self, key: str) -> None:
        """Switch a server on whose disk has joined before."""
        stack = _STACK.search(key)
        if self._fleet is None or self.silent:
            return
        assert self._loop is not None
        if stack is not None:
            waking = self._fleet.wake(f"{Prefix.STACK}_{stack[0]}")
        elif key in self._tokens:
            waking = self._fleet.wake_by_token(self._tokens[key])
        else:
            return
        self._servers[key] = asyncio.run_coroutine_threadsafe(waking, self._loop)


class Others:
    """The APIs of AWS and Google, each served from its first use on, where settings say already."""

    def __init__(self, boots: Joining) -> None:
        self._boots = boots
        self._ports = {Provider.AWS: free_port(), Provider.GCP: free_port()}
        self._serving = contextlib.ExitStack()
        self._started: set[Provider] = set()

    def url(self, provider: Provider) -> str:
        """Return where a provider's API is, or will be."""
        return f"http://{LOOPBACK}:{self._ports[provider]}"

    def serve(self, provider: Provider) -> str:
        """Have a provider's API, and return where it is."""
        if provider not in self._started:
            port = self._ports[provider]
            self._serving.enter_context(served(provider, boots=self._boots, port=port))
            self._started.add(provider)
        return self.url(provider)

    def close(self) -> None:
        """End what was served."""
        self._serving.close()


@dataclass(frozen=True, kw_only=True)
class Hetzner:
    """The API, and how a worker uses it."""

    url: str
    servers: Joining
    stacks: StackSettings
    others: Others

    @property
    def providers(self) -> ProviderSettings:
        google = self.others.url(Provider.GCP)
        return ProviderSettings(
            hcloud_url=f"{self.url}/v1",
            aws_endpoint_url=self.others.url(Provider.AWS),
            gcp_token_url=f"{google}/token",
            gcp_compute_url=google,
            gcp_iam_url=google,
            gcp_resource_manager_url=google,
            gcp_billing_url=google,
        )

    def new_token(self, project: str) -> str:
        """Return one more token of a project, which is made when it is new."""
        answer = requests.post(f"{self.url}/_accounts", json={"project": project}, timeout=10)
        answer.raise_for_status()
        return str(answer.json()["token"])

    def revoke(self, token: str) -> None:
        """Delete a token, as a person does in the console."""
        body = {"token": token}
        requests.delete(f"{self.url}/_accounts", json=body, timeout=10).raise_for_status()

    def cloud(self, token: str) -> Cloud:
        """Open the project of a token."""
        return open_cloud(Provider.HCLOUD, SecretValue.of_text(token), self.providers)

    def has(self, token: str, workspace_id: str) -> list[CloudResource]:
        """Return all that the project of a token has of a workspace."""
        return list(self.cloud(token).inventory(workspace_id))

    def fault(self, kind: str, **facts: str | int) -> None:
        """Let a fault strike from now on; see `infra.local_cloud.faults`."""
        body = {"kind": kind, **facts}
        requests.post(f"{self.url}/_faults", json=body, timeout=10).raise_for_status()

    def heal(self) -> None:
        """End all faults."""
        requests.delete(f"{self.url}/_faults", timeout=10).raise_for_status()


@contextlib.contextmanager
def running_hetzner(directory: Path) -> Iterator[Hetzner]:
    """Serve the API; the engine is there when `ensure_engine` was called."""
    home = directory / "engine"
    for name in ("plugins", "runs", "programs"):
        (home / name).mkdir(parents=True)
    authority = home / "authority.pem"
    authority.write_text("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
    joining = Joining()
    others = Others(joining)
    with contextlib.closing(others), served(Provider.HCLOUD, boots=joining) as url:
        yield Hetzner(
            url=url,
            servers=joining,
            others=others,
            stacks=StackSettings(
                directory=home / "runs",
                pulumi_home=home,
                programs_dir=home / "programs",
                node_url=NODE_URL,
                node_authority_file=authority,
            ),
        )


def ensure_engine(stacks: StackSettings) -> None:
    """Have the engine and the provider programs where a worker looks for them."""
    install(stacks.pulumi_home)
    toolbox.install_into(stacks.programs_dir, ["pulumi"])
