"""Installs: asked for, moved, held, approved and deleted, with what each refuses."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from domain.caller import Role
from domain.identifiers import Prefix, new_id
from domain.operation import OperationState
from tests.api import contract
from tests.api.catalog import new_package
from tests.api.gate import JSON, Gate, a_key
from tests.api.installs import (
    CHART,
    PLAN_DIGEST,
    RENDER_HASH,
    Customer,
    new_customer,
    objects,
)
from tests.api.keeper import Keeper, error_of, new_keeper, ok


@pytest.fixture(scope="module")
async def customer(gate: Gate) -> Customer:
    return await new_customer(gate)


@pytest.fixture(scope="module")
async def keeper(gate: Gate, customer: Customer) -> Keeper:
    return await new_keeper(gate, customer.person)


async def test_without_a_key_an_operation_shows_the_requests_id_as_one(customer: Customer) -> None:
    asked = await customer.ask(cluster_id=customer.cluster["id"])
    assert ok(asked, 202)["metadata"]["idempotency_key"] == asked.headers["x-request-id"]


async def test_a_product_is_installed_on_a_cluster_of_the_region(customer: Customer) -> None:
    key = {"idempotency-key": a_key()}
    body = {
        "product_id": customer.product["id"],
        "region_id": customer.cluster["region_id"],
        "initial_values": {"replicas": 2},
        "labels": {"tier": "gold"},
    }
    operation = ok(await customer.person.post("/v1/installs", body, headers=key), 202)
    assert ok(await customer.person.post("/v1/installs", body, headers=key), 202) == operation
    metadata = operation["metadata"]
    assert (metadata["type"], metadata["product_id"]) == ("install.create", body["product_id"])
    assert metadata["idempotency_key"] == key["idempotency-key"]
    assert await customer.gate.workflow(operation) is not None
    install = await customer.get(operation["owner_id"])
    assert contract.differences(install, contract.INSTALL, *contract.INSTALL_OPTIONAL) == []
    assert install["cluster_id"] == customer.cluster["id"]
    assert install["package_version_id"] == customer.versions["1.0.0"]
    assert (install["state"], install["reconciling"]) == ("pending", True)
    assert (install["values"], install["labels"]) == ({"replicas": 2}, {"tier": "gold"})
    await customer.deploy(install)
    ended = ok(await customer.person.get(f"/v1/operations/{operation['id']}"))
    space = f"inst-{install['id'].removeprefix('inst_')}"
    assert ended["response"]["argo_app_name"] == space
    assert ended["response"]["argo_app_namespace"] == space
    assert (await customer.get(install["id"]))["state"] == "healthy"


async def test_a_package_of_ones_own_is_installed_at_its_pin(gate: Gate) -> None:
    customer = await new_customer(gate, own=True)
    package_id = customer.product["package"]["id"]
    body = {"package_id": package_id, "region_id": customer.cluster["region_id"]}

    async def ask(**pin: str) -> Any:  # noqa: ANN401 - an answer
        wanted = {**body, "package_version_pin": pin}
        return await customer.person.post("/v1/installs", wanted)

    latest = ok(await ask(kind="latest"), 202)
    pinned = ok(await ask(kind="pinned", version="1.0.0"), 202)
    found = await customer.get(latest["owner_id"])
    assert (found["package_version_id"], found["pinned_semver"]) == (
        customer.versions["1.1.0"],
        None,
    )
    found = await customer.get(pinned["owner_id"])
    assert (found["package_version_id"], found["pinned_semver"]) == (
        customer.versions["1.0.0"],
        "1.0.0",
    )
    error_of(await ask(kind="pinned", version="9.0.0"), 404, "NOT_FOUND")
    error_of(await ask(kind="pinned"), 422, "INVALID_ARGUMENT")
    error_of(await customer.person.post("/v1/installs", body), 422, "INVALID_ARGUMENT")
    other = await new_package(gate, gate.new_person())
    body["package_id"] = other
    error = error_of(await ask(kind="latest"), 404, "NOT_FOUND")
    assert error["path"] == ["body", "package_id"]


@pytest.mark.parametrize(
    ("more", "status", "field"),
    [
        ({"product_id": new_id(Prefix.PRODUCT)}, 404, "product_id"),
        ({"product_id": "x"}, 404, "product_id"),
        ({"region_id": new_id(Prefix.REGION)}, 404, "region_id"),
        ({"cluster_id": new_id(Prefix.CLUSTER)}, 404, "cluster_id"),
        ({"package_id": new_id(Prefix.PACKAGE)}, 422, "package_id"),
        ({"labels": {"": "x"}}, 422, "labels"),
        ({"initial_values": {"replicas": "\x00"}}, 422, "initial_values"),
    ],
)
async def test_what_does_not_exist_is_named_by_its_path(
    customer: Customer, more: JSON, status: int, field: str
) -> None:
    error = error_of(await customer.ask(**more), status)
    assert error["path"][:2] == ["body", field]


async def test_values_that_the_schema_refuses_are_named_by_their_path_and_not_quoted(
    customer: Customer,
) -> None:
    for values, path in (
        ({"replicas": "my-password"}, ["replicas"]),
        ({"ingress": {"host": 4711}}, ["ingress", "host"]),
        ({"my-password": 1}, []),
    ):
        answer = await customer.ask(initial_values=values)
        error = error_of(answer, 422, "INVALID_ARGUMENT")
        assert error["path"] == ["body", "initial_values", *path]
        assert "my-password" not in answer.text
        assert "4711" not in answer.text


async def test_a_schema_that_is_made_to_take_for_ever_does_not(gate: Gate) -> None:
    again: JSON = {"properties": {"a": {"$ref": "#"}}, "not": {"required": ["z"]}}
    slow = {
        "anyOf": [again, {**again, "title": "the same"}],
        "properties": {"text": {"pattern": "^(a+)+$"}},
    }
    customer = await new_customer(gate, schema=slow)
    values: JSON = {}
    for _ in range(50):
        values = {"a": values, "text": "a" * 60 + "!"}
    begun = time.monotonic()
    answer = await customer.ask(initial_values=values)
    assert time.monotonic() - begun < 5
    assert answer.status_code in {202, 422}


async def test_references_lead_to_readable_versions_of_ones_own_secrets(
    customer: Customer, keeper: Keeper
) -> None:
    secret = await keeper.create("database password")

    async def ask(reference: Any) -> Any:  # noqa: ANN401 - anything
        return await customer.ask(initial_values={"password": {"$secret": reference}})

    install = await customer.get(ok(await ask({"id": secret["id"]}), 202)["owner_id"])
    assert install["values"] == {"password": {"$secret": {"id": secret["id"]}}}
    path = ["body", "initial_values", "password"]
    stranger = await (await new_keeper(customer.gate)).create("theirs")
    for unknown in (new_id(Prefix.SECRET), stranger["id"]):
        assert error_of(await ask({"id": unknown}), 404, "NOT_FOUND")["path"] == path
    wanted = {"id": secret["id"], "alias": "canary"}
    assert error_of(await ask(wanted), 404, "NOT_FOUND")["path"] == path
    for malformed in ("sec", {"id": "sec_1"}, {"id": secret["id"], "key": "/"}, {"name": "x"}):
        error = error_of(await ask(malformed), 422, "INVALID_ARGUMENT")
        assert error["path"][:3] == path
    # Where the schema wants no text, a reference has no place.
    misplaced = {"replicas": {"$secret": {"id": secret["id"]}}}
    answer = await customer.ask(initial_values=misplaced)
    assert error_of(answer, 422)["path"] == ["body", "initial_values", "replicas"]
    assert (await keeper.delete(secret)).status_code == 204
    error_of(await ask({"id": secret["id"]}), 404, "NOT_FOUND")


async def test_nobody_reads_a_secret_by_an_install_who_may_not_read_it_otherwise(
    customer: Customer, keeper: Keeper
) -> None:
    secret = await keeper.create("readable by owners")
    values = {"password": {"$secret": {"id": secret["id"]}}}
    install = await customer.new_deployed(initial_values=values)
    plain = await customer.new_deployed()
    admin = replace(
        customer, person=customer.gate.new_person(customer.person.workspace, Role.ADMIN)
    )
    error_of(await admin.ask(initial_values=values), 403, "PERMISSION_DENIED")
    error_of(await admin.patch(plain, {"values": values}), 403, "PERMISSION_DENIED")
    # What an owner chose, an admin keeps.
    ok(await admin.patch(install, {"values": {**values, "replicas": 2}}))


@pytest.mark.parametrize("alias", ["latest", "staged"])
async def test_nobody_reads_another_version_by_the_alias_of_an_install(
    customer: Customer, keeper: Keeper, alias: str
) -> None:
    secret = await keeper.create(f"with a version at {alias}")
    install = await customer.new_deployed(
        initial_values={"password": {"$secret": {"id": secret["id"]}}}
    )
    await keeper.add(secret, "nobody has it yet")
    ok(await keeper.patch(secret, {"version_aliases": {"staged": 2}}))
    values = {"password": {"$secret": {"id": secret["id"], "alias": alias}}}
    admin = replace(
        customer, person=customer.gate.new_person(customer.person.workspace, Role.ADMIN)
    )
    refused = error_of(await admin.patch(install, {"values": values}), 403, "PERMISSION_DENIED")
    assert refused["metadata"]["required_scope"] == "secrets:access"
    ok(await customer.patch(install, {"values": values}))


async def test_the_cluster_with_the_fewest_installs_that_fits_is_chosen(gate: Gate) -> None:
    needs = {"clusterTypes": ["managed_kaas"], "kubernetes": {"minVersion": "1.30"}}
    customer = await new_customer(gate, compatibility=needs)
    region = customer.cluster["region_id"]
    first = await customer.new()
    other = await gate.new_cluster(customer.person, region)
    error = error_of(await customer.ask(cluster_id=other["owner_id"]), 409, "FAILED_PRECONDITION")
    assert error["metadata"]["state"] == "pending"
    assert (await customer.new())["cluster_id"] == first["cluster_id"]
    await gate.reach_active(customer.person, other["id"])
    assert (await customer.new())["cluster_id"] == other["owner_id"]
    elsewhere = await gate.new_region(customer.person)
    assert error_of(await customer.ask(region_id=elsewhere), 409)["path"] == ["body", "region_id"]
    wrong = {"region_id": elsewhere, "cluster_id": customer.cluster["id"]}
    assert error_of(await customer.ask(**wrong), 422)["path"] == ["body", "cluster_id"]


async def test_a_version_that_does_not_fit_is_refused_with_the_reason(gate: Gate) -> None:
    customer = await new_customer(gate, compatibility={"kubernetes": {"minVersion": "1.99"}})
    for more in ({}, {"cluster_id": customer.cluster["id"]}):
        error = error_of(await customer.ask(**more), 409, "FAILED_PRECONDITION")
        assert "1.99" in error["message"]


async def test_a_workspace_has_no_more_installs_than_its_quota(gate: Gate) -> None:
    customer = await new_customer(gate)
    gate.set_quota(customer.person.workspace, "delivery/installs", 2)
    asked = await asyncio.gather(*(customer.ask() for _ in range(4)))
    assert sorted(answer.status_code for answer in asked) == [202, 202, 403, 403]
    error = error_of(await customer.ask(), 403, "QUOTA_EXCEEDED")
    assert (error["metadata"]["metric"], error["metadata"]["usage"]) == ("delivery/installs", "2")
    assert gate.count("installs", customer.person.workspace) == 2


async def test_an_install_is_moved_to_a_version_and_back(customer: Customer) -> None:
    install = await customer.new_deployed()
    first = install["current_render_id"]
    wanted = {"package_version_id": customer.versions["1.1.0"]}
    error_of(await customer.call(install, ":update", {"package_version_id": "x"}), 404)
    moved = ok(await customer.call(install, ":update", wanted), 202)
    assert contract.differences(moved, contract.INSTALL_LIFECYCLE_MUTATION) == []
    assert moved["install"]["current_version"]["semver"] == "1.0.0"
    assert moved["install"]["desired_version"]["semver"] == "1.1.0"
    assert moved["render"]["state"] == "running"
    error = error_of(await customer.call(install, ":update", wanted), 409, "CONFLICT")
    assert error["metadata"]["operation_id"] == moved["render"]["operation_id"]
    error_of(await customer.patch(install, {"values": {"replicas": 4}}), 409, "CONFLICT")
    await customer.deploy(install, objects(replicas=3))
    found = await customer.get(install["id"])
    assert found["current_version_id"] == customer.versions["1.1.0"]
    ended = ok(await customer.person.get(f"/v1/operations/{moved['render']['operation_id']}"))
    assert ended["response"].items() >= {"skipped": False, "repository_id": install["id"]}.items()
    ok(await customer.patch(install, {"values": {"replicas": 4}}))
    back = ok(await customer.call(install, ":restore", {"render_id": first}), 202)
    assert back["render"]["restored_from_render_id"] == first
    assert back["install"]["desired_version"]["semver"] == "1.0.0"
    running = back["render"]["id"]
    await customer.plan(install)
    path = f"/v1/installs/{install['id']}/renders/{running}"
    diff = ok(await customer.person.get(f"{path}/diff"))
    assert "-  replicas: 3\n+  replicas: 1\n" in diff["diff"]
    assert "Secret" not in diff["diff"]
    whole = ok(await customer.person.get(f"{path}/diff", params={"against": first}))
    assert whole["diff"] == ""
    await customer.deploy(install)
    assert (await customer.get(install["id"]))["values"] == install["values"] != {"replicas": 4}
    page = contract.page_of(contract.shape(contract.INSTALL_RENDER))
    listed = ok(await customer.person.get(f"/v1/installs/{install['id']}/renders"))
    assert contract.differences(listed, page) == []
    assert [each["state"] for each in listed["data"]] == ["deployed"] * 3
    assert ok(await customer.person.get(path)) == listed["data"][0]


async def test_only_what_was_deployed_is_restored(customer: Customer) -> None:
    install = await customer.new_deployed()
    rendered = ok(await customer.call(install, "/renders", {"message": "again"}), 201)
    assert (rendered["message"], rendered["state"]) == ("again", "running")
    await customer.records.reach_skipped(await customer._running(install))  # noqa: SLF001 - the tests' own
    wanted = {"render_id": rendered["id"]}
    error_of(await customer.call(install, ":restore", wanted), 409, "FAILED_PRECONDITION")
    strange = (await customer.new_deployed())["current_render_id"]
    error_of(await customer.call(install, ":restore", {"render_id": strange}), 404)
    noted = {"extra_annotations": {"a": "b"}}
    error_of(await customer.call(install, "/renders", noted), 422, "INVALID_ARGUMENT")


async def test_renders_that_nobody_comes_back_to_are_emptied(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = await new_customer(gate)
    monkeypatch.setattr("infra.database.records.old_renders._KEPT", 2)
    install = await customer.new_deployed()
    path = f"/v1/installs/{install['id']}/renders"
    for _ in range(3):
        ok(await customer.call(install, "/renders", {"skip_unchanged": False}), 201)
        await customer.deploy(install)
    corrects, newest, returned_to, first = (
        each["id"] for each in ok(await customer.person.get(path))["data"]
    )
    crd = {"api_version": "v1", "kind": "X", "namespace": "", "name": "x"}
    with gate.administrator() as connection:
        connection.execute(
            "UPDATE renders SET message = 'drift', restored_from_render_id = %s WHERE id = %s",
            (newest, corrects),
        )
        connection.execute(
            "UPDATE renders SET plan = plan || %s WHERE id = %s",
            (Jsonb({"cluster_objects": [crd]}), first),
        )
        _have_rollout(connection, customer, install, returned_to)
    ok(await customer.call(install, "/renders", {}), 201)
    running = await customer._running(install)  # noqa: SLF001 - the tests' own
    rendered = (running, objects(), RENDER_HASH, CHART)
    assert await customer.records.keep_rendered(*rendered) == [first]
    await customer.records.empty(running, [first])
    assert await customer.records.keep_rendered(*rendered) == []
    assert await customer.records.cluster_objects_of(running) == [crd]
    for what in ("plan", "diff"):
        answer = await customer.person.get(f"{path}/{first}/{what}")
        error_of(answer, 409, "FAILED_PRECONDITION")
    await customer.deploy(install)
    gone = await customer.call(install, ":restore", {"render_id": first})
    error_of(gone, 409, "FAILED_PRECONDITION")
    ok(await customer.call(install, ":restore", {"render_id": returned_to}), 202)


def _have_rollout(
    connection: psycopg.Connection, customer: Customer, install: JSON, render_id: str
) -> None:
    """Have a rollout of the vendor's that would return an install to a render."""
    vendor, rollout = customer.vendor.workspace, new_id(Prefix.ROLLOUT)
    connection.execute(
        "INSERT INTO rollouts (workspace_id, id, product_id, package_version_id, selector,"
        " strategy, plan_only, state, wave, waves, counts, approvals, caller, version) VALUES"
        " (%s, %s, %s, %s, '{}', '{}', false, 'succeeded', 0, 1, '{}', '[]', '{}', 1)",
        (vendor, rollout, customer.product["id"], customer.versions["1.0.0"]),
    )
    connection.execute(
        "INSERT INTO rollout_targets (workspace_id, rollout_id, install_id, grant_id,"
        " customer_workspace_id, cluster_id, region_id, wave, position, state, from_render_id,"
        " attempts) VALUES (%s, %s, %s, 'grnt_x', %s, %s, %s, 0, 0, 'succeeded', %s, 1)",
        (
            *(vendor, rollout, install["id"], customer.person.workspace),
            *(customer.cluster["id"], customer.cluster["region_id"], render_id),
        ),
    )


async def test_a_plan_is_approved_by_its_digest_alone(customer: Customer) -> None:
    install = await customer.new()
    approve = {"digest": PLAN_DIGEST}
    error_of(await customer.call(install, ":approve", approve), 409, "FAILED_PRECONDITION")
    render = ok(await customer.person.get(f"/v1/installs/{install['id']}/renders"))["data"][0]
    path = f"/v1/installs/{install['id']}/renders/{render['id']}/plan"
    error_of(await customer.person.get(path), 409, "FAILED_PRECONDITION")
    await customer.plan(install)
    with customer.gate.administrator() as connection:
        connection.execute(
            "UPDATE operations SET waiting_for = 'approval' WHERE id = %s",
            (install["active_operation_id"],),
        )
    plan = ok(await customer.person.get(path))
    assert (plan["plan_digest"], plan["waits_for_approval"]) == (PLAN_DIGEST, True)
    assert plan["changes"][0]["change"] == "added"
    member = customer.gate.new_person(customer.person.workspace, Role.MEMBER)
    error_of(await member.post(f"/v1/installs/{install['id']}:approve", approve), 403)
    stale = {"digest": "sha256:" + "0" * 64}
    error = error_of(await customer.call(install, ":approve", stale), 409, "ABORTED")
    assert error["metadata"]["plan_digest"] == PLAN_DIGEST
    approved = ok(await customer.call(install, ":approve", approve))
    assert approved["approved_digest"] == PLAN_DIGEST
    assert ok(await customer.person.get(path))["approved_by"] == customer.person.user_id
    denied = ("install.approve", "denied", install["id"])
    allowed = ("install.approve", "allowed", install["id"])
    assert {denied, allowed} <= set(customer.gate.audit(customer.person.workspace))


async def test_an_install_is_labelled_pinned_windowed_and_held(customer: Customer) -> None:
    install = await customer.new_deployed()
    window = {"timezone": "Europe/Berlin", "days": ["mon"], "start": "22:00", "end": "02:00"}
    changes = {
        "labels": {"tier": "silver"},
        "channel": "edge",
        "pinned_semver": "1.0.0",
        "update_window": window,
        "drift_correction": True,
        "values": {"replicas": 3},
    }
    changed = ok(await customer.patch(install, changes))
    assert changed.items() >= changes.items()
    assert ok(await customer.patch(install, {"update_window": None}))["update_window"] is None
    stale = {"if-match": install["etag"]}
    path = f"/v1/installs/{install['id']}"
    error_of(await customer.person.call("PATCH", path, json=changes, headers=stale), 409, "ABORTED")
    for wrong in (
        {"update_window": {**window, "timezone": "Mars"}},
        {"update_window": {**window, "start": "25:00"}},
        {"values": {"replicas": 0}},
        {"pinned_semver": "v1"},
    ):
        error_of(await customer.patch(install, wrong), 422, "INVALID_ARGUMENT")
    held = ok(await customer.call(install, ":hold", {"reason": "the year's end"}))
    assert (held["hold"]["reason"], held["hold"]["until"]) == ("the year's end", None)
    error_of(await customer.call(install, ":hold", {"reason": "x", "until": 1}), 422)
    assert ok(await customer.call(install, ":release_hold", {}))["hold"] is None


async def test_automatic_updates_are_turned_on_and_off(customer: Customer) -> None:
    install = await customer.new_deployed()
    for enabled in (True, False):
        body = {"automatic_updates_enabled": enabled}
        answer = ok(await customer.patch(install, body, "/automatic_updates"))
        assert contract.differences(answer, contract.INSTALL_LIFECYCLE_MUTATION) == []
        assert answer["install"]["automatic_updates_enabled"] is enabled
        assert answer["render"] is None


async def test_a_delete_takes_the_lock_over_and_only_goes_forward(customer: Customer) -> None:
    install = await customer.new()
    member = customer.gate.new_person(customer.person.workspace, Role.MEMBER)
    path = f"/v1/installs/{install['id']}"
    error_of(await member.call("DELETE", path, headers={"if-match": install["etag"]}), 403)
    deleted = ok(await customer.delete(install), 202)
    assert deleted["metadata"]["install_id"] == install["id"]
    first = await customer.gate.operation(customer.person, install["active_operation_id"])
    assert first.cancel_requested_at is not None
    error_of(await customer.delete(install), 409, "CONFLICT")
    found = ok(await customer.person.get(f"/v1/operations/{deleted['id']}"))
    assert found["steps"][0]["name"] == "await_predecessor"
    await customer.records.reach_deleted(await customer._running(install))  # noqa: SLF001 - the tests' own
    ended = ok(await customer.person.get(f"/v1/operations/{deleted['id']}"))
    assert ended["state"] == OperationState.SUCCEEDED
    assert ended["response"].items() >= {"argo_app_deleted": True, "repo_purged": True}.items()
    error_of(await customer.person.get(path), 404)


async def test_a_suspended_cluster_moves_and_loses_no_install(gate: Gate) -> None:
    customer = await new_customer(gate)
    install = await customer.new_deployed()
    with gate.administrator() as connection:
        connection.execute(
            "UPDATE clusters SET state = 'suspended' WHERE id = %s", (customer.cluster["id"],)
        )
    wanted = {"package_version_id": customer.versions["1.1.0"]}
    for answer in (
        await customer.call(install, ":update", wanted),
        await customer.delete(install),
        await customer.person.get(f"/v1/installs/{install['id']}/pods"),
    ):
        error = error_of(answer, 409, "FAILED_PRECONDITION")
        assert error["metadata"]["state"] == "suspended"
    status = ok(await customer.person.get(f"/v1/installs/{install['id']}/status"))
    assert contract.differences(status, contract.INSTALL_STATUS) == []
    assert (status["operation_phase"], status["health"]) == ("Succeeded", "Healthy")


async def test_an_operation_that_is_being_cancelled_is_terminating(customer: Customer) -> None:
    install = await customer.new()
    status = f"/v1/installs/{install['id']}/status"
    assert ok(await customer.person.get(status))["operation_phase"] == "Running"
    ok(await customer.person.post(f"/v1/operations/{install['active_operation_id']}:cancel"), 202)
    assert ok(await customer.person.get(status))["operation_phase"] == "Terminating"


async def test_installs_are_their_workspaces_alone(gate: Gate, customer: Customer) -> None:
    await customer.new()
    install = await customer.new_deployed()
    own = f"/v1/installs/{install['id']}"
    stranger = gate.new_person()
    for path in (own, f"{own}/status", f"{own}/renders", f"{own}/pods", f"{own}/logs"):
        error_of(await stranger.get(path), 404, "NOT_FOUND")
    assert ok(await stranger.get("/v1/installs"))["data"] == []
    page = contract.page_of(contract.shape(contract.INSTALL, *contract.INSTALL_OPTIONAL))
    listed = ok(await customer.person.get("/v1/installs", params={"limit": 1}))
    assert contract.differences(listed, page) == []
    assert listed["data"][0]["id"] == install["id"]
    assert listed["has_more"]
    more = {"cursor": listed["next_cursor"], "product_id": customer.product["id"]}
    following = ok(await customer.person.get("/v1/installs", params=more))["data"]
    assert install["id"] not in [each["id"] for each in following]
    assert following
