"""Secrets and versions move through their states as the contract says, and no other way."""

import base64
import os
import time
from typing import Any

import httpx
import pytest

from domain.caller import Role
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.names import purge_workflow_id_of
from infra.openbao.values import ValueStore
from tests.api.gate import JSON, Gate, Person, a_key
from tests.api.keeper import VALUE, Keeper, error_of, new_keeper, ok

# What each verb answers for a version that is not `current`, by the state that it is in.
VERSION_STATES = {
    "enabled": {"enable": 200, "disable": 200, "destroy": 200, "access": 200},
    "disabled": {"enable": 200, "disable": 200, "destroy": 200, "access": 409},
    "destroying": {"enable": 409, "disable": 409, "destroy": 200, "access": 410},
    "destroyed": {"enable": 409, "disable": 409, "destroy": 200, "access": 410},
}


async def _put_into(
    keeper: Keeper, version: JSON, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    match state:
        case "disabled":
            ok(await keeper.switch(version, "disable"))
        case "destroyed":
            ok(await keeper.switch(version, "destroy"))
        case "destroying":
            with monkeypatch.context() as patch:
                patch.setattr(ValueStore, "destroy", _unreachable)
                error_of(await keeper.switch(version, "destroy"), 503)


def _unreachable(*_: object) -> None:
    raise BulkheadError(Reason.DEPENDENCY_UNAVAILABLE, "The secret store does not answer.")


@pytest.mark.parametrize("state", VERSION_STATES)
async def test_a_version_takes_the_verbs_that_its_state_allows(
    gate: Gate, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    for verb, status in VERSION_STATES[state].items():
        version = await keeper.add(secret)
        await _put_into(keeper, version, state, monkeypatch)
        if verb == "access":
            answer = await keeper.access(secret, version["id"])
        else:
            answer = await keeper.switch(version, verb)
        assert answer.status_code == status, (state, verb, answer.text)
        path = f"/v1/secrets/{secret['id']}/versions/{version['id']}"
        shown = ok(await keeper.person.get(path))
        assert shown["state"] in {"enabled", "disabled", "destroyed"}
        if verb == "destroy":
            assert shown["state"] == "destroyed"
            assert shown["destroyed_at"] > 0
        if verb in {"enable", "disable"} and status == 200:
            assert shown["state"] == f"{verb}d"
    assert await keeper.value(secret) == VALUE


async def test_a_deleted_secret_is_seen_and_restored_and_nothing_else(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    version = (await keeper.versions(secret))[0]
    assert (await keeper.delete(secret)).status_code == 204
    shown = await keeper.get(secret)
    assert shown["state"] == "soft_deleted"
    assert shown["purge_at"] - shown["deleted_at"] == 30 * 24 * 3600
    for answer in await _everything_else(keeper.person, secret, version, shown["etag"]):
        error_of(answer, 404, "NOT_FOUND")
    # The name stays reserved, so that a restore meets no namesake.
    namesake = {"name": secret["name"], "kind": "generic", "value": "x"}
    error_of(await keeper.person.post("/v1/secrets", namesake), 409, "CONFLICT")
    restored = ok(await keeper.undelete(secret))
    assert restored["state"] == "active"
    assert "deleted_at" not in restored
    assert await keeper.value(secret) == VALUE
    error_of(await keeper.undelete(secret), 409, "FAILED_PRECONDITION")


async def _everything_else(
    person: Person, secret: JSON, version: JSON, etag: str
) -> list[httpx.Response]:
    path, headers = f"/v1/secrets/{secret['id']}", {"if-match": etag}
    one = f"{path}/versions/{version['id']}"
    rotation = {"rotator": "webhook_signing_key", "interval_seconds": 86400}
    answers = [
        await person.call("PATCH", path, json={"description": "x"}, headers=headers),
        await person.call("DELETE", path, headers=headers),
        await person.post(f"{path}/versions", {"value": "x"}),
        await person.get(f"{path}/versions"),
        await person.get(one),
        await person.post(f"{one}:access"),
        await person.post(f"{path}/versions/current:access"),
        await person.get(f"{path}/references"),
        await person.call("PUT", f"{path}/references/install/a", json={}),
        await person.get(f"{path}/rotation"),
        await person.call("PUT", f"{path}/rotation", json=rotation),
        await person.post(f"{path}:rotate"),
    ]
    answers += [
        await person.post(f"{one}:{verb}", headers={"if-match": version["etag"]})
        for verb in ("enable", "disable", "destroy")
    ]
    return answers


async def test_force_needs_the_policy_and_is_beyond_recovery(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    version = (await keeper.versions(secret))[0]
    error_of(await keeper.delete(secret, "?force=true"), 403, "PERMISSION_DENIED")
    denied = ("secret.delete", "denied", secret["id"])
    assert denied in gate.audit(keeper.person.workspace)
    await keeper.set_policy(force_allowed=True)
    etag = (await keeper.get(secret))["etag"]
    assert (await keeper.delete(secret)).status_code == 204
    assert (await keeper.delete(secret, "?force=true")).status_code == 204
    path = f"/v1/secrets/{secret['id']}"
    for answer in [
        *await _everything_else(keeper.person, secret, version, etag),
        await keeper.person.get(path),
        await keeper.person.post(f"{path}:undelete", headers={"if-match": etag}),
    ]:
        error_of(answer, 404, "NOT_FOUND")
    assert ok(await keeper.person.get("/v1/secrets"))["data"] == []
    client = await gate.clients.temporal.client()
    handle: Any = client.get_workflow_handle(purge_workflow_id_of(secret["id"]))
    assert (await handle.describe()).workflow_type == "PurgeSecret"


async def test_a_purge_before_its_time_takes_two_persons_and_the_typed_name(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create("typed by hand")
    path, confirmed = f"/v1/secrets/{secret['id']}", {"confirm_name": "typed by hand"}
    member = gate.new_person(keeper.person.workspace, Role.ADMIN)
    error_of(await member.post(f"{path}:requestPurge", confirmed), 404)
    await keeper.delete(secret)
    error_of(await keeper.person.post(f"{path}:approvePurge", confirmed), 409)
    token = await keeper.token("secrets:write")
    error_of(await token.post(f"{path}:requestPurge", confirmed), 403)
    error_of(await member.post(f"{path}:requestPurge", {"confirm_name": "typed"}), 400)
    asked = ok(await keeper.person.post(f"{path}:requestPurge", confirmed))
    assert asked["purge_requested_by"] == keeper.person.user_id
    # Neither who asked for it, nor somebody who is no owner.
    error_of(await keeper.person.post(f"{path}:approvePurge", confirmed), 403)
    error_of(await member.post(f"{path}:approvePurge", confirmed), 403)
    other = gate.new_person(keeper.person.workspace)
    assert (await other.post(f"{path}:approvePurge", confirmed)).status_code == 204
    error_of(await other.get(path), 404)
    approved = ("secret.approve_purge", "allowed", secret["id"])
    assert approved in gate.audit(keeper.person.workspace)


async def test_adding_moves_latest_and_never_current(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    await keeper.add(secret, "second")
    third = await keeper.add(secret, "third")
    assert (await keeper.get(secret))["version_aliases"] == {"current": 1}
    assert await keeper.value(secret) == VALUE
    assert await keeper.value(secret, "latest") == "third"
    # No older value takes the place of one that is not to be read.
    ok(await keeper.switch(third, "disable"))
    error_of(await keeper.access(secret, "latest"), 409)
    ok(await keeper.switch(third, "destroy"))
    error_of(await keeper.access(secret, "latest"), 410)


@pytest.mark.parametrize("name", ["blue.green", "a" * 128, "v1.2.3-rc_1"])
async def test_a_version_is_read_by_any_alias_that_is_a_name(gate: Gate, name: str) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    changed = ok(await keeper.patch(secret, {"version_aliases": {name: 1}}))
    assert changed["version_aliases"] == {"current": 1, name: 1}
    assert await keeper.value(secret, name) == VALUE


@pytest.mark.parametrize("name", ["1.2", "..", ".a", "a/b", "secv_" + "0" * 32, "a" * 129])
async def test_no_alias_looks_like_a_number_an_id_or_a_path(gate: Gate, name: str) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    error_of(await keeper.patch(secret, {"version_aliases": {name: 1}}), 400, "INVALID_ARGUMENT")


async def test_no_secret_is_of_a_kind_that_is_not_known(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    for kind, found in (("generic", [secret["id"]]), ("of tomorrow", []), ("GENERIC", [])):
        listed = ok(await keeper.person.get("/v1/secrets", params={"kind": kind}))
        assert [each["id"] for each in listed["data"]] == found
        assert (listed["has_more"], listed["next_cursor"]) == (False, None)


async def test_aliases_are_merged_and_point_at_versions_that_can_be_used(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret, other = await keeper.create(), await keeper.create("other")
    second, third = await keeper.add(secret, "second"), await keeper.add(secret, "third")
    for _ in range(3):
        await keeper.add(other)

    async def move(**aliases: int | None) -> httpx.Response:
        return await keeper.patch(secret, {"version_aliases": aliases})

    ok(await move(canary=2, stable=1))
    body = ok(await move(current=2, stable=None))
    assert body["version_aliases"] == {"current": 2, "previous": 1, "canary": 2}
    # What was read can be sent back; `previous` follows and is not moved by hand.
    assert ok(await move(**body["version_aliases"])) == await keeper.get(secret)
    for name in (
        "previous",
        "latest",
        "new",
        "pending",
        "secv_x",
        "",
        "a b",
        "1st",
        "a" * 129,
        "ä",
    ):
        error_of(await move(**{name: 2}), 400, "INVALID_ARGUMENT")
    # Version 4 exists, of another secret.
    for wrong in ({"current": 4}, {"mine": 4}, {"current": None}):
        error_of(await move(**wrong), 400, "INVALID_ARGUMENT")
    ok(await keeper.switch(third, "disable"))
    error_of(await move(current=3), 409, "FAILED_PRECONDITION")
    ok(await move(mine=3))
    error_of(await keeper.access(secret, "mine"), 409)
    ok(await keeper.switch(third, "destroy"))
    error_of(await move(other=3), 409, "FAILED_PRECONDITION")
    error_of(await keeper.access(secret, "mine"), 410)
    error_of(await keeper.switch(second, "destroy"), 409, "FAILED_PRECONDITION")
    error_of(await move(**{f"a{number}": 1 for number in range(60)}), 400)
    assert await keeper.value(secret) == "second"


async def test_current_can_be_disabled_and_no_older_value_takes_its_place(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    await keeper.add(secret)
    first = (await keeper.versions(secret))[1]
    ok(await keeper.switch(first, "disable"))
    error_of(await keeper.access(secret), 409)
    assert (await keeper.get(secret))["enabled_version_count"] == 1


@pytest.mark.parametrize(
    ("consumer_type", "consumer"),
    [
        ("install", Prefix.INSTALL),
        ("secret_rotation", Prefix.SECRET),
        ("compute_config", Prefix.COMPUTE_CONFIG),
        ("registry_connection", Prefix.REGISTRY_CONNECTION),
    ],
)
async def test_nobody_says_which_secret_the_platform_itself_uses_but_what_uses_it(
    gate: Gate, consumer_type: str, consumer: Prefix
) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    path = f"/v1/secrets/{secret['id']}/references/{consumer_type}/{new_id(consumer)}"
    for answer in (
        await keeper.person.call("PUT", path, json={}),
        await keeper.person.call("DELETE", path),
        await keeper.person.post(f"{path}:acknowledge", {"version_number": 1}),
    ):
        error = error_of(answer, 409, "FAILED_PRECONDITION")
        assert error["path"] == ["path", "consumer_type"]


async def test_who_acknowledges_may_work_with_each_version_since_the_last_one_acknowledged(
    gate: Gate,
) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    first = (await keeper.versions(secret))[0]
    path = f"/v1/secrets/{secret['id']}/references/agent/slow"
    ok(await keeper.person.call("PUT", path, json={"acknowledges": True}))
    ok(await keeper.person.post(f"{path}:acknowledge", {"version_number": 1}))
    second, third = await keeper.add(secret), await keeper.add(secret)
    ok(await keeper.patch(secret, {"version_aliases": {"current": 2}}))

    async def missed_by(number: int) -> list[str]:
        query = f"/v1/secrets/{secret['id']}/references?version_number={number}"
        return [row["consumer_id"] for row in ok(await keeper.person.get(query))["data"]]

    assert [await missed_by(number) for number in (1, 2, 3)] == [["slow"], ["slow"], []]
    for verb in ("disable", "destroy"):
        error = error_of(await keeper.switch(first, verb), 409, "FAILED_PRECONDITION")
        assert error["metadata"]["consumers"] == "agent/slow"
    # Nobody has come to what `current` has never pointed at.
    ok(await keeper.switch(third, "destroy"))
    ok(await keeper.person.post(f"{path}:acknowledge", {"version_number": 2}))
    assert [await missed_by(number) for number in (1, 2)] == [[], ["slow"]]
    ok(await keeper.switch(first, "destroy"))
    error_of(await keeper.switch(second, "disable"), 409, "FAILED_PRECONDITION")


async def test_a_workspace_has_at_most_as_many_secrets_as_its_quota(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    gate.set_quota(keeper.person.workspace, "secrets/secrets", 2)
    first, second = await keeper.create("first"), await keeper.create("second")
    body = {"name": "third", "kind": "generic", "value": "x"}
    for secret in (first, second):
        error = error_of(await keeper.person.post("/v1/secrets", body), 403, "QUOTA_EXCEEDED")
        assert error["metadata"]["metric"] == "secrets/secrets"
        # What can be restored has its place still.
        assert (await keeper.delete(secret)).status_code == 204
    quota = ok(await keeper.person.get("/v1/quotas/secrets%2Fsecrets"))
    assert (quota["limit"], quota["usage"], quota["remaining"]) == (2, 2, 0)


async def test_what_is_in_use_is_disabled_and_destroyed_by_force_only(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    second = await keeper.add(secret)
    path = f"/v1/secrets/{secret['id']}/references"
    for consumer, pinned in (("follows", None), ("pinned", 2)):
        body = {"version_number": pinned, "acknowledges": True}
        ok(await keeper.person.call("PUT", f"{path}/install/{consumer}", json=body))
    first = (await keeper.versions(secret))[1]
    for version, verb, consumer in (
        (first, "disable", "install/follows"),
        (second, "disable", "install/pinned"),
        (second, "destroy", "install/pinned"),
    ):
        error = error_of(await keeper.switch(version, verb), 409, "FAILED_PRECONDITION")
        assert error["metadata"]["consumers"] == consumer
        error_of(await keeper.switch(version, verb, "?force=true"), 403, "PERMISSION_DENIED")
    await keeper.set_policy(force_allowed=True)
    ok(await keeper.switch(first, "disable", "?force=true"))
    ok(await keeper.switch(first, "enable"))
    # Who has acknowledged a newer version does not miss the older one.
    ok(await keeper.person.post(f"{path}/install/pinned:acknowledge", {"version_number": 2}))
    known = {row["consumer_id"]: row for row in ok(await keeper.person.get(path))["data"]}
    assert known["pinned"]["acknowledged_number"] == 2
    assert (await keeper.person.call("DELETE", f"{path}/install/pinned")).status_code == 204
    ok(await keeper.switch(second, "destroy"))


async def test_an_older_etag_changes_nothing(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    version = await keeper.add(secret)
    path, one = f"/v1/secrets/{secret['id']}", f"/v1/secrets/{secret['id']}/versions/"
    old = {"if-match": secret["etag"]}
    for answer in (
        await keeper.person.call("PATCH", path, json={"description": "x"}, headers=old),
        await keeper.person.call("DELETE", path, headers=old),
    ):
        assert error_of(answer, 409, "ABORTED")["metadata"]["etag"]
    for verb in ("enable", "disable", "destroy"):
        answer = await keeper.person.post(
            f"{one}{version['id']}:{verb}", headers={"if-match": "99"}
        )
        error_of(answer, 409, "ABORTED")
        answer = await keeper.person.post(f"{one}{version['id']}:{verb}")
        error_of(answer, 400)
    assert [v["state"] for v in await keeper.versions(secret)] == ["enabled", "enabled"]


async def test_any_bytes_come_back_as_they_were(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    everything = base64.b64encode(bytes(range(256)) + os.urandom(64 * 1024 - 256)).decode()
    secret = await keeper.create(value=everything, value_encoding="base64")
    assert ok(await keeper.access(secret)) == {
        "value": everything,
        "value_encoding": "base64",
        "version_number": 1,
    }
    # Every byte as an escape of JSON: the largest body that a value can need.
    text = "\x01" * (64 * 1024)
    await keeper.add(secret, text)
    assert ok(await keeper.access(secret, "latest")) == {"value": text, "version_number": 2}
    for value in ("x" * (64 * 1024 + 1), "é" * (32 * 1024 + 1), ""):
        answer = await keeper.person.post(f"/v1/secrets/{secret['id']}/versions", {"value": value})
        error_of(answer, 400, "INVALID_ARGUMENT")


async def test_a_secret_that_has_expired_is_not_read(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create(expire_time=int(time.time()) + 3600)
    assert await keeper.value(secret) == VALUE
    with gate.administrator() as connection:
        connection.execute("UPDATE secrets SET expires_at = now() WHERE id = %s", (secret["id"],))
    error_of(await keeper.access(secret), 404, "NOT_FOUND")
    assert "expire_time" not in ok(await keeper.patch(secret, {"expire_time": None}))
    assert await keeper.value(secret) == VALUE
    error_of(await keeper.patch(secret, {"expire_time": int(time.time()) - 1}), 400)


async def test_a_list_is_filtered_and_another_workspace_sees_none_of_it(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create(labels={"team": "a"})
    await keeper.create("signing", kind="webhook_signing", value="x" * 16)
    listed = ok(await keeper.person.get("/v1/secrets?kind=webhook_signing"))["data"]
    assert [row["name"] for row in listed] == ["signing"]
    assert ok(await keeper.person.get("/v1/secrets?kind=unheard_of"))["data"] == []
    stranger = await new_keeper(gate)
    version = (await keeper.versions(secret))[0]
    for answer in [
        await stranger.person.get(f"/v1/secrets/{secret['id']}"),
        *await _everything_else(stranger.person, secret, version, secret["etag"]),
        await stranger.person.get(f"/v1/secrets/{new_id(Prefix.SECRET)}"),
    ]:
        error_of(answer, 404, "NOT_FOUND")
    # A name is taken in its own workspace only.
    await stranger.create(secret["name"])


async def test_names_that_would_lead_elsewhere_are_names_and_nothing_more(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    names = ["../../sys/policies/acl/evil", "%2e%2e%2f", "..", "a/b", "'; DROP TABLE x", "é✓" * 100]
    for name in names:
        secret = await keeper.create(name, value=f"of {name}")
        assert secret["name"] == name
        assert await keeper.value(secret) == f"of {name}"
    for name in ("", " ", "a\nb", "a\u0000", "a\u202eb", "x" * 201):
        body = {"name": name, "kind": "generic", "value": "x"}
        error_of(await keeper.person.post("/v1/secrets", body), 400, "INVALID_ARGUMENT")
    for odd in ("..", "%2e%2e", "a%2Fb", "%00", "x" * 300):
        path = f"/v1/secrets/{secret['id']}/versions/{odd}:access"
        assert (await keeper.person.post(path)).status_code in {400, 404}


async def test_a_restore_and_a_key_go_together(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    await keeper.delete(secret)
    headers = {"if-match": (await keeper.get(secret))["etag"], "idempotency-key": a_key()}
    path = f"/v1/secrets/{secret['id']}:undelete"
    first = await keeper.person.post(path, headers=headers)
    assert ok(await keeper.person.post(path, headers=headers)) == ok(first)
