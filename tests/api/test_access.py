import time

import pytest

from domain.caller import Role
from domain.identifiers import Prefix, new_id
from tests.api.gate import Gate, Person, a_token_of_nobody
from tests.api.keeper import error_of, ok


def unauthenticated(person: Person, token: str) -> Person:
    return Person(person.user_id, person.workspace, token, person.client)


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer not-a-token", "Bearer {mistyped}", "{token}"],
)
async def test_a_missing_or_malformed_credential_is_refused(gate: Gate, authorization: str) -> None:
    token = a_token_of_nobody()
    mistyped = token[:-1] + ("a" if token[-1] != "a" else "b")
    header = authorization.format(token=token, mistyped=mistyped)
    answer = await gate.client.get("/v1/clusters", headers={"authorization": header})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["errors"][0]["metadata"]["reason"] == "UNAUTHENTICATED"
    assert token not in answer.text


async def test_an_unknown_token_and_an_expired_one_are_refused(gate: Gate) -> None:
    person = gate.new_person()
    expired = gate.new_person(person.workspace, valid_for="-1 second")
    for caller in (expired, unauthenticated(person, a_token_of_nobody())):
        answer = await caller.get("/v1/clusters")
        assert answer.status_code == 401, answer.text
        assert (await caller.get("/v1/workspaces")).status_code == 401


async def test_a_deleted_token_is_refused_at_once(gate: Gate) -> None:
    owner = gate.new_person()
    created = (await owner.post("/v1/api_tokens", {"name": "ci"})).json()
    bearer = unauthenticated(owner, created["token"])
    assert (await bearer.get("/v1/clusters")).status_code == 200
    assert (await owner.call("DELETE", f"/v1/api_tokens/{created['id']}")).status_code == 204
    assert (await bearer.get("/v1/clusters")).status_code == 401
    assert (await owner.call("DELETE", f"/v1/api_tokens/{created['id']}")).status_code == 404


async def test_a_token_is_shown_once_and_only_its_hash_is_stored(gate: Gate) -> None:
    owner = gate.new_person()
    answer = await owner.post("/v1/api_tokens", {"name": "ci"})
    token = answer.json()["token"]
    assert answer.headers["cache-control"] == "no-store"
    listed = await owner.get("/v1/api_tokens")
    assert token not in listed.text
    assert token.startswith(listed.json()["data"][0]["prefix"])
    with gate.administrator() as connection:
        for table in ("api_tokens", "audit_events", "idempotency_keys", "operations"):
            rows = connection.execute(f"SELECT to_jsonb(t)::text FROM {table} t").fetchall()  # noqa: S608 - the names above
            assert not [row for row in rows if token in row[0]]


async def test_a_token_cannot_make_one_that_outlives_it(gate: Gate) -> None:
    owner = gate.new_person()
    end = int(time.time()) + 3600
    parent = (await owner.post("/v1/api_tokens", {"name": "a", "expires_at": end})).json()
    bearer = unauthenticated(owner, parent["token"])
    for later in ({}, {"expires_at": None}, {"expires_at": end + 1}):
        refused = await bearer.post("/v1/api_tokens", {"name": "b", **later})
        assert refused.status_code == 422, refused.text
        error = refused.json()["errors"][0]
        assert error["path"] == ["body", "expires_at"]
        assert str(end) in error["message"]
    assert gate.count("api_tokens", owner.workspace) == 1
    for allowed in (end, end - 60):
        made = await bearer.post("/v1/api_tokens", {"name": "c", "expires_at": allowed})
        assert made.status_code == 201, made.text


async def test_a_workspace_token_acts_as_admin_of_its_workspace_alone(gate: Gate) -> None:
    owner = gate.new_person()
    cluster = await gate.new_active_cluster(owner)
    token = (await owner.post("/v1/api_tokens", {"name": "ci"})).json()["token"]
    bearer = unauthenticated(owner, token)
    assert (await bearer.post("/v1/regions", {"name": "made by a token"})).status_code == 201
    workspaces = (await bearer.get("/v1/workspaces")).json()["data"]
    assert [workspace["id"] for workspace in workspaces] == [owner.workspace]
    refused = await bearer.call(
        "DELETE", f"/v1/clusters/{cluster['id']}", headers={"if-match": cluster["etag"]}
    )
    assert refused.status_code == 403
    assert "user's own token" in refused.json()["errors"][0]["message"]
    assert (await bearer.post("/v1/workspaces", {"name": "another"})).status_code == 403


async def test_a_context_that_is_not_the_callers_is_the_same_refusal_as_an_unknown_one(
    gate: Gate,
) -> None:
    person, stranger = gate.new_person(), gate.new_person()
    answers = [
        await person.get("/v1/clusters", headers={"akua-context": workspace})
        for workspace in (stranger.workspace, new_id(Prefix.WORKSPACE), "ws_", "nonsense")
    ]
    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.text for answer in answers}) == 1


async def test_a_user_acts_in_the_workspace_that_they_name_or_that_has_the_thing(
    gate: Gate,
) -> None:
    person, other = gate.new_person(), gate.new_workspace()
    operation = await gate.new_cluster(person)
    gate.join(person, other, Role.MEMBER)
    path = f"/v1/clusters/{operation['owner_id']}"
    assert (await person.get(path)).status_code == 200
    assert (await person.get(path, headers={"akua-context": person.workspace})).status_code == 200
    # There, the cluster of another workspace does not exist, whoever asks.
    assert (await person.get(path, headers={"akua-context": other})).status_code == 404
    assert (await person.get(f"/v1/workspaces/{other}")).json()["id"] == other
    refused = await person.post("/v1/regions", {"name": "x"}, headers={"akua-context": other})
    assert refused.status_code == 403


async def test_a_user_of_several_workspaces_names_the_one_in_which_to_act(gate: Gate) -> None:
    # The first user of all has the first workspace for that.
    first, person = gate.new_person(), gate.new_person()
    other = gate.new_workspace()
    gate.join(person, other, Role.MEMBER)
    for answer in (
        await person.get("/v1/clusters"),
        await person.get("/v1/audit_events"),
        await person.post("/v1/regions", {"name": "x"}),
    ):
        error = error_of(answer, 400, "INVALID_ARGUMENT")
        assert error["path"] == ["header", "akua-context"]
        assert "--workspace" in error["message"]
    assert gate.count("regions", person.workspace) == 0
    error_of(await person.get(f"/v1/clusters/{new_id(Prefix.CLUSTER)}"), 404)
    for workspace in (person.workspace, other):
        ok(await person.get("/v1/clusters", headers={"akua-context": workspace}))
    listed = ok(await person.get("/v1/workspaces"))["data"]
    assert {each["id"] for each in listed} == {person.workspace, other}
    ok(await first.get("/v1/clusters"))


async def test_the_only_workspace_of_a_user_needs_no_name(gate: Gate) -> None:
    person, other = gate.new_person(), gate.new_workspace()
    gate.join(person, other, Role.ADMIN)
    with gate.administrator() as connection:
        connection.execute(
            "DELETE FROM workspace_members WHERE user_id = %s AND workspace_id = %s",
            (person.user_id, person.workspace),
        )
    ok(await person.post("/v1/regions", {"name": "x"}), 201)
    assert gate.count("regions", other) == 1


async def test_a_user_without_a_workspace_is_asked_to_name_or_make_one(gate: Gate) -> None:
    person = gate.new_person()
    with gate.administrator() as connection:
        connection.execute("DELETE FROM workspace_members WHERE user_id = %s", (person.user_id,))
    assert (await person.get("/v1/workspaces")).json()["data"] == []
    answer = await person.get("/v1/clusters")
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (
        400,
        ["header", "akua-context"],
    )
    made = await person.post("/v1/workspaces", {"name": "Mine"})
    assert made.status_code == 201
    assert (await person.get(f"/v1/workspaces/{made.json()['id']}")).status_code == 200


async def test_what_a_role_may_not_do_is_refused_and_audited(gate: Gate) -> None:
    owner = gate.new_person()
    admin = gate.new_person(owner.workspace, Role.ADMIN)
    member = gate.new_person(owner.workspace, Role.MEMBER)
    cluster = await gate.new_active_cluster(owner)
    path, etag = f"/v1/clusters/{cluster['id']}", {"if-match": cluster["etag"]}
    refused = [
        await admin.call("DELETE", path, headers=etag),
        await member.call("DELETE", path, headers=etag),
        await member.post(f"{path}:suspend", headers=etag),
        await member.call("PATCH", path, json={"name": "x"}, headers=etag),
        await member.get(f"{path}/kubeconfig"),
        await member.post("/v1/api_tokens", {"name": "x"}),
        await member.post("/v1/clusters", {"name": "x", "region_id": cluster["region_id"]}),
        await member.call(
            "PATCH", f"/v1/workspaces/{owner.workspace}", json={"name": "x"}, headers=etag
        ),
    ]
    assert [answer.status_code for answer in refused] == [403] * 8
    assert (await member.get(path)).json() == cluster
    denied = [line for line in gate.audit(owner.workspace) if line[1] == "denied"]
    assert denied == [
        ("cluster.delete", "denied", cluster["id"]),
        ("cluster.delete", "denied", cluster["id"]),
        ("cluster.suspend", "denied", cluster["id"]),
        ("cluster.update", "denied", cluster["id"]),
        ("cluster.kubeconfig", "denied", cluster["id"]),
        ("api_token.create", "denied", owner.workspace),
        ("cluster.create", "denied", owner.workspace),
        ("workspace.update", "denied", owner.workspace),
    ]


async def test_the_use_of_a_token_is_remembered(gate: Gate) -> None:
    owner = gate.new_person()
    created = (await owner.post("/v1/api_tokens", {"name": "ci"})).json()
    before = (await owner.get("/v1/api_tokens")).json()["data"][0]
    await unauthenticated(owner, created["token"]).get("/v1/regions")
    after = (await owner.get("/v1/api_tokens")).json()["data"][0]
    assert (before["last_used_at"], after["last_used_at"] is None) == (None, False)
