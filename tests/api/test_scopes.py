"""Scopes are given by owners, imply nothing, and every attempt is in the audit log."""

import pytest

from domain.caller import Role
from tests.api.gate import JSON, Gate, Person

_ALL = ["secrets:access", "secrets:read", "secrets:write"]


async def _events(person: Person, **filters: str) -> list[JSON]:
    answer = await person.get("/v1/audit_events", params=filters)
    assert answer.status_code == 200, answer.text
    events: list[JSON] = answer.json()["data"]
    return events


async def test_a_token_has_the_scopes_that_an_owner_gave_it_and_no_others(gate: Gate) -> None:
    owner = gate.new_person()
    bare = await owner.post("/v1/api_tokens", {"name": "bare"})
    assert bare.json()["scopes"] == []
    made = await owner.post("/v1/api_tokens", {"name": "ci", "scopes": [_ALL[1], _ALL[1]]})
    assert made.status_code == 201, made.text
    assert made.json()["scopes"] == [_ALL[1]]
    listed = (await owner.get("/v1/api_tokens")).json()["data"]
    assert {token["name"]: token["scopes"] for token in listed} == {"bare": [], "ci": [_ALL[1]]}
    (event,) = await _events(owner, action="api_token.create", resource_id=made.json()["id"])
    assert event["details"]["scopes"] == _ALL[1]


async def test_only_an_owner_gives_scopes_and_the_attempt_is_audited(gate: Gate) -> None:
    owner = gate.new_person()
    admin = gate.new_person()
    gate.join(admin, owner.workspace, Role.ADMIN)
    headers = {"akua-context": owner.workspace}
    body = {"name": "greedy", "scopes": ["secrets:access"]}
    refused = await admin.post("/v1/api_tokens", body, headers=headers)
    assert refused.status_code == 403
    token = (await owner.post("/v1/api_tokens", {"name": "t", "scopes": _ALL})).json()["token"]
    as_token = await Person("", owner.workspace, token, owner.client).post("/v1/api_tokens", body)
    assert as_token.status_code == 403
    denied = await _events(owner, action="api_token.grant_scopes", outcome="denied")
    assert {event["actor_kind"] for event in denied} == {"user", "api_token"}


@pytest.mark.parametrize("scopes", [["secrets:*"], ["secrets"], "secrets:read", [None], _ALL * 2])
async def test_scopes_that_do_not_exist_are_refused(gate: Gate, scopes: object) -> None:
    refused = await gate.new_person().post("/v1/api_tokens", {"name": "x", "scopes": scopes})
    assert refused.status_code == 422


async def test_the_audit_log_is_filtered_paged_and_for_admins_of_its_workspace(
    gate: Gate,
) -> None:
    owner, stranger, member = gate.new_person(), gate.new_person(), gate.new_person()
    gate.join(member, owner.workspace, Role.MEMBER)
    for number in range(5):
        await owner.post("/v1/regions", {"name": f"r{number}"})
    first = (await owner.get("/v1/audit_events", params={"limit": 2})).json()
    second = await owner.get(
        "/v1/audit_events", params={"limit": 2, "cursor": first["next_cursor"]}
    )
    ids = [event["id"] for event in first["data"] + second.json()["data"]]
    assert ids == sorted(set(ids), reverse=True)
    assert len(ids) == 4
    assert await _events(stranger, resource_type="region") == []
    refused = await member.get("/v1/audit_events", headers={"akua-context": owner.workspace})
    assert refused.status_code == 403
    assert [e["actor_id"] for e in await _events(owner, outcome="denied")] == [member.user_id]


async def test_only_an_owner_changes_the_secret_policy_and_from_what_they_read(
    gate: Gate,
) -> None:
    owner, admin = gate.new_person(), gate.new_person()
    gate.join(admin, owner.workspace, Role.ADMIN)
    path = f"/v1/workspaces/{owner.workspace}/secret_policy"
    policy = (await owner.get(path)).json()
    assert (policy["force_allowed"], policy["accesses_per_minute"]) == (False, 600)
    headers = {"if-match": policy["etag"], "akua-context": owner.workspace}
    change = {"force_allowed": True}
    assert (await admin.call("PATCH", path, json=change, headers=headers)).status_code == 403
    changed = await owner.call("PATCH", path, json=change, headers=headers)
    assert changed.json()["force_allowed"] is True
    assert changed.json()["accesses_per_minute"] == 600
    assert (await owner.call("PATCH", path, json=change, headers=headers)).status_code == 409
