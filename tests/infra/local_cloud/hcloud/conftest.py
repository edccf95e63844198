import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import requests
from hcloud import Client

from domain.cloud import Provider
from infra.local_cloud.serving import served


@dataclass(frozen=True)
class Hetzner:
    """The local API, for which each test has a project of its own."""

    url: str
    clients: list[Client] = field(default_factory=list)

    def token(self, **grant: str | bool | int | dict[str, int]) -> str:
        body = {"project": secrets.token_hex(8), **grant}
        answer = requests.post(f"{self.url}/_accounts", json=body, timeout=10)
        return str(answer.json()["token"])

    def client(self, token: str | None = None) -> Client:
        endpoint = f"{self.url}/v1"
        made = Client(token or self.token(), endpoint, poll_interval=0.02, timeout=10)
        self.clients.append(made)
        return made

    def disturb(self, **fault: str | int) -> None:
        requests.post(f"{self.url}/_faults", json=fault, timeout=10).raise_for_status()

    def heal(self) -> None:
        requests.delete(f"{self.url}/_faults", timeout=10).raise_for_status()
        while self.clients:
            self.clients.pop()._client._session.close()  # noqa: SLF001 - it has no other end


@pytest.fixture(scope="session")
def served_hetzner() -> Iterator[Hetzner]:
    with served(Provider.HCLOUD, action_seconds=0.15) as url:
        yield Hetzner(url)


@pytest.fixture
def hetzner(served_hetzner: Hetzner) -> Iterator[Hetzner]:
    yield served_hetzner
    served_hetzner.heal()


@pytest.fixture
def client(hetzner: Hetzner) -> Client:
    return hetzner.client()
