"""A rotation is an operation like any other: shown, listed, waited for, cancelled."""

import asyncio

import pytest
from psycopg.types.json import Jsonb

from domain.identifiers import Prefix, new_id
from tests.api.gate import JSON, Gate, Person
from tests.api.keeper import Keeper, error_of, new_keeper, ok

STEPS = [
    "begin_rotation",
    "create_value",
    "set_value",
    "test_value",
    "finish_rotation",
    "drain_consumers",
    "retire_version",
]
POLICY = {"rotator": "webhook_signing_key", "interval_seconds": 86400}


async def _rotating(keeper: Keeper, **policy: str) -> JSON:
    """Ask for a rotation; the gate has no worker, so that it stays where it is."""
    secret = await keeper.create(kind="webhook_signing", value="x" * 32)
    ok(
        await keeper.person.call(
            "PUT", f"/v1/secrets/{secret['id']}/rotation", json=POLICY | policy
        )
    )
    operation: JSON = ok(await keeper.person.post(f"/v1/secrets/{secret['id']}:rotate"), 202)
    return operation


async def test_a_rotation_is_shown_with_its_steps_and_its_secret(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    operation = await _rotating(keeper)
    shown = ok(await keeper.person.get(f"/v1/operations/{operation['id']}"))
    assert (shown["state"], shown["owner_type"]) == ("RUNNING", "secret")
    assert shown["metadata"] == {
        "type": "secret.rotate",
        "workspace_id": keeper.person.workspace,
        "secret_id": shown["owner_id"],
    }
    assert [step["name"] for step in shown["steps"]] == STEPS


async def test_rotations_are_listed_by_their_secret(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    operation = await _rotating(keeper)
    await gate.new_cluster(keeper.person)
    query = f"owner_type=secret&owner_id={operation['owner_id']}"
    listed = ok(await keeper.person.get(f"/v1/operations?{query}"))["data"]
    assert [each["id"] for each in listed] == [operation["id"]]
    query = f"owner_type=secret&owner_id={new_id(Prefix.CLUSTER)}"
    error_of(await keeper.person.get(f"/v1/operations?{query}"), 400, "INVALID_ARGUMENT")


@pytest.mark.parametrize("scope", ["", "secrets:write", "secrets:access"])
async def test_who_may_not_read_secrets_is_not_shown_their_operations(
    gate: Gate, scope: str
) -> None:
    keeper = await new_keeper(gate)
    operation = await _rotating(keeper)
    other = await gate.new_cluster(keeper.person)
    token = await keeper.token(*filter(None, [scope]))
    path = f"/v1/operations/{operation['id']}"
    query = f"owner_type=secret&owner_id={operation['owner_id']}"
    for answer in (
        await token.get(path),
        await token.post(f"{path}:wait?timeout=1"),
        await token.get(f"/v1/operations?{query}"),
    ):
        refused = error_of(answer, 403, "PERMISSION_DENIED")
        assert refused["metadata"]["required_scope"] == "secrets:read"
    listed = ok(await token.get("/v1/operations"))["data"]
    assert [each["id"] for each in listed] == [other["id"]]
    reader = await keeper.token("secrets:read")
    shown = ok(await reader.get("/v1/operations"))["data"]
    assert {each["id"] for each in shown} == {operation["id"], other["id"]}
    assert ok(await reader.get(path))["id"] == operation["id"]


async def test_a_second_rotation_is_refused_and_names_the_first(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    operation = await _rotating(keeper)
    path = f"/v1/secrets/{operation['owner_id']}:rotate"
    answers = await asyncio.gather(*(keeper.person.post(path) for _ in range(8)))
    for answer in answers:
        error = error_of(answer, 409, "CONFLICT")
        assert error["metadata"]["operation_id"] == operation["id"]
        assert f"bulkhead operations watch {operation['id']}" in error["message"]


@pytest.mark.parametrize("is_finished", [False, True])
async def test_what_a_rotation_works_with_is_not_destroyed_before_its_end(
    gate: Gate,
    is_finished: bool,  # noqa: FBT001 - a column of the table
) -> None:
    keeper = await new_keeper(gate)
    await keeper.set_policy(force_allowed=True)
    operation = await _rotating(keeper, retirement="disable")
    secret = await keeper.get({"id": operation["owner_id"]})
    old, (new, other) = (
        (await keeper.versions(secret))[0],
        [await keeper.add(secret, "y" * 32) for _ in range(2)],
    )
    ok(await keeper.patch(secret, {"version_aliases": {"current": 3}}))
    placement = {
        "current": {"id": old["id"], "number": 1},
        "pending": {"id": new["id"], "number": 2},
        **({"finished_at": 1.0} if is_finished else {}),
    }
    with gate.administrator() as connection:
        connection.execute(
            "UPDATE operations SET placement = placement || %s WHERE id = %s",
            (Jsonb(placement), operation["id"]),
        )
    for version, query in ((old, ""), (new, ""), (old, "?force=true")):
        error = error_of(await keeper.switch(version, "destroy", query), 409, "CONFLICT")
        assert error["metadata"]["operation_id"] == operation["id"]
        assert ("cancel" in error["message"]) is not is_finished
        assert f"bulkhead operations watch {operation['id']}" in error["message"]
    ok(await keeper.patch(secret, {"version_aliases": {"current": 1}}))
    ok(await keeper.switch(other, "destroy"))
    ok(await keeper.patch(secret, {"version_aliases": {"current": 2}}))
    with gate.administrator() as connection:
        connection.execute(
            "UPDATE secrets SET active_operation_id = NULL WHERE id = %s", (secret["id"],)
        )
    ok(await keeper.switch(old, "destroy"))


async def test_a_rotation_is_cancelled_like_every_operation(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    operation = await _rotating(keeper)
    stranger = gate.new_person()
    path = f"/v1/operations/{operation['id']}"
    error_of(await stranger.post(f"{path}:cancel"), 404, "NOT_FOUND")
    made = ok(await keeper.person.post("/v1/api_tokens", {"name": "no scopes"}), 201)
    scopeless = Person("", keeper.person.workspace, made["token"], keeper.person.client)
    refused = error_of(await scopeless.post(f"{path}:cancel"), 403, "PERMISSION_DENIED")
    assert refused["metadata"]["required_scope"] == "secrets:write"
    assert ok(await keeper.person.post(f"{path}:cancel"), 202)["state"] == "RUNNING"
    waited = ok(await keeper.person.post(f"{path}:wait?timeout=1"))
    assert waited["done"] is False
    row = await gate.operation(keeper.person, operation["id"])
    assert row.cancel_requested_at is not None
