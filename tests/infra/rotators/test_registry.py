from typing import Any

import pytest

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.secret import RotatorKind
from infra.clouds.rate_budget import RateBudgets
from infra.database.engine import Database, DatabaseRole
from infra.openbao.client import OpenBao
from infra.rotators.registry import check_settings, rotators
from infra.settings import OutboundSettings, ProviderSettings
from tests.infra.rotators.rotations import KnownValues, fails
from tests.servers import Servers

WORKING: dict[RotatorKind, dict[str, Any]] = {
    RotatorKind.POSTGRESQL_LOGIN: {
        "host": "db.example.com",
        "user_a": "app_a",
        "user_b": "app_b",
        "admin_secret_id": new_id(Prefix.SECRET),
    },
    RotatorKind.WORKSPACE_API_TOKEN: {},
    RotatorKind.WEBHOOK_SIGNING_KEY: {},
    RotatorKind.KUBERNETES_SERVICE_ACCOUNT: {
        "cluster_id": new_id(Prefix.CLUSTER),
        "namespace": "default",
        "service_account": "deployer",
    },
    RotatorKind.HTTPS: {"url": "https://rotator.example.com/"},
    RotatorKind.AWS_ACCESS_KEY: {},
    RotatorKind.GCP_SERVICE_ACCOUNT_KEY: {},
    RotatorKind.HETZNER_CLOUD_TOKEN: {"new_token_secret_id": new_id(Prefix.SECRET)},
}


@pytest.mark.parametrize("kind", RotatorKind)
def test_checked_settings_are_plain_json_and_stay_as_they_are(kind: RotatorKind) -> None:
    checked = check_settings(kind, new_id(Prefix.SECRET), WORKING[kind])
    assert WORKING[kind].items() <= checked.items()
    assert all(value is None or type(value) in {str, int, bool} for value in checked.values())
    assert check_settings(kind, new_id(Prefix.SECRET), checked) == checked


@pytest.mark.parametrize("kind", RotatorKind)
def test_a_setting_that_the_kind_does_not_know_is_refused_without_being_told(
    kind: RotatorKind,
) -> None:
    with fails(Reason.INVALID_ARGUMENT, "canary"):
        check_settings(kind, new_id(Prefix.SECRET), {**WORKING[kind], "canary": "canary"})


def test_all_settings_that_are_missing_are_named_at_once() -> None:
    with pytest.raises(BulkheadError) as caught:
        check_settings(RotatorKind.POSTGRESQL_LOGIN, new_id(Prefix.SECRET), {"user_a": "app_a"})
    assert caught.value.message == "The rotator also needs: `host`, `user_b`, `admin_secret_id`."
    assert caught.value.path == ("body", "settings", "host")


@pytest.mark.parametrize(
    ("kind", "wrong", "why"),
    [
        (
            RotatorKind.POSTGRESQL_LOGIN,
            {"admin_secret_id": "db-admin"},
            "give the id of a secret, which begins with sec_, and not its name",
        ),
        (
            RotatorKind.HTTPS,
            {"url": "http://rotator.example.com/"},
            "give an address such as https://rotator.example.com/path, without user, ? and #",
        ),
    ],
)
def test_a_setting_of_the_wrong_form_is_refused_by_a_sentence_and_no_pattern(
    kind: RotatorKind, wrong: dict[str, Any], why: str
) -> None:
    with pytest.raises(BulkheadError) as caught:
        check_settings(kind, new_id(Prefix.SECRET), WORKING[kind] | wrong)
    name = next(iter(wrong))
    assert caught.value.message == f"The rotator's setting `{name}`: {why}."


async def test_a_worker_has_a_rotator_of_every_kind(servers: Servers) -> None:
    database = Database(servers.database, DatabaseRole.WORKER)
    openbao = OpenBao(servers.openbao("worker"))
    try:
        found = rotators(
            database,
            openbao,
            KnownValues(),
            OutboundSettings(),
            ProviderSettings(),
            RateBudgets(database),
        )
    finally:
        openbao.close()
        await database.close()
    assert set(found) == set(RotatorKind)
    for kind, rotator in found.items():
        secret_id = new_id(Prefix.SECRET)
        expected = check_settings(kind, secret_id, WORKING[kind])
        assert rotator.check_settings(secret_id, WORKING[kind]) == expected
