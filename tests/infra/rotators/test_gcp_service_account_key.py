import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import requests
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import Request
from google.oauth2.service_account import Credentials
from googleapiclient.discovery import build

from domain.cloud import Provider
from domain.errors import Reason
from domain.rotation import Rotation
from domain.secret import SecretValue
from infra.clouds.gcp import account_keys
from infra.local_cloud.serving import served
from infra.rotators.gcp_service_account_key import GcpServiceAccountKey
from infra.settings import ProviderSettings
from tests.infra.rotators.rotations import CallBudgets, fails, new_rotation

_SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(Provider.GCP) as found:
        yield found


@dataclass(frozen=True)
class Account:
    """A service account, as an owner of its project sees it."""

    url: str
    owner: SecretValue
    current: SecretValue
    calls: CallBudgets

    @property
    def rotator(self) -> GcpServiceAccountKey:
        settings = ProviderSettings(gcp_token_url=f"{self.url}/token", gcp_iam_url=self.url)
        return GcpServiceAccountKey(settings, self.calls.budgets)

    @property
    def name(self) -> str:
        return f"projects/-/serviceAccounts/{json.loads(self.current.data)['client_email']}"

    def keys(self) -> set[str]:
        with build(
            "iam",
            "v1",
            credentials=_credentials(self.owner),
            static_discovery=True,
            cache_discovery=False,
            client_options={"api_endpoint": f"{self.url}/"},
        ) as iam:
            answer = iam.projects().serviceAccounts().keys().list(name=self.name).execute()
        return {key["name"].rpartition("/")[2] for key in answer["keys"]}

    def accepts(self, value: SecretValue) -> bool:
        request = Request()
        try:
            _credentials(value).refresh(request)  # type: ignore[no-untyped-call]
        except RefreshError:
            return False
        finally:
            request.session.close()
        return True

    def another_key(self) -> SecretValue:
        found = json.loads(self.current.data)
        body = {"project": found["project_id"], "account": "deployer"}
        return SecretValue(_made(self.url, body))

    def lose_an_answer(self, call: str) -> None:
        fault: dict[str, str | int] = {"kind": "lost_response", "call": call, "count": 1}
        requests.post(f"{self.url}/_faults", json=fault, timeout=30).raise_for_status()

    def revoke(self) -> None:
        answer = requests.delete(f"{self.url}/_accounts", data=self.current.data, timeout=30)
        answer.raise_for_status()

    def rotation(self) -> Rotation:
        return new_rotation({}, self.calls.workspace_id)


@pytest.fixture
def account(url: str, call_budgets: CallBudgets) -> Account:
    project = f"acme-{secrets.token_hex(6)}"
    return Account(
        url=url,
        owner=SecretValue(_made(url, {"project": project, "account": "owner-of-all"})),
        current=SecretValue(_made(url, {"project": project, "account": "deployer"})),
        calls=call_budgets,
    )


def _made(url: str, body: dict[str, str]) -> bytes:
    answer = requests.post(f"{url}/_accounts", json=body, timeout=30)
    answer.raise_for_status()
    return answer.content


def _credentials(value: SecretValue) -> Credentials:
    return Credentials.from_service_account_info(json.loads(value.data), scopes=_SCOPES)  # type: ignore[no-any-return,no-untyped-call]


def _id(value: SecretValue) -> str:
    return str(json.loads(value.data)["private_key_id"])


async def test_a_rotation_adds_a_key_and_removes_the_first(account: Account) -> None:
    rotation, rotator = account.rotation(), account.rotator
    await rotator.reach(rotation, account.current)
    pending = await rotator.create(rotation, account.current)
    for _ in range(2):
        await rotator.set(rotation, pending, account.current)
        await rotator.test(rotation, pending)
    assert account.accepts(account.current)
    assert account.keys() == {_id(account.current), _id(pending)}
    for _ in range(2):
        await rotator.retire(rotation, account.current, pending)
    assert account.keys() == {_id(pending)}
    assert account.accepts(pending)
    assert not account.accepts(account.current)
    kept, now = json.loads(account.current.data), json.loads(pending.data)
    assert {name for name in kept if kept[name] != now[name]} == {"private_key", "private_key_id"}
    assert await account.calls.has_spent(rotation, Provider.GCP)


async def test_a_key_of_an_attempt_that_died_is_replaced_by_the_next(account: Account) -> None:
    rotation, rotator = account.rotation(), account.rotator
    lost = await rotator.create(rotation, account.current)
    account.lose_an_answer("keys:upload")
    pending = await rotator.create(rotation, account.current)
    assert account.keys() == {_id(account.current), _id(pending)}
    assert not account.accepts(lost)


async def test_no_key_is_made_once_the_time_for_it_is_up(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account_keys, "_CALLS_BEGIN_WITHIN_SECONDS", -1.0)
    with fails(Reason.DEPENDENCY_UNAVAILABLE, account.current.text()):
        await account.rotator.create(account.rotation(), account.current)
    assert account.keys() == {_id(account.current)}


@pytest.mark.parametrize("kept", [True, False])
async def test_an_undo_leaves_the_keys_of_others_alone(account: Account, *, kept: bool) -> None:
    rotation, rotator = account.rotation(), account.rotator
    pending = await rotator.create(rotation, account.current)
    other = account.another_key()
    for _ in range(2):
        await rotator.unset(rotation, pending if kept else None, account.current)
    assert account.keys() == {_id(account.current), _id(other)}
    assert account.accepts(account.current)


async def test_an_account_with_ten_keys_is_told_so_and_keeps_them(account: Account) -> None:
    others = {_id(account.another_key()) for _ in range(9)}
    rotation = account.rotation()
    for step in (account.rotator.reach, account.rotator.create):
        with fails(Reason.FAILED_PRECONDITION):
            await step(rotation, account.current)
    assert account.keys() == {_id(account.current), *others}


async def test_a_key_that_google_refuses_and_a_value_that_is_no_key_are_told_apart(
    account: Account,
) -> None:
    account.revoke()
    secret = json.loads(account.current.data)["private_key"].splitlines()[2]
    with fails(Reason.CREDENTIAL_REJECTED, secret):
        await account.rotator.reach(account.rotation(), account.current)
    with fails(Reason.FAILED_PRECONDITION, "canary-secret"):
        await account.rotator.reach(account.rotation(), SecretValue.of_text("canary-secret"))
