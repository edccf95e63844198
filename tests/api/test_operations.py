import asyncio
import time

import pytest

from tests.api.gate import Gate, Person


async def wait(person: Person, operation_id: str, seconds: int) -> tuple[str, float]:
    started = time.monotonic()
    answer = await person.post(f"/v1/operations/{operation_id}:wait?timeout={seconds}")
    assert answer.status_code == 200
    return answer.json()["state"], time.monotonic() - started


async def test_waits_end_with_the_operation_and_hold_no_connection_meanwhile(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Before their time is over nothing but the notification ends them.
    monkeypatch.setattr("api.routes.operation._REREAD_SECONDS", 60.0)
    person = gate.new_person()
    operation = await gate.new_cluster(person)
    # More than the pool has connections.
    waiting = [asyncio.create_task(wait(person, operation["id"], 30)) for _ in range(50)]
    await asyncio.sleep(0.5)
    assert not any(task.done() for task in waiting)
    assert (await person.get(f"/v1/operations/{operation['id']}")).status_code == 200
    await gate.reach_active(person, operation["id"])
    results = await asyncio.gather(*waiting)
    assert {state for state, _ in results} == {"SUCCEEDED"}
    assert max(seconds for _, seconds in results) < 30


async def test_a_wait_answers_with_the_state_when_its_time_is_over(gate: Gate) -> None:
    person = gate.new_person()
    operation = await gate.new_cluster(person)
    state, seconds = await wait(person, operation["id"], 1)
    assert state == "RUNNING"
    assert 1 <= seconds < 4


async def test_a_wait_goes_on_when_the_listening_connection_is_lost(gate: Gate) -> None:
    person = gate.new_person()
    operation = await gate.new_cluster(person)
    waiting = asyncio.create_task(wait(person, operation["id"], 30))
    await asyncio.sleep(0.2)
    with gate.administrator() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'bulkhead_changes' AND datname = current_database()"
        )
    await gate.reach_active(person, operation["id"])
    state, seconds = await waiting
    assert state == "SUCCEEDED"
    assert seconds < 10


async def test_a_wait_stops_for_a_token_that_is_revoked_meanwhile(gate: Gate) -> None:
    person = gate.new_person()
    operation = await gate.new_cluster(person)
    token = (await person.post("/v1/api_tokens", {"name": "x"})).json()
    bearer = Person(person.user_id, person.workspace, token["token"], person.client)
    path = f"/v1/operations/{operation['id']}:wait?timeout=30"
    waiting = asyncio.create_task(bearer.post(path))
    await asyncio.sleep(0.2)
    await person.call("DELETE", f"/v1/api_tokens/{token['id']}")
    await gate.reach_active(person, operation["id"])
    assert (await waiting).status_code == 401


async def test_a_cancel_is_stored_and_passed_on(gate: Gate) -> None:
    person = gate.new_person()
    operation = await gate.new_cluster(person)
    path = f"/v1/operations/{operation['id']}:cancel"
    mismatch = await person.post(path, headers={"if-match": "77"})
    assert mismatch.status_code == 409
    answer = await person.post(path, headers={"if-match": operation["etag"]})
    assert answer.status_code == 202
    assert answer.json()["state"] == "RUNNING"
    row = await gate.operation(person, operation["id"])
    assert row.cancel_requested_at is not None
    assert (await person.post(path)).status_code == 202
    actions = [action for action, _, _ in gate.audit(person.workspace)]
    assert actions.count("operation.cancel") == 2
    workflow = await gate.workflow(operation)
    assert workflow is not None
    history = await workflow_events(gate, workflow.id)
    assert "EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED" in history


async def test_a_step_that_is_tried_again_says_when_and_until_when(gate: Gate) -> None:
    person = gate.new_person()
    operation = await gate.new_cluster(person)
    path = f"/v1/operations/{operation['id']}"
    begun = (await person.get(path)).json()["steps"][0]
    assert (begun["next_try_at"], begun["gives_up_at"]) == (None, None)
    named = (person.workspace, operation["id"], begun["name"])
    fails = (
        "SELECT record_step_failed(%s, %s, %s, 'X', 'No.', to_timestamp(%s), to_timestamp(1900))"
    )
    with gate.administrator() as connection:
        connection.execute(fails, (*named, 1800))
    failing = (await person.get(path)).json()["steps"][0]
    assert (failing["next_try_at"], failing["gives_up_at"]) == (1800, 1900)
    with gate.administrator() as connection:
        connection.execute(fails, (*named, None))
    failed = (await person.get(path)).json()["steps"][0]
    assert (failed["next_try_at"], failed["gives_up_at"]) == (None, None)


async def test_an_operation_says_whether_a_cancel_can_be_asked_for(gate: Gate) -> None:
    person = gate.new_person()
    operation = await gate.new_cluster(person)
    path = f"/v1/operations/{operation['id']}"
    assert (operation["cancellable"], operation["cancel_requested_at"]) == (True, None)
    asked = (await person.post(f"{path}:cancel")).json()
    assert asked["cancellable"] is False
    assert asked["cancel_requested_at"] is not None
    ended = await gate.new_cluster(person)
    await gate.reach_active(person, ended["id"])
    assert (await person.get(f"/v1/operations/{ended['id']}")).json()["cancellable"] is False


async def workflow_events(gate: Gate, workflow_id: str) -> list[str]:
    client = await gate.clients.temporal.client()
    handle = client.get_workflow_handle(workflow_id)
    history = await handle.fetch_history()
    return [event["eventType"] for event in history.to_json_dict()["events"]]


async def test_an_operation_that_has_ended_or_only_goes_forward_cannot_be_cancelled(
    gate: Gate,
) -> None:
    person = gate.new_person()
    ended, forward = await gate.new_cluster(person), await gate.new_cluster(person)
    await gate.reach_active(person, ended["id"])
    with gate.administrator() as connection:
        connection.execute(
            "UPDATE operations SET cancellable = false WHERE id = %s", (forward["id"],)
        )
    for operation in (ended, forward):
        answer = await person.post(f"/v1/operations/{operation['id']}:cancel")
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["metadata"]["reason"] == "FAILED_PRECONDITION"


async def test_pages_show_everything_once_newest_first_while_more_is_added(gate: Gate) -> None:
    person = gate.new_person()
    region = await gate.new_region(person)
    made = [(await gate.new_cluster(person, region))["id"] for _ in range(7)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await person.get("/v1/operations", params={"limit": "3", **cursor})
        page = answer.json()
        seen += [operation["id"] for operation in page["data"]]
        assert page["has_more"] == (page["next_cursor"] is not None)
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
        await gate.new_cluster(person, region)
    assert seen == list(reversed(made))


async def test_operations_are_filtered_by_their_owner(gate: Gate) -> None:
    person = gate.new_person()
    first, second = await gate.new_cluster(person), await gate.new_cluster(person)
    owned = {"owner_type": "cluster", "owner_id": second["owner_id"]}
    found = (await person.get("/v1/operations", params=owned)).json()["data"]
    assert [operation["id"] for operation in found] == [second["id"]]
    assert first["id"] != second["id"]
    unborn = {"owner_type": "repository", "owner_id": "repo_1"}
    assert (await person.get("/v1/operations", params=unborn)).json()["data"] == []


async def test_bookkeeping_steps_are_hidden(gate: Gate) -> None:
    person = gate.new_person()
    operation = await gate.new_cluster(person)
    with gate.administrator() as connection:
        connection.execute(
            "INSERT INTO operation_steps (workspace_id, operation_id, name, position, status,"
            " attempt, retryable) VALUES (%s, %s, 'record_active', 99, 'pending', 0, false)",
            (person.workspace, operation["id"]),
        )
    steps = (await person.get(f"/v1/operations/{operation['id']}")).json()["steps"]
    assert [step["name"] for step in steps] == [
        "ensure_secret_space",
        "ensure_authorities",
        "ensure_credentials",
        "start_components",
        "wait_until_ready",
    ]
