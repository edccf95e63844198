"""Quotas of what a secret has, and of the rotations that a workspace has under way."""

import asyncio

import httpx

from domain.identifiers import Prefix, new_id
from tests.api.gate import JSON, Gate
from tests.api.keeper import Keeper, error_of, new_keeper, ok


async def test_a_secret_has_at_most_as_many_values_as_its_quota(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    gate.set_quota(keeper.person.workspace, "secrets/versions", 2)
    secret, other = await keeper.create(), await keeper.create("of its own")
    second = await keeper.add(secret)
    path = f"/v1/secrets/{secret['id']}/versions"
    error = error_of(await keeper.person.post(path, {"value": "x"}), 403, "QUOTA_EXCEEDED")
    assert (
        error["metadata"] | {"metric": "secrets/versions", "limit": "2", "usage": "2"}
        == (error["metadata"])
    )
    assert "The secret has 2 of 2" in error["message"]
    await keeper.add(other)
    # What is gone makes room, and leaves no gap in the numbers.
    ok(await keeper.switch(second, "destroy"))
    assert (await keeper.add(secret))["version_number"] == 3
    asked = await keeper.person.get(f"/v1/quotas/secrets%2Fversions?secret_id={secret['id']}")
    quota = ok(asked)
    assert (quota["limit"], quota["usage"], quota["scope"]) == (2, 2, "secret")


async def test_values_that_come_at_once_stay_within_the_quota_of_a_secret(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    gate.set_quota(keeper.person.workspace, "secrets/versions", 3)
    secret = await keeper.create()
    path = f"/v1/secrets/{secret['id']}/versions"
    answers = await asyncio.gather(*[keeper.person.post(path, {"value": "x"}) for _ in range(8)])
    assert sorted(answer.status_code for answer in answers) == [201] * 2 + [403] * 6


async def test_a_secret_has_at_most_as_many_registered_consumers_as_its_quota(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    gate.set_quota(keeper.person.workspace, "secrets/references", 1)
    secret, other = await keeper.create(), await keeper.create("of its own")

    async def register(consumer: str, of: JSON = secret) -> httpx.Response:
        path = f"/v1/secrets/{of['id']}/references/{consumer}"
        return await keeper.person.call("PUT", path, json={})

    # What the platform registers is not counted.
    with gate.administrator() as connection:
        connection.execute(
            "INSERT INTO secret_references (workspace_id, secret_id, consumer_type, consumer_id,"
            " acknowledges) VALUES (%(workspace)s, %(secret)s, 'install', %(install)s, false),"
            " (%(workspace)s, %(secret)s, 'compute_config', 'cmp_x', false)",
            {
                "workspace": keeper.person.workspace,
                "secret": secret["id"],
                "install": new_id(Prefix.INSTALL),
            },
        )
    ok(await register("install/ours"))
    ok(await register("install/ours"))
    error = error_of(await register("agent/second"), 403, "QUOTA_EXCEEDED")
    assert error["metadata"]["metric"] == "secrets/references"
    ok(await register("agent/second", other))
    path = f"/v1/secrets/{secret['id']}/references/install/ours"
    assert (await keeper.person.call("DELETE", path)).status_code == 204
    ok(await register("agent/second"))


async def test_the_quotas_of_a_secret_are_shown_to_who_may_read_it(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    await keeper.add(secret)
    whole = ok(await keeper.person.get("/v1/quotas"))["data"]
    listed = ok(await keeper.person.get(f"/v1/quotas?secret_id={secret['id']}"))["data"]
    assert listed[: len(whole)] == whole
    assert [
        (quota["metric"], quota["scope"], quota["usage"]) for quota in listed[len(whole) :]
    ] == [
        ("secrets/versions", "secret", 2),
        ("secrets/references", "secret", 0),
    ]
    error_of(await keeper.person.get("/v1/quotas/secrets%2Fversions"), 404, "NOT_FOUND")
    stranger = await new_keeper(gate)
    foreign = await stranger.person.get(f"/v1/quotas?secret_id={secret['id']}")
    error_of(foreign, 404, "NOT_FOUND")
    token = await keeper.token("secrets:write")
    for path in ("/v1/quotas", "/v1/quotas/secrets%2Fversions"):
        refused = await token.get(f"{path}?secret_id={secret['id']}")
        assert error_of(refused, 403)["metadata"]["required_scope"] == "secrets:read"


async def _rotating(keeper: Keeper, name: str) -> JSON:
    """Make a secret that can rotate."""
    secret = await keeper.create(name, kind="webhook_signing", value="x" * 32)
    policy = {"rotator": "webhook_signing_key", "interval_seconds": 86400}
    ok(await keeper.person.call("PUT", f"/v1/secrets/{secret['id']}/rotation", json=policy))
    return secret


async def test_a_workspace_has_no_more_rotations_under_way_than_its_quota(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    gate.set_quota(keeper.person.workspace, "secrets/rotations", 1)
    first, second = await _rotating(keeper, "first"), await _rotating(keeper, "second")
    operation = ok(await keeper.person.post(f"/v1/secrets/{first['id']}:rotate"), 202)
    path = f"/v1/secrets/{second['id']}:rotate"
    error = error_of(await keeper.person.post(path), 403, "QUOTA_EXCEEDED")
    assert error["metadata"]["metric"] == "secrets/rotations"
    # Nothing of the refused one is left.
    assert (await keeper.get(second))["etag"] == second["etag"]
    again = await keeper.person.post(f"/v1/secrets/{first['id']}:rotate")
    error_of(again, 409, "CONFLICT")
    quota = ok(await keeper.person.get("/v1/quotas/secrets%2Frotations"))
    assert (quota["type"], quota["usage"], quota["remaining"]) == ("concurrency", 1, 0)
    with gate.administrator() as connection:
        connection.execute(
            "UPDATE operations SET waiting_for = 'agent/a to acknowledge version 2' WHERE id = %s",
            (operation["id"],),
        )
    ok(await keeper.person.post(path), 202)


async def test_rotations_that_are_asked_for_at_once_stay_within_the_quota(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    gate.set_quota(keeper.person.workspace, "secrets/rotations", 2)
    secrets = [await _rotating(keeper, f"number {number}") for number in range(5)]
    answers = await asyncio.gather(
        *[keeper.person.post(f"/v1/secrets/{secret['id']}:rotate") for secret in secrets]
    )
    assert sorted(answer.status_code for answer in answers) == [202] * 2 + [403] * 3


async def test_a_rotation_is_asked_for_in_vain_where_a_secret_has_all_its_values(
    gate: Gate,
) -> None:
    keeper = await new_keeper(gate)
    gate.set_quota(keeper.person.workspace, "secrets/versions", 1)
    secret = await _rotating(keeper, "full")
    refused = await keeper.person.post(f"/v1/secrets/{secret['id']}:rotate")
    assert error_of(refused, 403, "QUOTA_EXCEEDED")["metadata"]["metric"] == "secrets/versions"
