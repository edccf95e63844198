"""A rotation is an operation like any other: shown, listed, waited for, cancelled."""

import asyncio

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


async def _rotating(keeper: Keeper) -> JSON:
    """Ask for a rotation; the gate has no worker, so that it stays where it is."""
    secret = await keeper.create(kind="webhook_signing", value="x" * 32)
    ok(await keeper.person.call("PUT", f"/v1/secrets/{secret['id']}/rotation", json=POLICY))
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


async def test_a_second_rotation_is_refused_and_names_the_first(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    operation = await _rotating(keeper)
    path = f"/v1/secrets/{operation['owner_id']}:rotate"
    answers = await asyncio.gather(*(keeper.person.post(path) for _ in range(8)))
    for answer in answers:
        error = error_of(answer, 409, "CONFLICT")
        assert error["metadata"]["operation_id"] == operation["id"]


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
