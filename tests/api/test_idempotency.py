import asyncio

import httpx

from domain.caller import Role
from tests.api.gate import JSON, Gate, Person, a_key
from tests.api.keeper import error_of, new_keeper, ok


async def test_concurrent_duplicates_have_one_effect_and_one_answer(gate: Gate) -> None:
    person = gate.new_person()
    body = {"name": "test", "region_id": await gate.new_region(person)}
    key = {"idempotency-key": a_key()}
    answers = await asyncio.gather(
        *(person.post("/v1/clusters", body, headers=key) for _ in range(16))
    )
    assert {answer.status_code for answer in answers} == {202}
    first: JSON = answers[0].json()
    assert all(answer.json() == first for answer in answers)
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    for table in ("clusters", "operations", "idempotency_keys"):
        assert gate.count(table, person.workspace) == 1, table
    with gate.administrator() as connection:
        slots = connection.execute(
            "SELECT cluster_id FROM control_plane_slots WHERE workspace_id = %s",
            (person.workspace,),
        ).fetchall()
    assert slots == [(first["owner_id"],)]
    assert await gate.workflow(first) is not None


async def test_concurrent_requests_without_a_key_are_different_requests(gate: Gate) -> None:
    person = gate.new_person()
    body = {"name": "test", "region_id": await gate.new_region(person)}
    answers = await asyncio.gather(*(person.post("/v1/clusters", body) for _ in range(4)))
    assert len({answer.json()["owner_id"] for answer in answers}) == 4


async def test_a_repeat_is_answered_as_the_first_time_although_things_have_moved_on(
    gate: Gate,
) -> None:
    person = gate.new_person()
    cluster = await gate.new_active_cluster(person)

    async def suspend() -> httpx.Response:
        headers = {"if-match": cluster["etag"], "idempotency-key": "suspend-once"}
        return await person.post(f"/v1/clusters/{cluster['id']}:suspend", headers=headers)

    first = await suspend()
    await gate.reach_suspended(person, first.json()["id"])
    second = await suspend()
    assert (second.status_code, second.json()) == (202, first.json())
    assert gate.count("operations", person.workspace) == 2


async def test_a_key_that_stands_for_another_request_is_a_conflict(gate: Gate) -> None:
    person = gate.new_person()
    region = await gate.new_region(person)
    key = {"idempotency-key": a_key()}
    body = {"name": "test", "region_id": region}
    assert (await person.post("/v1/clusters", body, headers=key)).status_code == 202
    others = [
        await person.post("/v1/clusters", {**body, "name": "other"}, headers=key),
        await person.post("/v1/regions", {"name": "test"}, headers=key),
    ]
    for answer in others:
        assert answer.status_code == 409
        assert answer.json()["errors"][0]["metadata"]["reason"] == "CONFLICT"
    # The order of fields, and a default that is spelled out, make no other request.
    spelled = {"network_profile": "linux_cilium", "region_id": region, "name": "test"}
    assert (await person.post("/v1/clusters", spelled, headers=key)).status_code == 202
    assert gate.count("clusters", person.workspace) == 1


async def test_another_kubeconfig_makes_another_request(gate: Gate) -> None:
    person = gate.new_person()
    cluster = await gate.new_active_cluster(person)
    key = {"idempotency-key": a_key(), "if-match": cluster["etag"]}
    path = f"/v1/clusters/{cluster['id']}"
    first = await person.call("PATCH", path, json={"name": "new"}, headers=key)
    other = await person.call("PATCH", path, json={"name": "new", "kubeconfig": "x"}, headers=key)
    assert (first.status_code, other.status_code) == (200, 409)
    assert other.json()["errors"][0]["metadata"]["reason"] == "CONFLICT"


async def test_a_request_that_failed_leaves_its_key_free(gate: Gate) -> None:
    person = gate.new_person()
    key = {"idempotency-key": a_key()}
    gate.set_quota(person.workspace, "compute/regions", 0)
    assert (await person.post("/v1/regions", {"name": "x"}, headers=key)).status_code == 403
    with gate.administrator() as connection:
        connection.execute("DELETE FROM quotas WHERE workspace_id = %s", (person.workspace,))
    assert (await person.post("/v1/regions", {"name": "y"}, headers=key)).status_code == 201


async def test_a_key_is_the_workspaces_whoever_of_it_sends_it(gate: Gate) -> None:
    person = gate.new_person()
    key, body = {"idempotency-key": a_key()}, {"name": "here"}
    tokens = [ok(await person.post("/v1/api_tokens", {"name": "ci"}), 201) for _ in range(2)]
    callers = [
        Person(token["id"], person.workspace, token["token"], person.client) for token in tokens
    ]
    first, *again = [
        await caller.post("/v1/regions", body, headers=key) for caller in (*callers, person)
    ]
    assert [answer.json() for answer in again] == [ok(first, 201)] * 2
    assert {answer.headers["idempotency-replayed"] for answer in again} == {"true"}
    assert gate.count("regions", person.workspace) == 1
    other = await callers[1].post("/v1/regions", {"name": "there"}, headers=key)
    error_of(other, 409, "CONFLICT")


async def test_a_key_gives_nobody_what_they_could_not_ask_for(gate: Gate) -> None:
    owner = gate.new_person()
    admin = gate.new_person(owner.workspace, Role.ADMIN)
    member = gate.new_person(owner.workspace, Role.MEMBER)
    scoped = {"name": "ci", "scopes": ["secrets:read"]}
    asked: list[tuple[str, JSON]] = [
        ("/v1/api_tokens", scoped),
        ("/v1/emergency_stops", {"scope": "workspace", "reason": "Drill."}),
    ]
    for path, body in asked:
        key = {"idempotency-key": a_key()}
        made = ok(await owner.post(path, body, headers=key), 201)
        caller = admin if path.endswith("tokens") else member
        refused = await caller.post(path, body, headers=key)
        error_of(refused, 403, "PERMISSION_DENIED")
        assert made["id"] not in refused.text


async def test_a_key_of_a_new_workspace_is_its_owners_alone(gate: Gate) -> None:
    person = gate.new_person()
    colleague = gate.new_person(person.workspace)
    key, body = {"idempotency-key": a_key()}, {"name": "Mine alone"}
    made = ok(await person.post("/v1/workspaces", body, headers=key), 201)
    refused = await colleague.post("/v1/workspaces", body, headers=key)
    error_of(refused, 409, "CONFLICT")
    assert made["id"] not in refused.text


async def test_a_key_tells_no_other_writer_which_value_was_sent_with_it(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    key = {"idempotency-key": a_key()}
    body = {"name": "pin", "kind": "generic", "value": "1234"}
    ok(await keeper.person.post("/v1/secrets", body, headers=key), 201)
    writer = await keeper.token("secrets:write")
    for guess in ("1234", "9999"):
        answer = await writer.post("/v1/secrets", {**body, "value": guess}, headers=key)
        error_of(answer, 409, "CONFLICT")


async def test_keys_of_workspaces_are_apart(gate: Gate) -> None:
    key = {"idempotency-key": a_key()}
    names = []
    for person in (gate.new_person(), gate.new_person()):
        answer = await person.post("/v1/regions", {"name": "here"}, headers=key)
        names.append(answer.json()["id"])
    assert len(set(names)) == 2


async def test_a_key_is_forgotten_after_a_day(gate: Gate) -> None:
    person = gate.new_person()
    key = {"idempotency-key": a_key()}
    await person.post("/v1/regions", {"name": "old"}, headers=key)
    with gate.administrator() as connection:
        connection.execute(
            "UPDATE idempotency_keys SET created_at = now() - interval '25 hours'"
            " WHERE workspace_id = %s",
            (person.workspace,),
        )
    answer = await person.post("/v1/regions", {"name": "new"}, headers=key)
    assert (answer.status_code, answer.json()["name"]) == (201, "new")


async def test_what_is_shown_once_is_not_shown_again(gate: Gate) -> None:
    person = gate.new_person()

    async def create(caller: Person) -> httpx.Response:
        return await caller.post(
            "/v1/api_tokens", {"name": "ci"}, headers={"idempotency-key": "token"}
        )

    first, second = await create(person), await create(person)
    assert (first.status_code, second.status_code) == (201, 201)
    shown = first.json()
    assert shown.pop("token")
    assert second.json() == shown
    assert gate.count("api_tokens", person.workspace) == 1


async def test_a_workspace_is_made_once(gate: Gate) -> None:
    person = gate.new_person()
    key = {"idempotency-key": a_key()}
    answers = [
        await person.post("/v1/workspaces", {"name": "Again and again"}, headers=key)
        for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    assert len((await person.get("/v1/workspaces")).json()["data"]) == 2
