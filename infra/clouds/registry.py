"""All providers: each is the folder of its name here, and the list of names is `Provider`."""

import importlib
from typing import cast

from domain.cloud import Provider
from domain.secret import SecretValue
from infra.clouds.cloud import Cloud, OpenCloud
from infra.clouds.profile import Profile
from infra.settings import ProviderSettings


def open_cloud(provider: Provider, value: SecretValue, settings: ProviderSettings) -> Cloud:
    """Return the account of a credential.

    A provider's client library is loaded when it is first used: AWS's alone takes a second.

    Raises:
        BulkheadError: CREDENTIAL_REJECTED when the value is no credential of the provider.
    """
    module = importlib.import_module(f"infra.clouds.{provider}.cloud")
    return cast("OpenCloud", module.open_cloud)(value, settings)


def profile_of(provider: Provider) -> Profile:
    """Return what is known of a provider without asking it; loads no client library."""
    module = importlib.import_module(f"infra.clouds.{provider}.profile")
    return cast("Profile", module.PROFILE)
