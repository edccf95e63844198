"""Compute configs, and the credentials that they need for as long as machines exist."""

import asyncio
from typing import Any

import pytest

from domain.caller import Role
from tests.api.compute import HCLOUD, config_body, new_compute
from tests.api.gate import JSON, Gate, a_key
from tests.api.keeper import Keeper, error_of, new_keeper, ok

PATH = "/v1/compute_configs"


@pytest.fixture(scope="module")
async def keeper(gate: Gate) -> Keeper:
    return await new_keeper(gate)


@pytest.fixture(scope="module")
async def secret(keeper: Keeper) -> JSON:
    return await keeper.create("hcloud token", kind=HCLOUD, value="x" * 64)


async def test_a_config_is_made_shown_changed_and_deleted(keeper: Keeper, secret: JSON) -> None:
    person = keeper.person
    key = {"idempotency-key": a_key()}
    body = config_body(secret)
    made = ok(await person.post(PATH, body, headers=key), 201)
    assert ok(await person.post(PATH, body, headers=key), 201) == made
    assert made["credential_scope"] == body["credential_scope"]
    own = f"{PATH}/{made['id']}"
    assert ok(await person.get(own)) == made
    assert made in ok(await person.get(PATH, params={"view": "basic"}))["data"]
    references = f"/v1/secrets/{secret['id']}/references"
    consumers = [each["consumer_id"] for each in ok(await person.get(references))["data"]]
    assert made["id"] in consumers

    change = {"name": "new", "provider_config": {"image": "debian-13", "fallbacks": ["nbg1"]}}
    etag = {"if-match": made["etag"]}
    changed = ok(await person.call("PATCH", own, json=change, headers=etag))
    assert (changed["name"], changed["etag"]) == ("new", "2")
    expected = {"region": "fsn1", "image": "debian-13", "fallbacks": ["nbg1"]}
    assert changed["provider_config"] == expected
    error_of(await person.call("PATCH", own, json={"name": "x"}, headers=etag), 409, "ABORTED")

    etag = {"if-match": changed["etag"]}
    assert ok(await person.call("DELETE", own, headers=etag)) == changed
    error_of(await person.get(own), 404)
    consumers = [each["consumer_id"] for each in ok(await person.get(references))["data"]]
    assert made["id"] not in consumers


async def test_a_name_is_of_one_config_of_a_workspace(gate: Gate) -> None:
    compute = await new_compute(gate)
    person, secret = compute.person, compute.secret
    assert (compute.config["looked_at"], compute.config["problem"]) == (None, None)
    error = error_of(await person.post(PATH, config_body(secret)), 409, "CONFLICT")
    assert error["path"] == ["body", "name"]
    other = ok(await person.post(PATH, config_body(secret, name="other")), 201)
    own, etag = f"{PATH}/{other['id']}", {"if-match": other["etag"]}
    renamed = await person.call("PATCH", own, json={"name": "hetzner"}, headers=etag)
    assert error_of(renamed, 409, "CONFLICT")["path"] == ["body", "name"]
    assert ok(await person.get(own)) == other

    compute.run(
        "UPDATE compute_configs SET looked_at = to_timestamp(7), problem = 'refused' WHERE id = %s",
        other["id"],
    )
    seen = ok(await person.get(own))
    assert (seen["looked_at"], seen["problem"]) == (7, "refused")


def _scope(**more: Any) -> JSON:  # noqa: ANN401 - fields of a body
    return {"credential_scope": {"kind": "byom", **more}}


async def test_a_config_needs_a_credential_that_is_one(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create("mine", kind=HCLOUD, value="x" * 64)
    generic = await keeper.create("generic")
    disabled = await keeper.add(secret)
    ok(await keeper.switch(disabled, "disable"))
    foreign = (await keeper.versions(generic))[0]
    zone = {"region": "eu-central-1", "image": "i"}
    mine = secret["id"]
    for change, status, reason in (
        ({"credential_scope": {"kind": "system"}}, 422, "INVALID_ARGUMENT"),
        (_scope(secret_id="sec_" + "0" * 32), 404, "NOT_FOUND"),
        (_scope(secret_id="nonsense"), 404, "NOT_FOUND"),
        (_scope(secret_id=generic["id"]), 422, "INVALID_ARGUMENT"),
        (_scope(secret_id=mine, secret_version_id=foreign["id"]), 404, "NOT_FOUND"),
        (_scope(secret_id=mine, secret_version_id=disabled["id"]), 409, "FAILED_PRECONDITION"),
        ({"provider": "aws", "provider_config": zone}, 422, "INVALID_ARGUMENT"),
        ({"provider": "azure"}, 422, "INVALID_ARGUMENT"),
        ({"provider_config": {"region": "../x", "image": "i"}}, 422, "INVALID_ARGUMENT"),
    ):
        answer = await keeper.person.post(PATH, config_body(secret, **change))
        error_of(answer, status, reason)
    assert gate.count("compute_configs", keeper.person.workspace) == 0
    assert gate.count("secret_references", keeper.person.workspace) == 0
    member = gate.new_person(keeper.person.workspace, Role.MEMBER)
    error_of(await member.post(PATH, config_body(secret)), 403, "PERMISSION_DENIED")


async def test_a_config_belongs_to_its_workspace_and_names_it(gate: Gate) -> None:
    compute = await new_compute(gate)
    path = f"{PATH}/{compute.config['id']}"
    error_of(await gate.new_person().get(path), 404)
    guest = gate.new_person()
    gate.join(guest, compute.person.workspace, Role.MEMBER)
    assert ok(await guest.get(path)) == compute.config


async def test_a_config_stays_while_its_account_is_needed(gate: Gate) -> None:
    compute = await new_compute(gate)
    person, path = compute.person, f"{PATH}/{compute.config['id']}"
    machine = await compute.new_machine()
    etag = {"if-match": compute.config["etag"]}
    other = await compute.keeper.create("other", kind=HCLOUD, value="y" * 64)
    moved = _scope(secret_id=other["id"])
    for method, options in (("DELETE", {}), ("PATCH", {"json": moved})):
        answer = await person.call(method, path, headers=etag, **options)
        error = error_of(answer, 409, "FAILED_PRECONDITION")
        assert error["metadata"]["machine_ids"] == machine["id"]
    # Another version is of the same account, as far as anybody can know.
    version = await compute.keeper.add(compute.secret)
    pinned = _scope(secret_id=compute.secret["id"], secret_version_id=version["id"])
    etag = {"if-match": ok(await person.call("PATCH", path, json=pinned, headers=etag))["etag"]}

    compute.forget_machines()
    stack = compute.add_stack()
    error = error_of(await person.call("DELETE", path, headers=etag), 409)
    assert error["metadata"] == {"reason": "FAILED_PRECONDITION", "stack_ids": stack}
    compute.run("UPDATE stacks SET state = 'removed' WHERE id = %s", stack)
    ok(await person.call("DELETE", path, headers=etag))


async def test_no_force_takes_the_credential_of_machines_away(gate: Gate) -> None:
    compute = await new_compute(gate)
    keeper, secret = compute.keeper, compute.secret
    await keeper.set_policy(force_allowed=True)
    [current] = await keeper.versions(secret)
    newer = await keeper.add(secret)
    await compute.new_machine()
    consumer = f"compute_config/{compute.config['id']}"
    for answer in (
        await keeper.switch(current, "disable", "?force=true"),
        await keeper.delete(secret, "?force=true"),
        await keeper.delete(secret),
    ):
        error = error_of(answer, 409, "FAILED_PRECONDITION")
        assert error["metadata"]["consumers"] == consumer
    reference = f"/v1/secrets/{secret['id']}/references/{consumer}"
    for method, options in (("DELETE", {}), ("PUT", {"json": {"version_number": 2}})):
        error_of(await keeper.person.call(method, reference, **options), 409)
    # What is not in use can go; and when `current` moves on, so can the one before.
    ok(await keeper.patch(secret, {"version_aliases": {"current": newer["version_number"]}}))
    error_of(await keeper.switch(newer, "disable", "?force=true"), 409)
    ok(await keeper.switch(current, "destroy", "?force=true"))
    compute.forget_machines()
    stack = compute.add_stack("changing")
    error_of(await keeper.delete(secret, "?force=true"), 409, "FAILED_PRECONDITION")
    compute.run("UPDATE stacks SET state = 'removed' WHERE id = %s", stack)
    assert (await keeper.delete(secret)).status_code == 204
    error_of(await compute.ask(), 409, "FAILED_PRECONDITION")


async def test_a_credential_is_not_lost_to_a_race_with_a_machine(gate: Gate) -> None:
    compute = await new_compute(gate)
    await compute.keeper.set_policy(force_allowed=True)
    [version] = await compute.keeper.versions(compute.secret)
    for _ in range(4):
        asked, disabled = await asyncio.gather(
            compute.ask(), compute.keeper.switch(version, "disable", "?force=true")
        )
        assert sorted([asked.is_success, disabled.is_success]) == [False, True]
        compute.forget_machines()
        ok(await compute.keeper.switch(version, "enable"))
