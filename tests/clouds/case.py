"""What the conformance suite must know of a provider: one file `<provider>_case.py` with `CASE`."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import requests

from domain.cloud import Place, Provider
from domain.secret import SecretValue
from infra.clouds.cloud import Cloud
from infra.clouds.registry import open_cloud
from infra.settings import ProviderSettings

_ANSWERS_WITHIN_SECONDS = 10


class ProviderCase(Protocol):
    """One provider's local cloud.

    Attributes:
        provider: which.
        place: where servers are made; with its region.
        instance_type: that can be had there.
        image: of which servers are made.
        creates_server: a regular expression that finds the call which makes a server; see `Fault`.
        creates_network: the same for a network.
        finishes_server: a call of the Pulumi program after the server exists, without which it is
            only half made; empty: there is none.
    """

    provider: Provider
    place: Place
    instance_type: str
    image: str
    creates_server: str
    creates_network: str
    finishes_server: str

    def settings(self, url: str) -> ProviderSettings:
        """Return settings with which this provider is at a URL."""

    def credential(self, url: str) -> SecretValue:
        """Make a new, empty account, and return a credential that may do all in it."""

    def weak_credential(self, url: str) -> SecretValue:
        """Make a new account, and return a credential that may only look at it."""

    def revoke(self, url: str, credential: SecretValue) -> None:
        """Make a credential one that the provider knows no more."""

    def secrets_of(self, credential: SecretValue) -> list[str]:
        """Return what of a credential must never be stored in the clear."""


def all_cases() -> list[ProviderCase]:
    """Return the case of each provider."""
    return [importlib.import_module(f"tests.clouds.{one}_case").CASE for one in Provider]


@dataclass(frozen=True, kw_only=True)
class LocalAccount:
    """An empty account at a local cloud, and how to disturb that cloud."""

    case: ProviderCase
    url: str
    credential: SecretValue
    cloud: Cloud = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cloud", self.opened(self.credential))

    def opened(self, credential: SecretValue) -> Cloud:
        return open_cloud(self.case.provider, credential, self.case.settings(self.url))

    def disturb(self, **fault: str | int) -> None:
        """Let a fault strike from now on; see `infra.local_cloud.faults.Fault`."""
        answer = requests.post(f"{self.url}/_faults", json=fault, timeout=_ANSWERS_WITHIN_SECONDS)
        answer.raise_for_status()

    def faults(self) -> list[Mapping[str, Any]]:
        """Return the faults so far."""
        answer = requests.get(f"{self.url}/_faults", timeout=_ANSWERS_WITHIN_SECONDS)
        return list(answer.json())

    def heal(self) -> None:
        """End all faults."""
        requests.delete(f"{self.url}/_faults", timeout=_ANSWERS_WITHIN_SECONDS).raise_for_status()
