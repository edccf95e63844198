"""Who may say how a secret rotates, and what its rotation uses."""

import asyncio
from dataclasses import replace

import pytest

from tests.api.gate import JSON, Gate, Person
from tests.api.keeper import error_of, new_keeper, ok

_HTTPS: JSON = {
    "rotator": "https",
    "settings": {"url": "https://rotate.example.com/"},
    "interval_seconds": 86_400,
}


def _postgresql(admin_secret_id: str) -> JSON:
    return {
        "rotator": "postgresql_login",
        "settings": {
            "host": "db.example.com",
            "database": "app",
            "user_a": "app_a",
            "user_b": "app_b",
            "admin_secret_id": admin_secret_id,
        },
        "interval_seconds": 86_400,
    }


_KUBERNETES: JSON = {
    "rotator": "kubernetes_service_account",
    "settings": {"cluster_id": "clu_" + "0" * 32, "namespace": "a", "service_account": "b"},
    "interval_seconds": 86_400,
}

_TOKEN: JSON = {"rotator": "workspace_api_token", "interval_seconds": 86_400}


@pytest.mark.parametrize("rotation", [_HTTPS, _KUBERNETES], ids=lambda body: body["rotator"])
async def test_values_are_sent_elsewhere_only_by_who_may_read_them(
    gate: Gate, rotation: JSON
) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    path = f"/v1/secrets/{secret['id']}/rotation"
    scopes = ["secrets:write", "secrets:access"]
    made = [
        ok(await keeper.person.post("/v1/api_tokens", {"name": "t", "scopes": given}), 201)
        for given in (scopes[:1], scopes)
    ]
    writer, reader = (
        Person("", keeper.person.workspace, each["token"], keeper.person.client) for each in made
    )
    refused = error_of(await writer.call("PUT", path, json=rotation), 403, "PERMISSION_DENIED")
    assert refused["metadata"]["required_scope"] == "secrets:access"
    ok(await reader.call("PUT", path, json=rotation))


async def test_an_owner_alone_has_tokens_rotated_which_keep_their_scopes(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    path = f"/v1/secrets/{secret['id']}/rotation"
    thief = await keeper.token("secrets:write", "secrets:access")
    refused = error_of(await thief.call("PUT", path, json=_TOKEN), 403, "PERMISSION_DENIED")
    assert refused["metadata"]["required_role"] == "owner"
    ok(await keeper.person.call("PUT", path, json=_TOKEN))


async def test_an_owner_alone_says_which_token_a_rotation_copies(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    await keeper.add(secret)
    path = f"/v1/secrets/{secret['id']}/rotation"
    ok(await keeper.person.call("PUT", path, json=_TOKEN))
    writer = replace(keeper, person=await keeper.token("secrets:read", "secrets:write"))
    moved = {"version_aliases": {"current": 2}}
    refused = error_of(await writer.patch(secret, moved), 403, "PERMISSION_DENIED")
    assert refused["metadata"]["required_role"] == "owner"
    ok(await writer.patch(secret, {"version_aliases": {"staged": 2}}))
    ok(await keeper.patch(secret, moved))


async def test_what_a_rotation_uses_is_seen_and_not_destroyed_unawares(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret, admin = await keeper.create(), await keeper.create("administrator")
    path = f"/v1/secrets/{secret['id']}/rotation"
    ok(await keeper.person.call("PUT", path, json=_postgresql(admin["id"])))
    uses = f"/v1/secrets/{admin['id']}/references"
    (used,) = ok(await keeper.person.get(uses))["data"]
    assert (used["consumer_type"], used["consumer_id"]) == ("secret_rotation", secret["id"])
    (version,) = await keeper.versions(admin)
    error_of(await keeper.switch(version, "disable"), 409, "FAILED_PRECONDITION")
    ok(await keeper.person.call("PUT", path, json=_HTTPS))
    assert ok(await keeper.person.get(uses))["data"] == []
    ok(await keeper.switch(version, "disable"))


async def test_a_token_that_ends_before_the_next_one_comes_is_refused(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    path = f"/v1/secrets/{secret['id']}/rotation"

    def lasting(seconds: int) -> JSON:
        settings = _KUBERNETES["settings"] | {"expiration_seconds": seconds}
        return _KUBERNETES | {"settings": settings, "jitter_seconds": 600}

    refused = error_of(await keeper.person.call("PUT", path, json=lasting(87_000)), 400)
    assert refused["path"] == ["body", "settings", "expiration_seconds"]
    ok(await keeper.person.call("PUT", path, json=lasting(87_001)))


@pytest.mark.parametrize("whose", ["nobody's", "another workspace's", "its own"])
async def test_a_rotation_uses_no_secret_but_another_one_of_its_workspace(
    gate: Gate, whose: str
) -> None:
    keeper, stranger = await new_keeper(gate), await new_keeper(gate)
    secret = await keeper.create()
    foreign = await stranger.create()
    named = {
        "nobody's": "sec_" + "0" * 32,
        "another workspace's": foreign["id"],
        "its own": secret["id"],
    }[whose]
    path = f"/v1/secrets/{secret['id']}/rotation"
    answer = await keeper.person.call("PUT", path, json=_postgresql(named))
    error_of(answer, 400, "INVALID_ARGUMENT")
    error_of(await keeper.person.get(path), 404)


async def test_rotations_that_use_each_others_secrets_are_set_at_the_same_time(
    gate: Gate,
) -> None:
    keeper = await new_keeper(gate)
    secrets = [await keeper.create(name) for name in ("one", "other")]

    async def put(mine: JSON, theirs: JSON) -> int:
        path = f"/v1/secrets/{mine['id']}/rotation"
        answer = await keeper.person.call("PUT", path, json=_postgresql(theirs["id"]))
        return answer.status_code

    pairs = [secrets, secrets[::-1]] * 12
    assert {*await asyncio.gather(*(put(*pair) for pair in pairs))} == {200}
