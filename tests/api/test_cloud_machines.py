"""Machines in clouds: what is checked before they are planned, and what may be asked of them."""

import asyncio

import pytest

from domain.caller import Role
from domain.errors import BulkheadError, Reason
from domain.operation import OperationState
from infra.database.records.compute import ComputeRecords
from infra.database.records.endings import OperationRecords
from infra.database.records.operation import cluster_operation_of, machine_operation_of
from tests.api.compute import Compute, new_compute
from tests.api.gate import GIBIBYTE, JSON, Gate, a_key
from tests.api.keeper import error_of, ok
from tests.api.own_server import new_machine

NOBODY = "0" * 32


@pytest.fixture(scope="module")
async def compute(gate: Gate) -> Compute:
    made = await new_compute(gate)
    await set_limit(made, 100)
    return made


async def set_limit(compute: Compute, most: int) -> None:
    path = f"/v1/clusters/{compute.cluster['id']}/compute_settings"
    etag = {"if-match": ok(await compute.person.get(path))["etag"]}
    ok(await compute.person.call("PATCH", path, json={"max_machines": most}, headers=etag))


async def operation_of(compute: Compute, operation: JSON) -> JSON:
    return ok(await compute.person.get(f"/v1/operations/{operation['id']}"))


async def test_a_machine_is_planned_and_its_workflow_started(compute: Compute) -> None:
    key = {"idempotency-key": a_key()}
    body = compute.body(name="web", fallbacks=[{"region": "nbg1"}, {"instance_type": "cx32"}])
    asked = ok(await compute.person.post("/v1/machines", body, headers=key), 202)
    assert ok(await compute.person.post("/v1/machines", body, headers=key), 202) == asked
    metadata = asked["metadata"]
    assert (metadata["type"], metadata["managed"]) == ("machine.create", False)
    assert metadata["compute_config_id"] == compute.config["id"]
    assert (metadata["cluster_id"], metadata["instance_type"]) == (compute.cluster["id"], "cpx22")
    assert await compute.gate.workflow(asked) is not None
    machine = await compute.machine(asked["owner_id"])
    assert (machine["state"], machine["kind"], machine["name"]) == ("PROVISIONING", "cloud", "web")
    assert (machine["provider_id"], "stage" in machine) == ("", False)
    assert machine["provider_resource"] == {"identity_kind": "recyclable", "public_ip": None}
    assert machine["choices"] == [
        {"region": "fsn1", "instance_type": "cpx22"},
        {"region": "nbg1", "instance_type": "cpx22"},
        {"region": "fsn1", "instance_type": "cx32"},
    ]
    steps = [step["name"] for step in (await operation_of(compute, asked))["steps"]]
    assert steps[:3] == ["check_credential", "ensure_network", "create_server"]
    audited = compute.gate.audit(compute.person.workspace)
    assert ("machine.create", machine["id"]) in [(action, about) for action, _, about in audited]


async def test_several_machines_are_a_pool(compute: Compute) -> None:
    asked = ok(await compute.ask(count=3, name="pool"), 202)
    metadata = asked["metadata"]
    assert (metadata["type"], metadata["count"]) == ("machine_pool.create", 3)
    assert (asked["owner_type"], asked["owner_id"]) == ("cluster", compute.cluster["id"])
    machines = [await compute.machine(each) for each in metadata["machine_ids"]]
    assert [machine["name"] for machine in machines] == ["pool-1", "pool-2", "pool-3"]
    assert {machine["pool_id"] for machine in machines} == {metadata["pool_id"]}
    assert await compute.gate.workflow(asked) is not None


async def test_requests_at_the_same_time_do_not_exceed_the_limit(gate: Gate) -> None:
    compute = await new_compute(gate)
    own = await gate.new_cluster_with_authorities(compute.person)
    await new_machine(gate, compute.person, own)
    here = Compute(gate, compute.keeper, compute.secret, compute.config, own)
    await set_limit(here, 3)
    answers = await asyncio.gather(*(here.ask(count=count) for count in (1, 1, 2, 2, 1)))
    made = [answer.status_code for answer in answers].count(202)
    refused = [error_of(each, 403, "QUOTA_EXCEEDED") for each in answers if each.is_error]
    assert refused
    # A server of one's own is not one of them.
    settings = ok(await compute.person.get(f"/v1/clusters/{own['id']}/compute_settings"))
    assert (settings["machines"], settings["max_machines"]) == (3, 3)
    assert made + len(refused) == 5
    assert gate.count("machines", compute.person.workspace) == 4


async def test_machines_are_where_the_workspace_allows_them(gate: Gate) -> None:
    compute = await new_compute(
        gate, provider_config={"region": "fsn1", "image": "debian-12", "fallbacks": ["hel1"]}
    )
    path = f"/v1/workspaces/{compute.person.workspace}/compute_policy"
    policy = ok(await compute.person.get(path))
    assert policy["allowed_places"] == []
    machine = await compute.ready_machine()

    async def allow(*places: str) -> None:
        etag = {"if-match": ok(await compute.person.get(path))["etag"]}
        body = {"allowed_places": list(places)}
        ok(await compute.person.call("PATCH", path, json=body, headers=etag))

    await allow("hcloud/nbg1", "hcloud/fsn1")
    error = error_of(await compute.ask(), 403, "PERMISSION_DENIED")
    assert error["metadata"]["places"] == "hcloud/hel1"
    ok(await compute.ask(fallbacks=[]), 202)
    error_of(await compute.ask(fallbacks=[{"region": "ash"}]), 403)
    await allow("hcloud/nbg1")
    error_of(await compute.call(machine, "suspend"), 403, "PERMISSION_DENIED")
    await allow()
    ok(await compute.call(machine, "suspend"), 202)
    # A list that was there before does not stand for what is there now.
    change = {"allowed_places": ["hcloud/fsn1"]}
    stale = {"if-match": "1"}
    error_of(await compute.person.call("PATCH", path, json=change, headers=stale), 409, "ABORTED")
    admin = gate.new_person(compute.person.workspace, Role.ADMIN)
    etag = {"if-match": policy["etag"]}
    error_of(await admin.call("PATCH", path, json=change, headers=etag), 403)


async def test_what_cannot_be_made_is_refused_and_nothing_written(gate: Gate) -> None:
    compute = await new_compute(
        gate,
        provider_config={"region": "fsn1", "image": "i", "machine_type_filter": "cpx*, ccx*"},
    )
    pending = await gate.new_cluster(compute.person)
    for more, status, reason in (
        ({"cluster_id": f"clu_{NOBODY}"}, 404, "NOT_FOUND"),
        ({"cluster_id": pending["owner_id"]}, 409, "FAILED_PRECONDITION"),
        ({"compute_config_id": f"cmp_{NOBODY}"}, 404, "NOT_FOUND"),
        ({"instance_type": "cx32"}, 422, "INVALID_ARGUMENT"),
        ({"instance_type": ""}, 422, "INVALID_ARGUMENT"),
        ({"fallbacks": [{}]}, 422, "INVALID_ARGUMENT"),
        ({"fallbacks": [{"instance_type": "cx32"}]}, 422, "INVALID_ARGUMENT"),
        ({"count": 0}, 422, "INVALID_ARGUMENT"),
        ({"count": 21}, 422, "INVALID_ARGUMENT"),
        ({"count": 11}, 403, "QUOTA_EXCEEDED"),
        ({"count": 2, "name": "n" * 119}, 422, "INVALID_ARGUMENT"),
        ({"node_claim": {"spec": {}}}, 422, "INVALID_ARGUMENT"),
    ):
        error_of(await compute.ask(**more), status, reason)
    member = gate.new_person(compute.person.workspace, Role.MEMBER)
    error_of(await member.post("/v1/machines", compute.body()), 403, "PERMISSION_DENIED")
    workspace = compute.person.workspace
    assert (gate.count("machines", workspace), gate.count("machine_pools", workspace)) == (0, 0)


@pytest.fixture
async def asleep(gate: Gate) -> Compute:
    """Return a workspace with a suspended cluster."""
    made = await new_compute(gate)
    suspend_cluster(made)
    return made


def suspend_cluster(compute: Compute) -> None:
    """Have the cluster as a worker would leave it."""
    cluster = compute.cluster["id"]
    compute.run("UPDATE clusters SET state = 'suspended' WHERE id = %s", cluster)
    compute.run("UPDATE control_plane_slots SET memory_bytes = 0 WHERE cluster_id = %s", cluster)


async def resumption_of(compute: Compute) -> JSON:
    """Return the one operation that resumes the cluster, which runs."""
    owner = {"owner_type": "cluster", "owner_id": compute.cluster["id"]}
    listed = ok(await compute.person.get("/v1/operations", params=owner))["data"]
    resuming: JSON
    (resuming,) = [
        one for one in listed if one["metadata"]["type"] == "cluster.resume" and not one["done"]
    ]
    return resuming


async def test_a_suspended_cluster_is_resumed_for_a_machine(asleep: Compute) -> None:
    asked = ok(await asleep.ask(), 202)
    resuming = await resumption_of(asleep)
    assert await asleep.gate.workflow(resuming) is not None
    assert await asleep.gate.workflow(asked) is not None
    cluster = ok(await asleep.person.get(f"/v1/clusters/{asleep.cluster['id']}"))
    assert (cluster["state"], cluster["reconciling"]) == ("suspended", True)
    actions = [action for action, _, _ in asleep.gate.audit(asleep.person.workspace)]
    assert actions[-2:] == ["cluster.resume", "machine.create"]
    # The next machine, or pool, waits for the same operation.
    ok(await asleep.ask(count=2), 202)
    assert await resumption_of(asleep) == resuming


async def test_a_machine_waits_for_its_cluster_and_for_nothing_when_it_is_there(
    asleep: Compute,
) -> None:
    asked = await asleep.gate.operation(asleep.person, ok(await asleep.ask(), 202)["id"])
    resuming = await resumption_of(asleep)
    records, machine = ComputeRecords(asleep.gate.worker_database), machine_operation_of(asked)
    assert await records.resumption_of(machine) == resuming["id"]
    await asleep.gate.reach_active(asleep.person, resuming["id"])
    assert await records.resumption_of(machine) is None


async def test_a_machine_whose_cluster_is_not_resumed_is_told_why(asleep: Compute) -> None:
    asked = await asleep.gate.operation(asleep.person, ok(await asleep.ask(), 202)["id"])
    resuming = await asleep.gate.operation(asleep.person, (await resumption_of(asleep))["id"])
    worker = asleep.gate.worker_database
    await OperationRecords(worker).end_undone(
        cluster_operation_of(resuming),
        OperationState.FAILED,
        Reason.DEADLINE_EXCEEDED,
        "etcd does not start.",
    )
    with pytest.raises(BulkheadError, match="etcd does not start") as refused:
        await ComputeRecords(worker).resumption_of(machine_operation_of(asked))
    assert (refused.value.reason, refused.value.retryable) == (Reason.FAILED_PRECONDITION, False)


async def test_without_room_for_its_cluster_a_machine_is_not_made(asleep: Compute) -> None:
    asleep.gate.set_host_memory(0)
    before = asleep.gate.count("operations", asleep.person.workspace)
    try:
        error_of(await asleep.ask(), 503, "CAPACITY_UNAVAILABLE")
    finally:
        asleep.gate.set_host_memory(1000 * GIBIBYTE)
    assert asleep.gate.count("machines", asleep.person.workspace) == 0
    assert asleep.gate.count("operations", asleep.person.workspace) == before


async def test_what_is_wrong_with_a_machine_leaves_its_cluster_suspended(asleep: Compute) -> None:
    error_of(await asleep.ask(count=11), 403, "QUOTA_EXCEEDED")
    cluster = ok(await asleep.person.get(f"/v1/clusters/{asleep.cluster['id']}"))
    assert (cluster["state"], cluster["reconciling"]) == ("suspended", False)


async def test_a_suspended_cluster_is_resumed_with_its_machine(gate: Gate) -> None:
    compute = await new_compute(gate)
    machine = await compute.ready_machine()
    ok(await compute.call(machine, "suspend"), 202)
    compute.set_machine(machine, "state = 'SUSPENDED', active_operation_id = NULL")
    compute.run(
        "UPDATE suspension_events SET state = 'completed', snapshot_id = '77'"
        " WHERE machine_id = %s",
        machine["id"],
    )
    suspend_cluster(compute)
    asked = ok(await compute.call(machine, "resume"), 202)
    assert asked["metadata"]["type"] == "machine.resume"
    assert await gate.workflow(await resumption_of(compute)) is not None


@pytest.mark.parametrize("unknown", [NOBODY, "nonsense"])
async def test_an_unknown_id_is_named_where_it_stands(compute: Compute, unknown: str) -> None:
    config = await compute.ask(compute_config_id=f"cfcon_{unknown}")
    assert error_of(config, 404, "NOT_FOUND")["path"] == ["body", "compute_config_id"]
    cluster = await compute.ask(cluster_id=f"clu_{unknown}")
    assert error_of(cluster, 404, "NOT_FOUND")["path"] == ["body", "cluster_id"]
    for name in ("cluster_id", "secret_id"):
        params = {name: f"{'clu' if name == 'cluster_id' else 'sec'}_{unknown}"}
        quotas = await compute.person.get("/v1/quotas", params=params)
        assert error_of(quotas, 404, "NOT_FOUND")["path"] == ["query", name]


async def test_a_machine_is_suspended_and_resumed(compute: Compute) -> None:
    machine = await compute.ready_machine()
    assert (machine["provider_id"], machine["place"]) == ("compute://hcloud/42", "fsn1")
    assert machine["provider_resource"]["public_ip"] == "5.6.7.8"
    error_of(await compute.call(machine, "resume"), 409, "FAILED_PRECONDITION")
    asked = ok(await compute.call(machine, "suspend", {"reason": "downgrade"}), 202)
    assert asked["metadata"]["type"] == "machine.suspend"
    assert await compute.gate.workflow(asked) is not None
    assert (await compute.machine(machine["id"]))["state"] == "SUSPENDING"
    for verb in ("suspend", "resume", "replace", "cordon"):
        error_of(await compute.call(machine, verb), 409, "CONFLICT")
    events = f"/v1/machines/{machine['id']}/suspension_events"
    [event] = ok(await compute.person.get(events, params={"reason": "downgrade"}))["data"]
    assert (event["state"], event["snapshot_ref"]["snapshot_id"]) == ("in_progress", 0)
    assert ok(await compute.person.get(events, params={"reason": "manual"}))["data"] == []
    assert ok(await compute.person.get(f"{events}/{event['id']}")) == event
    error_of(await compute.person.get(f"{events}/sus_{NOBODY}"), 404)

    compute.set_machine(machine, "state = 'SUSPENDED', active_operation_id = NULL")
    compute.run(
        "UPDATE suspension_events SET state = 'completed', snapshot_id = '77', size_gb = 3.5,"
        " monthly_cost_cents = 30, started_at = now() - interval '10 days' WHERE id = %s",
        event["id"],
    )
    shown = (await compute.machine(machine["id"]))["current_suspension"]
    assert (shown["event_id"], shown["reason"]) == (event["id"], "downgrade")
    snapshot = {"provider": "hcloud", "snapshot_id": 77, "size_gb": 3.5, "id": "77"}
    assert shown["snapshot_ref"] == snapshot
    cost = ok(await compute.person.get(f"{events}/{event['id']}"))["total_cost_cents"]
    assert cost in {10, 11}
    asked = ok(await compute.call(machine, "resume"), 202)
    assert asked["metadata"]["type"] == "machine.resume"
    assert (await compute.machine(machine["id"]))["state"] == "RESUMING"


@pytest.mark.parametrize("state", ["PROVISIONING", "SUSPENDED", "ACTIVE"])
async def test_a_machine_is_deleted_whatever_it_does(compute: Compute, state: str) -> None:
    machine = await compute.new_machine()
    if state != "PROVISIONING":
        compute.set_machine(machine, f"state = '{state}', active_operation_id = NULL")
    asked = ok(await compute.call(machine, "DELETE"), 202)
    assert (await compute.machine(machine["id"]))["state"] == "DELETING"
    steps = [step["name"] for step in (await operation_of(compute, asked))["steps"]]
    assert {"remove_server", "take_inventory"} <= set(steps)
    assert ("await_predecessor" in steps) == (state == "PROVISIONING")


async def test_a_machine_is_replaced_by_an_operation(compute: Compute) -> None:
    machine = await compute.ready_machine()
    asked = ok(await compute.call(machine, "replace"), 202)
    assert asked["metadata"]["type"] == "machine.replace"
    assert await compute.gate.workflow(asked) is not None
    compute.set_machine(machine, "state = 'SUSPENDED', active_operation_id = NULL")
    error_of(await compute.call(machine, "replace"), 409, "FAILED_PRECONDITION")


async def test_a_cluster_begins_with_machines(gate: Gate, compute: Compute) -> None:
    person = compute.person
    shape = compute.body(count=2, name="first")
    del shape["cluster_id"]
    body = {"name": "with machines", "region_id": await gate.new_region(person)}
    before = gate.count("clusters", person.workspace)
    for machines, status in (
        ([shape | {"compute_config_id": f"cmp_{NOBODY}"}], 404),
        ([shape | {"count": 6}, shape | {"count": 5}], 403),
        ([shape | {"fallbacks": [{}]}], 422),
    ):
        error_of(await person.post("/v1/clusters", {**body, "machines": machines}), status)
    assert gate.count("clusters", person.workspace) == before
    asked = ok(await person.post("/v1/clusters", {**body, "machines": [shape, shape]}), 202)
    steps = [step["name"] for step in (await operation_of(compute, asked))["steps"]]
    assert steps[-1] == "create_machines"
    path = f"/v1/clusters/{asked['owner_id']}"
    listed = ok(await person.get("/v1/machines", params={"cluster_id": asked["owner_id"]}))["data"]
    assert [machine["state"] for machine in listed] == ["PROVISIONING"] * 4
    etag = {"if-match": ok(await person.get(path))["etag"]}
    error = error_of(await person.call("DELETE", path, headers=etag), 409)
    assert f"{asked['id']}:cancel" in error["message"]


async def test_a_workspace_has_no_more_machines_than_its_quota(gate: Gate) -> None:
    compute = await new_compute(gate)
    person = compute.person
    await compute.new_machine()
    gate.set_quota(person.workspace, "compute/machines", 3)
    shape = compute.body(count=3)
    error_of(await person.post("/v1/machines", shape), 403, "QUOTA_EXCEEDED")
    del shape["cluster_id"]
    first = {"name": "more", "region_id": await gate.new_region(person), "machines": [shape]}
    error_of(await person.post("/v1/clusters", first), 403, "QUOTA_EXCEEDED")
    asked = await asyncio.gather(*(compute.ask() for _ in range(4)))
    assert sorted(answer.status_code for answer in asked) == [202, 202, 403, 403]
    quota = ok(await person.get("/v1/quotas/compute%2Fmachines"))
    assert (quota["usage"], quota["remaining"]) == (3, 0)


@pytest.mark.parametrize("change", ["add", "enable", "current", "pin"])
async def test_who_waits_for_a_credential_is_told_of_another(gate: Gate, change: str) -> None:
    compute = await new_compute(gate)
    keeper, secret = compute.keeper, compute.secret
    newer = await keeper.add(secret)
    asked = ok(await compute.ask(), 202)
    compute.run("UPDATE operations SET waiting_for = 'credential' WHERE id = %s", asked["id"])
    match change:
        case "add":
            await keeper.add(secret)
        case "enable":
            ok(await keeper.switch(newer, "enable"))
        case "current":
            ok(await keeper.patch(secret, {"version_aliases": {"current": 2}}))
        case _:
            scope = {"kind": "byom", "secret_id": secret["id"], "secret_version_id": newer["id"]}
            path = f"/v1/compute_configs/{compute.config['id']}"
            etag = {"if-match": compute.config["etag"]}
            body = {"credential_scope": scope}
            ok(await compute.person.call("PATCH", path, json=body, headers=etag))
    client = await gate.clients.temporal.client()
    found = await gate.workflow(asked)
    assert found is not None
    history = await client.get_workflow_handle(found.id).fetch_history()
    signals = [
        event.workflow_execution_signaled_event_attributes.signal_name
        for event in history.events
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    assert signals == ["credential_changed"]
