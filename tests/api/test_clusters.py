import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.api.gate import GIBIBYTE, JSON, Gate, Person
from tests.api.installs import Customer, new_customer
from tests.api.keeper import error_of, ok


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["errors"][0]["metadata"]["reason"]


async def verb(
    person: Person, cluster: JSON, name: str, *, etag: str | None = None
) -> httpx.Response:
    path = f"/v1/clusters/{cluster['id']}"
    headers = {"if-match": etag or (await person.get(path)).json()["etag"]}
    if name == "delete":
        return await person.call("DELETE", path, headers=headers)
    return await person.post(f"{path}:{name}", headers=headers)


async def test_a_create_writes_its_rows_and_starts_its_workflow(gate: Gate) -> None:
    person = gate.new_person()
    operation = await gate.new_cluster(person)
    row = await gate.operation(person, operation["id"])
    assert row.caller["principal_id"] == person.user_id
    assert row.request["name"] == "test"
    workflow = await gate.workflow(operation)
    assert workflow is not None
    assert workflow.workflow_type == "CreateCluster"
    assert operation["html_url"].startswith(gate.servers.temporal_ui)
    actions = [(action, resource) for action, _, resource in gate.audit(person.workspace)]
    assert ("cluster.create", operation["owner_id"]) in actions


async def test_an_etag_that_is_not_the_current_one_is_refused_with_the_current_one(
    gate: Gate,
) -> None:
    person = gate.new_person()
    cluster = await gate.new_active_cluster(person)
    path = f"/v1/clusters/{cluster['id']}"
    old = {"if-match": cluster["etag"]}
    renamed = await person.call("PATCH", path, json={"name": "new"}, headers=old)
    current = renamed.json()["etag"]
    for answer in (
        await person.call("PATCH", path, json={"name": "newer"}, headers=old),
        await verb(person, cluster, "suspend", etag=cluster["etag"]),
        await verb(person, cluster, "delete", etag='"0"'),
        await verb(person, cluster, "resume", etag="*"),
    ):
        assert refusal(answer) == (409, "ABORTED")
        assert answer.json()["errors"][0]["metadata"]["etag"] == current
    quoted = await person.call(
        "PATCH", path, json={"name": "newest"}, headers={"if-match": f'"{current}"'}
    )
    assert quoted.json()["name"] == "newest"


async def test_a_patch_that_changes_nothing_keeps_the_etag(gate: Gate) -> None:
    person = gate.new_person()
    cluster = await gate.new_active_cluster(person)
    path = f"/v1/clusters/{cluster['id']}"
    bodies: list[JSON] = [{}, {"name": "test", "provider": "managed_kaas"}]
    for body in bodies:
        headers = {"if-match": cluster["etag"]}
        answer = await person.call("PATCH", path, json=body, headers=headers)
        assert answer.json() == cluster
    region = await gate.new_region(person)
    answer = await person.call("PATCH", path, json={"region_id": region}, headers=headers)
    assert answer.json()["region_id"] == region


@pytest.mark.parametrize("change", [{"provider": "imported_byoc"}, {"kubeconfig": "canary"}])
async def test_a_cluster_cannot_become_an_imported_one(gate: Gate, change: JSON) -> None:
    person = gate.new_person()
    cluster = await gate.new_active_cluster(person)
    answer = await person.call(
        "PATCH",
        f"/v1/clusters/{cluster['id']}",
        json=change,
        headers={"if-match": cluster["etag"], "idempotency-key": "k"},
    )
    assert refusal(answer) == (409, "FAILED_PRECONDITION")
    assert "canary" not in answer.text


async def test_each_verb_needs_its_state_and_an_idle_cluster(gate: Gate) -> None:
    person = gate.new_person()
    created = await gate.new_cluster(person)
    cluster = {"id": created["owner_id"]}
    busy = await verb(person, cluster, "suspend")
    assert refusal(busy) == (409, "CONFLICT")
    assert busy.json()["errors"][0]["metadata"]["operation_id"] == created["id"]
    await gate.reach_active(person, created["id"])
    assert refusal(await verb(person, cluster, "resume")) == (409, "FAILED_PRECONDITION")
    suspending = (await verb(person, cluster, "suspend")).json()
    assert refusal(await verb(person, cluster, "suspend")) == (409, "CONFLICT")
    await gate.reach_suspended(person, suspending["id"])
    assert refusal(await verb(person, cluster, "suspend")) == (409, "FAILED_PRECONDITION")
    assert (await verb(person, cluster, "resume")).status_code == 202


async def test_a_delete_takes_the_lock_over_and_asks_the_other_operation_to_stop(
    gate: Gate,
) -> None:
    person = gate.new_person()
    created = await gate.new_cluster(person)
    cluster = {"id": created["owner_id"]}
    deleting = await verb(person, cluster, "delete")
    assert deleting.status_code == 202
    predecessor = await gate.operation(person, created["id"])
    assert predecessor.cancel_requested_at is not None
    delete = await gate.operation(person, deleting.json()["id"])
    assert delete.predecessor_operation_id == created["id"]
    for asked, kind in ((created, "CreateCluster"), (deleting.json(), "DeleteCluster")):
        workflow = await gate.workflow(asked)
        assert workflow is not None
        assert workflow.workflow_type == kind
    seen = (await person.get(f"/v1/clusters/{cluster['id']}")).json()
    assert (seen["state"], seen["reconciling"]) == ("deleting", True)
    again = await verb(person, cluster, "delete")
    assert refusal(again) == (409, "CONFLICT")
    assert again.json()["errors"][0]["metadata"]["operation_id"] == deleting.json()["id"]
    renamed = await person.call(
        "PATCH",
        f"/v1/clusters/{cluster['id']}",
        json={"name": "x"},
        headers={"if-match": seen["etag"]},
    )
    assert refusal(renamed) == (409, "FAILED_PRECONDITION")


async def test_a_delete_leaves_alone_what_can_only_go_forward(gate: Gate) -> None:
    person = gate.new_person()
    created = await gate.new_cluster(person)
    with gate.administrator() as connection:
        connection.execute(
            "UPDATE operations SET cancellable = false WHERE id = %s", (created["id"],)
        )
    deleting = await verb(person, {"id": created["owner_id"]}, "delete")
    assert deleting.status_code == 202
    assert (await gate.operation(person, created["id"])).cancel_requested_at is None


@pytest.mark.parametrize("ask", [Customer.new, Customer.new_deployed])
async def test_a_cluster_that_has_an_install_is_not_deleted(
    gate: Gate, ask: Callable[..., Awaitable[JSON]]
) -> None:
    customer = await new_customer(gate)
    install = await ask(customer, cluster_id=customer.cluster["id"])
    error = error_of(
        await verb(customer.person, customer.cluster, "delete"), 409, "FAILED_PRECONDITION"
    )
    assert install["id"] in error["message"]
    assert error["metadata"]["install_ids"] == install["id"]
    cluster = ok(await customer.person.get(f"/v1/clusters/{customer.cluster['id']}"))
    assert (cluster["state"], cluster["reconciling"]) == ("active", False)
    assert (await customer.get(install["id"]))["state"] == install["state"]


async def test_a_cluster_without_an_answer_goes_by_force_with_its_installs(gate: Gate) -> None:
    customer = await new_customer(gate)
    await customer.new_deployed(cluster_id=customer.cluster["id"])
    path, etag = f"/v1/clusters/{customer.cluster['id']}", customer.cluster["etag"]
    forced = await customer.person.call("DELETE", f"{path}?force=true", headers={"if-match": etag})
    assert ok(forced, 202)["metadata"]["type"] == "cluster.delete"
    events = ok(await customer.person.get("/v1/audit_events"))["data"]
    (event,) = [event for event in events if event["action"] == "cluster.delete"]
    assert event["details"]["force"] is True
    again = await verb(customer.person, customer.cluster, "delete")
    assert refusal(again) == (409, "CONFLICT")


async def test_of_two_verbs_at_once_one_wins(gate: Gate) -> None:
    person = gate.new_person()
    cluster = await gate.new_active_cluster(person)
    answers = await asyncio.gather(
        *(verb(person, cluster, "suspend", etag=cluster["etag"]) for _ in range(6))
    )
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 5


async def test_windows_workers_are_refused(gate: Gate) -> None:
    person = gate.new_person()
    body = {
        "name": "x",
        "region_id": await gate.new_region(person),
        "network_profile": "mixed_os_calico",
    }
    assert refusal(await person.post("/v1/clusters", body)) == (403, "PERMISSION_DENIED")
    assert gate.count("clusters", person.workspace) == 0


async def test_the_quota_holds_although_everything_comes_at_once(gate: Gate) -> None:
    person = gate.new_person()
    gate.set_quota(person.workspace, "compute/clusters", 2)
    body = {"name": "x", "region_id": await gate.new_region(person)}
    answers = await asyncio.gather(*(person.post("/v1/clusters", body) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [202, 202] + [403] * 4
    refused = next(answer for answer in answers if answer.status_code == 403)
    assert refusal(refused) == (403, "QUOTA_EXCEEDED")
    assert refused.json()["errors"][0]["metadata"]["limit"] == "2"
    assert gate.count("clusters", person.workspace) == 2
    assert gate.count("control_plane_slots", person.workspace) == 2


@pytest.fixture
def full_host(gate: Gate) -> Any:  # noqa: ANN401 - a generator
    gate.set_host_memory(0)
    yield
    gate.set_host_memory(1000 * GIBIBYTE)


async def test_what_no_host_has_room_for_is_refused_and_leaves_nothing(
    gate: Gate, full_host: None
) -> None:
    del full_host
    person = gate.new_person()
    region = await gate.new_region(person)
    answer = await person.post("/v1/clusters", {"name": "x", "region_id": region})
    assert refusal(answer) == (503, "CAPACITY_UNAVAILABLE")
    assert int(answer.headers["retry-after"]) > 0
    for table in ("clusters", "operations", "control_plane_slots"):
        assert gate.count(table, person.workspace) == 0, table


async def test_a_resume_without_room_leaves_the_cluster_suspended(gate: Gate) -> None:
    person = gate.new_person()
    cluster = await gate.new_active_cluster(person)
    suspending = (await verb(person, cluster, "suspend")).json()
    await gate.reach_suspended(person, suspending["id"])
    gate.set_host_memory(0)
    try:
        assert refusal(await verb(person, cluster, "resume")) == (503, "CAPACITY_UNAVAILABLE")
    finally:
        gate.set_host_memory(1000 * GIBIBYTE)
    seen = (await person.get(f"/v1/clusters/{cluster['id']}")).json()
    assert (seen["state"], seen["reconciling"]) == ("suspended", False)
