"""What is known of a provider is in its own folder."""

import subprocess
import sys

import pytest

from domain.cloud import Provider
from infra.clouds.registry import profile_of

LIBRARIES = ("hcloud", "boto3", "botocore", "googleapiclient", "pulumi")


@pytest.mark.parametrize("provider", Provider)
def test_every_provider_is_known_without_being_asked(provider: Provider) -> None:
    profile = profile_of(provider)
    assert profile.title
    assert profile.zone is None or profile.zone.fullmatch(profile.zone_example)


def test_profiles_load_no_client_library() -> None:
    code = (
        "import sys; from domain.cloud import Provider;"
        " from infra.clouds.registry import profile_of;"
        " [profile_of(one) for one in Provider];"
        f" print([name for name in {LIBRARIES!r} if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "[]"
