"""What is known of a provider is in its own folder."""

import importlib.util
import subprocess
import sys

import pytest

from domain.cloud import Provider
from infra.clouds.registry import profile_of
from infra.embedded.ports import Ports
from infra.local_cloud.profile import local_profile_of
from infra.settings import EmbeddedSettings, ProviderSettings

# As docs/adding-a-provider.md lists them.
MODULES = (
    "infra.clouds.{}.cloud",
    "infra.clouds.{}.errors",
    "infra.clouds.{}.profile",
    "infra.stacks.programs.{}",
    "infra.local_cloud.{}.api",
    "infra.local_cloud.{}.profile",
    "infra.local_cloud.{}.provider_program",
    "tests.clouds.{}_case",
)
LIBRARIES = ("hcloud", "boto3", "botocore", "googleapiclient", "pulumi")


@pytest.mark.parametrize("provider", Provider)
def test_every_provider_is_known_without_being_asked(provider: Provider) -> None:
    profile = profile_of(provider)
    assert profile.title
    assert profile.zone is None or profile.zone.fullmatch(profile.zone_example)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("provider", Provider)
def test_every_provider_has_its_modules(provider: Provider, module: str) -> None:
    assert importlib.util.find_spec(module.format(provider)) is not None


@pytest.mark.parametrize("provider", Provider)
def test_every_provider_can_be_on_this_machine(provider: Provider) -> None:
    url = "http://127.0.0.1:1"
    settings = local_profile_of(provider).settings(url)
    assert settings.keys() <= ProviderSettings.model_fields.keys()
    assert all(value.startswith(url) for value in settings.values())
    assert f"clouds_{provider}" in Ports.model_fields
    assert f"clouds_{provider}_port" in EmbeddedSettings.model_fields


def test_profiles_load_no_client_library() -> None:
    code = (
        "import sys; from domain.cloud import Provider;"
        " from infra.clouds.registry import profile_of;"
        " [profile_of(one) for one in Provider];"
        f" print([name for name in {LIBRARIES!r} if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "[]"
