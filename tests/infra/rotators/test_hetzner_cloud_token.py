"""The rotation of a token that only a person can make."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import requests

from domain.cloud import Provider
from domain.errors import Reason
from domain.identifiers import Prefix, new_id
from domain.rotation import Rotation
from domain.secret import SecretValue
from infra.local_cloud.serving import served
from infra.rotators.hetzner_cloud_token import HetznerCloudToken
from infra.settings import ProviderSettings
from tests.infra.rotators.rotations import CallBudgets, KnownValues, fails, new_rotation


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(Provider.HCLOUD) as found:
        yield found


@dataclass
class Console:
    """Hetzner's console, and the person at it."""

    url: str
    calls: CallBudgets
    project: str = field(default_factory=lambda: secrets.token_hex(8))
    values: KnownValues = field(default_factory=KnownValues)
    hand_over: str = field(default_factory=lambda: new_id(Prefix.SECRET))

    @property
    def rotator(self) -> HetznerCloudToken:
        return HetznerCloudToken(
            ProviderSettings(hcloud_url=f"{self.url}/v1"), self.values, self.calls.budgets
        )

    @property
    def rotation(self) -> Rotation:
        return new_rotation({"new_token_secret_id": self.hand_over}, self.calls.workspace_id)

    def new_token(self, project: str | None = None, *, read_only: bool = False) -> SecretValue:
        body: dict[str, str | bool] = {
            "project": project or self.project,
            "read_only": read_only,
        }
        answer = requests.post(f"{self.url}/_accounts", json=body, timeout=10)
        return SecretValue.of_text(answer.json()["token"])

    def delete(self, token: SecretValue) -> None:
        body = {"token": token.text()}
        requests.delete(f"{self.url}/_accounts", json=body, timeout=10).raise_for_status()

    def add_network(self, token: SecretValue) -> None:
        answer = requests.post(
            f"{self.url}/v1/networks",
            json={"name": "net", "ip_range": "10.0.0.0/16"},
            headers={"authorization": f"Bearer {token.text()}"},
            timeout=10,
        )
        answer.raise_for_status()


@pytest.fixture
def console(url: str, call_budgets: CallBudgets) -> Console:
    return Console(url, call_budgets)


async def test_it_waits_until_a_person_hands_a_new_token_in_and_then_proves_it(
    console: Console,
) -> None:
    current, rotator, rotation = console.new_token(), console.rotator, console.rotation
    console.add_network(current)
    await rotator.reach(rotation, current)
    # Nothing new yet: what was handed in at the last rotation is the current one.
    console.values.values[console.hand_over] = current
    with fails(Reason.FAILED_PRECONDITION, current.text()):
        await rotator.create(rotation, current)

    console.values.values[console.hand_over] = SecretValue.of_text(
        f"{console.new_token().text()}\n"
    )
    pending = await rotator.create(rotation, current)
    assert pending == await rotator.create(rotation, current)
    await rotator.set(rotation, pending, current)
    await rotator.test(rotation, pending)

    with fails(Reason.FAILED_PRECONDITION, current.text()):
        await rotator.retire(rotation, current, pending)
    console.delete(current)
    await rotator.retire(rotation, current, pending)
    assert await console.calls.has_spent(rotation, Provider.HCLOUD)


async def test_a_token_that_may_only_read_or_is_of_another_project_is_refused(
    console: Console,
) -> None:
    current, rotator, rotation = console.new_token(), console.rotator, console.rotation
    console.add_network(current)
    read_only = console.new_token(read_only=True)
    with fails(Reason.CREDENTIAL_REJECTED, read_only.text()):
        await rotator.test(rotation, read_only)
    stranger = console.new_token("another")
    with fails(Reason.CREDENTIAL_REJECTED, stranger.text()):
        await rotator.set(rotation, stranger, current)


async def test_what_is_no_token_goes_nowhere(console: Console) -> None:
    current = console.new_token()
    console.values.values[console.hand_over] = SecretValue.of_text("the database's password")
    with fails(Reason.CREDENTIAL_REJECTED, "password"):
        await console.rotator.create(console.rotation, current)


def test_a_token_is_not_handed_in_as_a_version_of_the_secret_itself() -> None:
    secret_id = new_id(Prefix.SECRET)
    with fails(Reason.INVALID_ARGUMENT):
        HetznerCloudToken.check_settings(secret_id, {"new_token_secret_id": secret_id})
