import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
import requests
from botocore.exceptions import ClientError

from domain.cloud import Provider
from domain.errors import Reason
from domain.rotation import Rotation
from domain.secret import SecretValue
from infra.clouds.aws import access_keys
from infra.local_cloud.serving import served
from infra.rotators.aws_access_key import AwsAccessKey
from infra.settings import ProviderSettings
from tests.infra.rotators.rotations import CallBudgets, fails, new_rotation


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(Provider.AWS, action_seconds=0.2) as found:
        yield found


@dataclass(frozen=True)
class User:
    """A user of an account, as its administrator sees it."""

    url: str
    account_id: str
    name: str
    administrator: SecretValue
    current: SecretValue
    calls: CallBudgets

    @property
    def rotator(self) -> AwsAccessKey:
        return AwsAccessKey(ProviderSettings(aws_endpoint_url=self.url), self.calls.budgets)

    def client(self, service: str, value: SecretValue) -> Any:  # noqa: ANN401 - boto3 has no types
        key = json.loads(value.data)
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=key["access_key_id"],
            aws_secret_access_key=key["secret_access_key"],
        )

    def keys(self) -> list[str]:
        iam = self.client("iam", self.administrator)
        answer = iam.list_access_keys(UserName=self.name)
        return [key["AccessKeyId"] for key in answer["AccessKeyMetadata"]]

    def accepts(self, value: SecretValue) -> bool:
        try:
            self.client("sts", value).get_caller_identity()
        except ClientError:
            return False
        return True

    def lose_an_answer(self, call: str) -> None:
        fault = {"kind": "lost_response", "call": call, "count": 1}
        requests.post(f"{self.url}/_faults", data=json.dumps(fault), timeout=30).raise_for_status()

    def rotation(self) -> Rotation:
        return new_rotation({}, self.calls.workspace_id)


@pytest.fixture
def user(url: str, call_budgets: CallBudgets) -> User:
    made = requests.post(f"{url}/_accounts", json={}, timeout=30)
    account = made.json()["account_id"]
    body = {"account_id": account, "user_name": "administrator"}
    administrator = requests.post(f"{url}/_accounts", data=json.dumps(body), timeout=30)
    return User(
        url=url,
        account_id=account,
        name=made.json()["user_name"],
        administrator=SecretValue(administrator.content),
        current=SecretValue(made.content),
        calls=call_budgets,
    )


def _id(value: SecretValue) -> str:
    return str(json.loads(value.data)["access_key_id"])


async def test_a_rotation_makes_a_second_key_and_removes_the_first(user: User) -> None:
    rotation, rotator = user.rotation(), user.rotator
    await rotator.reach(rotation, user.current)
    pending = await rotator.create(rotation, user.current)
    for _ in range(2):
        await rotator.set(rotation, pending, user.current)
    for _ in range(2):
        await rotator.test(rotation, pending)
    assert user.accepts(user.current)
    assert user.keys() == [_id(user.current), _id(pending)]
    for _ in range(2):
        await rotator.retire(rotation, user.current, pending)
    assert user.keys() == [_id(pending)]
    assert user.accepts(pending)
    assert not user.accepts(user.current)
    assert await user.calls.has_spent(rotation, Provider.AWS)


async def test_a_rotation_asks_nothing_when_its_credentials_budget_is_used_up(user: User) -> None:
    rotation, rotator = user.rotation(), user.rotator
    await user.calls.use_up(rotation, Provider.AWS)
    with fails(Reason.RATE_LIMITED):
        await rotator.create(rotation, user.current)
    assert user.keys() == [_id(user.current)]


async def test_a_key_of_an_attempt_that_died_is_replaced_by_the_next(user: User) -> None:
    rotation, rotator = user.rotation(), user.rotator
    lost = await rotator.create(rotation, user.current)
    await rotator.reach(rotation, user.current)
    pending = await rotator.create(rotation, user.current)
    assert user.keys() == [_id(user.current), _id(pending)]
    assert _id(lost) != _id(pending)


async def test_a_key_whose_answer_was_lost_on_its_way_is_replaced(user: User) -> None:
    user.lose_an_answer("iam:CreateAccessKey")
    pending = await user.rotator.create(user.rotation(), user.current)
    assert user.keys() == [_id(user.current), _id(pending)]


async def test_no_key_is_made_once_the_time_for_it_is_up(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_keys, "_CALLS_BEGIN_WITHIN_SECONDS", -1.0)
    with fails(Reason.DEPENDENCY_UNAVAILABLE, user.current.text()):
        await user.rotator.create(user.rotation(), user.current)
    assert user.keys() == [_id(user.current)]


@pytest.mark.parametrize("kept", [True, False])
async def test_an_undo_leaves_the_current_key_alone(user: User, *, kept: bool) -> None:
    rotation, rotator = user.rotation(), user.rotator
    pending = await rotator.create(rotation, user.current)
    for _ in range(2):
        await rotator.unset(rotation, pending if kept else None, user.current)
    assert user.keys() == [_id(user.current)]
    assert user.accepts(user.current)


async def test_a_user_with_two_keys_in_use_is_told_so_and_keeps_both(user: User) -> None:
    iam = user.client("iam", user.administrator)
    other = iam.create_access_key(UserName=user.name)["AccessKey"]
    value = SecretValue.of_text(
        json.dumps(
            {"access_key_id": other["AccessKeyId"], "secret_access_key": other["SecretAccessKey"]}
        )
    )
    rotation = user.rotation()
    await user.rotator.test(rotation, value)
    for step in (user.rotator.reach, user.rotator.create):
        with fails(Reason.FAILED_PRECONDITION, other["SecretAccessKey"]):
            await step(rotation, user.current)
    await user.rotator.unset(rotation, None, user.current)
    assert user.keys() == [_id(user.current), other["AccessKeyId"]]


async def test_a_key_that_aws_refuses_and_a_value_that_is_no_key_are_told_apart(
    user: User,
) -> None:
    rotation, rotator = user.rotation(), user.rotator
    wrong = json.loads(user.current.data) | {"secret_access_key": "canary-secret"}
    with fails(Reason.CREDENTIAL_REJECTED, "canary-secret"):
        await rotator.reach(rotation, SecretValue.of_text(json.dumps(wrong)))
    with fails(Reason.FAILED_PRECONDITION, "canary-secret"):
        await rotator.reach(rotation, SecretValue.of_text("canary-secret"))
