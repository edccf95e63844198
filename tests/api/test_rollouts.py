"""Rollouts: what is asked for, who may act on them, and what a vendor sees of customers."""

import asyncio
from typing import Any

import pytest

from domain.caller import Role
from domain.identifiers import Prefix, new_id
from domain.names import rollout_workflow_id_of
from tests.api.gate import JSON, Gate, Person, a_key
from tests.api.keeper import error_of, ok
from tests.api.vendor import Vendor, new_vendor

PATH = "/v1/rollouts"
TARGETS = 5000
# A target of the platform's: counting the targets of the largest rollout included.


@pytest.fixture(scope="module")
async def vendor(gate: Gate) -> Vendor:
    return await new_vendor(gate)


@pytest.fixture(scope="module")
async def customer(gate: Gate) -> Person:
    return gate.new_person()


@pytest.fixture(scope="module")
async def version(vendor: Vendor) -> str:
    return await vendor.new_version("1.0.0")


@pytest.fixture(scope="module")
async def installs(gate: Gate, vendor: Vendor, customer: Person, version: str) -> list[str]:
    cluster = await gate.new_active_cluster(customer)
    labelled = {"tier": "gold"}
    return [
        await vendor.new_install(customer, cluster, version, **labelled),
        await vendor.new_install(customer, cluster, version),
        await vendor.new_install(customer, cluster, version),
    ]


@pytest.fixture
async def rollout(vendor: Vendor, version: str, installs: list[str]) -> JSON:
    assert installs
    return ok(await vendor.ask(version), 201)


async def verb(person: Person, rollout: JSON, name: str, body: Any = None, **headers: str) -> Any:  # noqa: ANN401 - of httpx
    return await person.post(f"{PATH}/{rollout['id']}:{name}", body, headers=headers)


async def test_a_rollout_has_targets_in_waves_and_wakes_its_workflow(
    gate: Gate, vendor: Vendor, version: str, installs: list[str]
) -> None:
    key = {"idempotency-key": a_key()}
    strategy = {"waves": [{"count": 1}, {"percent": 100}], "error_budget": {"percent": 10}}
    body = {"product_id": vendor.product_id, "package_version_id": version, "strategy": strategy}
    made = ok(await vendor.person.post(PATH, body, headers=key), 201)
    assert ok(await vendor.person.post(PATH, body, headers=key), 201) == made
    found = ok(await vendor.person.get(f"{PATH}/{made['id']}"))
    assert (found["state"], found["done"], found["plan_digest"]) == ("planning", False, None)
    assert [wave["targets"] for wave in found["waves"]] == [1, 1, 1]
    assert found["counts"] == {"pending": 3}
    assert found["strategy"]["canary"] == 1
    assert found["strategy"]["checks"][0]["kind"] == "workload"
    assert found["created_by"] == vendor.person.user_id
    assert found["id"] in [each["id"] for each in ok(await vendor.person.get(PATH))["data"]]

    client = await gate.clients.temporal.client()
    handle: Any = client.get_workflow_handle(rollout_workflow_id_of(made["id"]))
    assert (await handle.describe()).workflow_type == "RunRollout"
    assert ("rollout.create", "allowed", made["id"]) in gate.audit(vendor.person.workspace)

    pages: list[JSON] = []
    cursor: str | None = None
    while cursor is not None or not pages:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = ok(await vendor.person.get(f"{PATH}/{made['id']}/targets", params=params))
        pages.append(page)
        cursor = page["next_cursor"]
    targets = [target for page in pages for target in page["data"]]
    assert {target["install_id"] for target in targets} == set(installs)
    assert [target["wave"] for target in targets] == [0, 1, 2]
    assert "customer" not in str(targets)
    events = ok(await vendor.person.get(f"{PATH}/{made['id']}/events"))["data"]
    assert [event["kind"] for event in events] == ["rollout.created"]


@pytest.mark.parametrize(
    ("canary", "waves", "told"),
    [
        (1, [{"count": 1}, {"percent": 100}], "3 installs in the canary and 2 waves."),
        (1, [{"percent": 100}], "3 installs in the canary and 1 wave."),
        (3, [{"percent": 100}], "3 installs in the canary."),
        (0, [{"count": 1}, {"percent": 100}], "3 installs in 2 waves."),
    ],
)
async def test_a_timeline_counts_waves_from_the_first_one_after_the_canary(
    vendor: Vendor,
    version: str,
    installs: list[str],
    canary: int,
    waves: list[JSON],
    told: str,
) -> None:
    assert len(installs) == 3
    made = ok(await vendor.ask(version, strategy={"canary": canary, "waves": waves}), 201)
    events = ok(await vendor.person.get(f"{PATH}/{made['id']}/events"))["data"]
    assert events[0]["message"] == told


async def test_a_selector_chooses_among_what_was_granted(
    vendor: Vendor, customer: Person, version: str, installs: list[str]
) -> None:
    gold = ok(await vendor.ask(version, selector={"labels": {"tier": "gold"}}), 201)
    targets = ok(await vendor.person.get(f"{PATH}/{gold['id']}/targets"))["data"]
    assert [target["install_id"] for target in targets] == installs[:1]
    nothing = await vendor.ask(version, selector={"channel": "edge"})
    assert error_of(nothing, 422, "INVALID_ARGUMENT")["path"] == ["body", "selector"]
    vendor.run("UPDATE grants SET revoked_at = now() WHERE install_id = %s", installs[0])
    try:
        nothing = await vendor.ask(version, selector={"labels": {"tier": "gold"}})
        error_of(nothing, 422, "INVALID_ARGUMENT")
    finally:
        vendor.run("UPDATE grants SET revoked_at = NULL WHERE install_id = %s", installs[0])
    # Whose installs these are sees nothing of the vendor's rollouts.
    assert ok(await customer.get(PATH))["data"] == []
    error_of(await customer.get(f"{PATH}/{gold['id']}"), 404)
    error_of(await customer.get(f"{PATH}/{gold['id']}/targets"), 404)
    error_of(await verb(customer, gold, "pause"), 404)


_ASKS_WEB = {"kind": "http", "service": "web", "port": 80}


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"strategy": {"waves": [{"count": 1, "percent": 2}]}}, ["strategy", "waves", "0"]),
        ({"strategy": {"waves": [{"count": 0}]}}, ["strategy", "waves", "0"]),
        ({"strategy": {"waves": []}}, ["strategy", "waves"]),
        ({"strategy": {"gate": "sometimes"}}, ["strategy", "gate"]),
        ({"strategy": {"concurrency": 0}}, ["strategy", "concurrency"]),
        (
            {"strategy": {"checks": [{"kind": "http", "service": "web"}]}},
            ["strategy", "checks", "0", "http"],
        ),
        *(
            (
                {"strategy": {"checks": [{**_ASKS_WEB, "path": path}]}},
                ["strategy", "checks", "0", "http", "path"],
            )
            for path in ("/../../../secrets/db", "/a/.", "/%2e%2E/x", "/..%2fx", "/%252e%252e/x")
        ),
        ({"selector": {"install_ids": ["web"]}}, ["selector"]),
        ({"selector": {"regions": ["here"]}}, ["selector", "regions", "0"]),
        ({"surprise": 1}, ["surprise"]),
    ],
)
async def test_what_cannot_be_done_is_refused_with_its_place(
    vendor: Vendor, version: str, more: JSON, path: list[str]
) -> None:
    answer = await vendor.ask(version, **more)
    assert error_of(answer, 422, "INVALID_ARGUMENT")["path"] == ["body", *path]


async def test_a_rollout_needs_a_version_of_the_products_own_package(
    gate: Gate, vendor: Vendor, version: str
) -> None:
    other = await new_vendor(gate)
    foreign = await other.new_version("1.0.0")
    answer = await vendor.ask(foreign)
    assert error_of(answer, 404, "NOT_FOUND")["path"] == ["body", "package_version_id"]
    body = {"product_id": new_id(Prefix.PRODUCT), "package_version_id": version}
    answer = await vendor.person.post(PATH, body)
    assert error_of(answer, 404, "NOT_FOUND")["path"] == ["body", "product_id"]
    other.run("UPDATE products SET state = 'archived' WHERE id = %s", other.product_id)
    error_of(await other.ask(foreign), 409, "FAILED_PRECONDITION")


async def test_a_package_that_was_rolled_out_is_kept_with_its_rollouts(gate: Gate) -> None:
    other = await new_vendor(gate)
    version = await other.new_version("1.0.0")
    other.run("UPDATE packages SET latest_version_id = %s WHERE id = %s", version, other.package_id)
    other.run("UPDATE products SET state = 'archived' WHERE id = %s", other.product_id)
    other.run(
        "INSERT INTO rollouts (workspace_id, id, product_id, package_version_id, selector,"
        " strategy, plan_only, state, wave, waves, counts, approvals, caller, version)"
        " VALUES (%s, %s, %s, %s, '{}', '{}', false, 'succeeded', 0, 1, '{}', '[]', '{}', 1)",
        other.person.workspace,
        new_id(Prefix.ROLLOUT),
        other.product_id,
        version,
    )
    own = f"/v1/packages/{other.package_id}"
    etag = ok(await other.person.get(own))["etag"]
    refused = await other.person.call("DELETE", own, headers={"if-match": etag})
    said = error_of(refused, 409, "FAILED_PRECONDITION")
    assert said["metadata"]["product_ids"] == other.product_id
    assert "archived products" in refused.text


async def test_members_look_and_admins_act(
    gate: Gate, vendor: Vendor, version: str, rollout: JSON
) -> None:
    workspace = vendor.person.workspace
    member = gate.new_person(workspace, Role.MEMBER)
    assert ok(await member.get(f"{PATH}/{rollout['id']}"))["id"] == rollout["id"]
    body = {"product_id": vendor.product_id, "package_version_id": version}
    error_of(await member.post(PATH, body), 403, "PERMISSION_DENIED")
    for name in ("pause", "resume", "cancel", "rollback"):
        error_of(await verb(member, rollout, name), 403, "PERMISSION_DENIED")
    denied = ("rollout.pause", "denied", rollout["id"])
    assert denied in gate.audit(workspace)
    admin = gate.new_person(workspace, Role.ADMIN)
    assert ok(await verb(admin, rollout, "pause"))["pause_requested_at"]


async def test_what_people_ask_for_is_written_down_and_repeats_nothing(
    gate: Gate, vendor: Vendor, rollout: JSON
) -> None:
    person = vendor.person
    stale = await verb(person, rollout, "pause", **{"if-match": "99"})
    assert error_of(stale, 409, "ABORTED")["metadata"]["etag"] == rollout["etag"]
    paused = ok(await verb(person, rollout, "pause", **{"if-match": rollout["etag"]}))
    assert ok(await verb(person, rollout, "pause")) == paused
    resumed = ok(await verb(person, rollout, "resume"))
    assert resumed["pause_requested_at"] is None
    both = await asyncio.gather(verb(person, rollout, "pause"), verb(person, rollout, "rollback"))
    assert [answer.status_code for answer in both] == [200, 200]
    found = ok(await person.get(f"{PATH}/{rollout['id']}"))
    assert found["pause_requested_at"]
    assert found["rollback_requested_at"]
    events = ok(await person.get(f"{PATH}/{rollout['id']}/events"))["data"]
    assert [event["sequence"] for event in events] == sorted(e["sequence"] for e in events)
    actions = [action for action, _, about in gate.audit(person.workspace) if about == found["id"]]
    assert set(actions) == {f"rollout.{name}" for name in ("create", "pause", "resume", "rollback")}
    error_of(await verb(person, rollout, "pause", {"surprise": 1}), 422)

    vendor.run("UPDATE rollouts SET state = 'rolled_back' WHERE id = %s", found["id"])
    for name in ("pause", "resume", "cancel", "rollback"):
        error_of(await verb(person, rollout, name), 409, "FAILED_PRECONDITION")
    assert ok(await person.get(f"{PATH}/{found['id']}"))["done"]


async def test_an_approval_is_of_one_plan_and_by_somebody_else(
    gate: Gate, vendor: Vendor, version: str, installs: list[str]
) -> None:
    assert installs
    made = ok(await vendor.ask(version, strategy={"gate": "start"}), 201)
    early = await verb(vendor.person, made, "approve", {"digest": "sha256:1"})
    error_of(early, 409, "FAILED_PRECONDITION")
    vendor.run(
        "UPDATE rollouts SET state = 'planned', plan_digest = 'sha256:2' WHERE id = %s", made["id"]
    )
    stale = error_of(await verb(vendor.person, made, "approve", {"digest": "sha256:1"}), 409)
    assert stale["metadata"]["plan_digest"] == "sha256:2"
    own = await verb(vendor.person, made, "approve", {"digest": "sha256:2"})
    error_of(own, 403, "PERMISSION_DENIED")
    assert ("rollout.approve", "denied", made["id"]) in gate.audit(vendor.person.workspace)
    second = gate.new_person(vendor.person.workspace, Role.ADMIN)
    approved = ok(await verb(second, made, "approve", {"digest": "sha256:2"}))
    (approval,) = approved["approvals"]
    assert (approval["principal_id"], approval["digest"]) == (second.user_id, "sha256:2")
    assert (approval["wave"], approval["at"] > 0) == (0, True)


async def test_a_rollout_with_5000_targets_is_read_with_all_of_its_waves(
    vendor: Vendor, rollout: JSON
) -> None:
    vendor.run(
        "INSERT INTO rollout_targets (workspace_id, rollout_id, install_id, grant_id,"
        " customer_workspace_id, cluster_id, region_id, wave, position, state, waiting_for,"
        " attempts) SELECT %s, %s, 'inst_' || n, 'grnt_' || n, 'ws_' || n, 'clu_' || n, 'reg_1',"
        " 1 + n %% 4, n, CASE WHEN n %% 3 = 0 THEN 'waiting' ELSE 'succeeded' END,"
        " CASE WHEN n %% 3 = 0 THEN 'offline' END, 1 FROM generate_series(1, %s) n",
        vendor.person.workspace,
        rollout["id"],
        TARGETS,
    )
    vendor.run("UPDATE rollouts SET waves = 5 WHERE id = %s", rollout["id"])
    vendor.run("ANALYZE rollout_targets")
    found = ok(await vendor.person.get(f"{PATH}/{rollout['id']}"))
    assert sum(found["counts"].values()) == TARGETS + 3
    assert found["waiting"] == {"offline": TARGETS // 3}
    waves = {wave["wave"]: wave["targets"] for wave in found["waves"]}
    assert waves == {0: 1, 1: TARGETS // 4 + 2, **dict.fromkeys((2, 3, 4), TARGETS // 4)}
