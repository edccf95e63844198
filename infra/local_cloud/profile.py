"""What a local cloud is served and set up with: `LOCAL` in the `profile` module of its folder.

Nothing here loads what serves it.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from domain.cloud import Provider


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalProfile:
    """One provider's local cloud.

    Attributes:
        port: where it is served unless something else is said; free on most machines.
        new_account: what `POST /_accounts` is asked for the account of a stack's people.
        credential: makes of its answer what a secret holds.
        settings: of `ProviderSettings`, those with which the provider is at a URL.
    """

    port: int
    new_account: Mapping[str, str]
    credential: Callable[[Mapping[str, Any]], str]
    settings: Callable[[str], dict[str, str]]


def local_profile_of(provider: Provider) -> LocalProfile:
    """Return what a provider's local cloud is set up with."""
    module = importlib.import_module(f"infra.local_cloud.{provider}.profile")
    return cast("LocalProfile", module.LOCAL)
