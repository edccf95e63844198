"""Registry connections: logins that are kept as secrets and never shown."""

import json
from typing import Any

import pytest

from domain.caller import Role
from domain.package import REGISTRY_CONNECTION_CONSUMER, RegistryAuthentication
from infra.helm.logins import BasicLogin, OAuthLogin, TokenLogin, login_of_secret
from tests.api import contract
from tests.api.catalog import new_package
from tests.api.gate import JSON, Gate, a_key
from tests.api.keeper import Keeper, error_of, new_keeper, ok

PATH = "/v1/registry_connections"
PASSWORD = "hunter2-never-shown"  # noqa: S105 - of nobody

BASIC: JSON = {"username": "robot", "password": PASSWORD}
TOKEN: JSON = {"token": PASSWORD}
OAUTH: JSON = {
    "client_id": "robot",
    "client_secret": PASSWORD,
    "token_url": "https://login.example.com/token",
}


def body_of(name: str, **more: Any) -> JSON:  # noqa: ANN401 - fields of a body
    return {
        "name": name,
        "registry_url": "oci://registry.example.com/charts",
        "type": "basic",
        "credentials": BASIC,
        **more,
    }


@pytest.fixture(scope="module")
async def keeper(gate: Gate) -> Keeper:
    return await new_keeper(gate)


async def secret_of(keeper: Keeper, connection: JSON) -> JSON:
    """Return the secret that was made for a connection."""
    listed = ok(await keeper.person.get("/v1/secrets", params={"kind": "oci_registry"}))["data"]
    found: JSON = next(
        secret for secret in listed if secret["labels"] == {"registry_connection": connection["id"]}
    )
    return found


@pytest.mark.parametrize(
    ("kind", "credentials", "login"),
    [
        ("basic", BASIC, BasicLogin("robot", PASSWORD)),
        ("token", TOKEN, TokenLogin(PASSWORD)),
        ("oauth", OAUTH, OAuthLogin("robot", PASSWORD, "https://login.example.com/token")),
    ],
)
async def test_a_login_becomes_a_secret_and_is_never_shown(
    keeper: Keeper, kind: str, credentials: JSON, login: object
) -> None:
    person, key = keeper.person, {"idempotency-key": a_key()}
    body = body_of(kind, type=kind, credentials=credentials)
    made = await person.post(PATH, body, headers=key)
    connection = ok(made, 201)
    assert contract.differences(connection, contract.REGISTRY_CONNECTION) == []
    again = await person.post(PATH, body, headers=key)
    assert (ok(again, 201), again.headers["idempotency-replayed"]) == (connection, "true")
    listed = await person.get(PATH)
    assert connection in ok(listed)["data"]
    assert (connection["is_active"], connection["last_used_at"]) == (True, None)
    assert PASSWORD not in made.text + again.text + listed.text

    secret = await secret_of(keeper, connection)
    value = await keeper.value(secret)
    assert login_of_secret(RegistryAuthentication(kind), value) == login
    references = ok(await person.get(f"/v1/secrets/{secret['id']}/references"))["data"]
    consumers = [(each["consumer_type"], each["consumer_id"]) for each in references]
    assert consumers == [(REGISTRY_CONNECTION_CONSUMER, connection["id"])]
    reference = "/".join(consumers[0])
    removed = await person.call("DELETE", f"/v1/secrets/{secret['id']}/references/{reference}")
    error_of(removed, 409, "FAILED_PRECONDITION")


async def test_a_deleted_connection_takes_its_secret_with_it(keeper: Keeper) -> None:
    person = keeper.person
    connection = ok(await person.post(PATH, body_of("gone")), 201)
    secret = await secret_of(keeper, connection)
    own = f"{PATH}/{connection['id']}"
    deleted = await person.call("DELETE", own)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert connection["id"] not in [each["id"] for each in ok(await person.get(PATH))["data"]]
    error_of(await person.call("DELETE", own), 404)
    assert (await keeper.get(secret))["state"] == "soft_deleted"
    assert keeper.gate.count("secret_references", person.workspace) == keeper.gate.count(
        "registry_connections", person.workspace
    )
    # The name is free, though the deleted secret keeps its own.
    ok(await person.post(PATH, body_of("gone")), 201)


async def test_a_connection_is_inactive_without_its_secret(keeper: Keeper) -> None:
    connection = ok(await keeper.person.post(PATH, body_of("without")), 201)
    secret = await secret_of(keeper, connection)
    assert (await keeper.delete(secret)).status_code == 204
    listed = ok(await keeper.person.get(PATH))["data"]
    found = next(each for each in listed if each["id"] == connection["id"])
    assert found["is_active"] is False
    assert (await keeper.person.call("DELETE", f"{PATH}/{connection['id']}")).status_code == 204


async def test_a_connection_stays_while_a_package_needs_it(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    person = keeper.person
    connection = ok(await person.post(PATH, body_of("needed")), 201)
    package = await new_package(gate, person, url="oci://registry.example.com/charts/web")
    await new_package(gate, person, url="oci://registry.example.com/other/web")
    own = f"{PATH}/{connection['id']}"
    refused = error_of(await person.call("DELETE", own), 409, "FAILED_PRECONDITION")
    assert refused["metadata"]["package_ids"] == package
    wider = body_of("wider", registry_url="https://registry.example.com")
    ok(await person.post(PATH, wider), 201)
    assert (await person.call("DELETE", own)).status_code == 204


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"credentials": {"username": "robot"}}, ["body", "credentials", "password"]),
        ({"credentials": {**BASIC, "token": PASSWORD}}, ["body", "credentials", "token"]),
        ({"credentials": {**BASIC, PASSWORD: "x"}}, ["body"]),
        ({"credentials": {"username": "robot", "password": 7}}, ["body", "credentials"]),
        (
            {"credentials": {"username": "robot", "password": PASSWORD * 99}},
            ["body", "credentials", "password"],
        ),
        ({"type": "oauth", "credentials": TOKEN}, ["body", "credentials", "client_id"]),
        ({"type": "anonymous"}, ["body", "type"]),
        ({"registry_url": f"https://robot:{PASSWORD}@registry.test"}, ["body", "registry_url"]),
        ({"registry_url": "ftp://registry.test"}, ["body", "registry_url"]),
        ({"registry_url": "not a url"}, ["body", "registry_url"]),
        ({"registry_url": "https://registry.test/two words"}, ["body", "registry_url"]),
        ({"registry_url": "https://-.test"}, ["body", "registry_url"]),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_of_it_quoted(
    keeper: Keeper, change: JSON, path: list[str]
) -> None:
    answer = await keeper.person.post(PATH, body_of("wrong", **change))
    assert error_of(answer, 422, "INVALID_ARGUMENT")["path"] == path
    assert PASSWORD not in answer.text


async def test_a_name_is_of_one_connection(keeper: Keeper) -> None:
    ok(await keeper.person.post(PATH, body_of("twice")), 201)
    refused = error_of(await keeper.person.post(PATH, body_of("twice")), 409, "CONFLICT")
    assert refused["path"] == ["body", "name"]


async def test_only_administrators_with_the_scope_keep_logins(keeper: Keeper) -> None:
    member = keeper.gate.new_person(keeper.person.workspace, Role.MEMBER)
    error_of(await member.post(PATH, body_of("member")), 403, "PERMISSION_DENIED")
    token = await keeper.token("secrets:read")
    error_of(await token.post(PATH, body_of("scope")), 403, "PERMISSION_DENIED")
    foreign = ok(await keeper.person.post(PATH, body_of("mine")), 201)
    stranger = keeper.gate.new_person()
    error_of(await stranger.call("DELETE", f"{PATH}/{foreign['id']}"), 404)
    assert ok(await stranger.get(PATH))["data"] == []


async def test_nothing_of_a_login_is_in_a_row(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    ok(await keeper.person.post(PATH, body_of("hidden"), headers={"idempotency-key": a_key()}), 201)
    with gate.administrator() as connection:
        for table in (
            "registry_connections",
            "secrets",
            "secret_versions",
            "audit_events",
            "idempotency_keys",
        ):
            rows = connection.execute(f"SELECT t::text FROM {table} t").fetchall()  # noqa: S608
            assert PASSWORD not in json.dumps(rows)
