"""Grants: what a customer gives and takes back, and all that a vendor sees by one."""

import json
from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg.types.json import Jsonb
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from domain.caller import Role
from infra.database.engine import Database, DatabaseRole
from infra.database.queries.install import find_rollout_preview
from tests.api.gate import JSON, Gate, Person
from tests.api.installs import Customer, new_customer
from tests.api.keeper import error_of, ok

PATH = "/v1/grants"

# Of a customer's workspace, everything that there is about an install.
CUSTOMERS_TABLES = (
    "installs",
    "renders",
    "install_secrets",
    "install_drift",
    "rollout_previews",
    "operations",
    "clusters",
    "regions",
    "secrets",
    "audit_events",
)


@pytest.fixture(scope="module")
async def customer(gate: Gate) -> Customer:
    return await new_customer(gate)


async def give(customer: Customer, install: JSON, consent: str = "automatic") -> JSON:
    body = {"install_id": install["id"], "consent": consent}
    return ok(await customer.person.post(PATH, body), 201)


async def received(vendor: Person) -> list[JSON]:
    listed: list[JSON] = ok(await vendor.get(PATH))["data"]
    return listed


async def test_a_grant_comes_with_an_install_when_it_is_asked_for(customer: Customer) -> None:
    install = await customer.new_deployed(grant={"consent": "ask"}, labels={"tier": "gold"})
    given = ok(await customer.person.get(PATH, params={"install_id": install["id"]}))["data"]
    assert [(each["role"], each["consent"]) for each in given] == [("given", "ask")]
    seen = ok(await customer.vendor.get(f"{PATH}/{given[0]['id']}"))
    assert seen == {**given[0], "role": "received"}
    ungranted = await customer.new_deployed()
    assert ungranted["id"] not in [each["install_id"] for each in await received(customer.vendor)]


async def test_one_grant_of_an_install_is_in_force_at_a_time(customer: Customer) -> None:
    install = await customer.new_deployed()
    first = await give(customer, install)
    body = {"install_id": install["id"]}
    error = error_of(await customer.person.post(PATH, body), 409, "CONFLICT")
    assert error["metadata"]["grant_id"] == first["id"]
    revoked = ok(await customer.person.call("DELETE", f"{PATH}/{first['id']}"))
    assert revoked["revoked_at"] is not None
    assert ok(await customer.person.call("DELETE", f"{PATH}/{first['id']}")) == revoked
    second = await give(customer, install, "ask")
    assert second["id"] != first["id"]
    actions = [line[0] for line in customer.gate.audit(customer.person.workspace)]
    assert {"grant.create", "grant.revoke"} <= set(actions)


async def test_a_revoked_grant_is_gone_for_the_vendor_at_once(customer: Customer) -> None:
    install = await customer.new_deployed()
    grant = await give(customer, install)
    product = {"product_id": customer.product["id"]}
    listed = ok(await customer.vendor.get("/v1/installs", params=product))["data"]
    assert install["id"] in [each["id"] for each in listed]
    ok(await customer.person.call("DELETE", f"{PATH}/{grant['id']}"))
    listed = ok(await customer.vendor.get("/v1/installs", params=product))["data"]
    assert install["id"] not in [each["id"] for each in listed]
    for path in (f"{PATH}/{grant['id']}", f"/v1/installs/{install['id']}"):
        error_of(await customer.vendor.get(path), 404, "NOT_FOUND")
    assert ok(await customer.person.get(f"{PATH}/{grant['id']}"))["revoked_at"] is not None


async def test_the_customer_decides_about_a_grant_and_nobody_else(customer: Customer) -> None:
    install = await customer.new_deployed()
    grant = await give(customer, install, "ask")
    own = f"{PATH}/{grant['id']}"
    consent = {"package_version_id": customer.versions["1.1.0"]}
    for answer in (
        await customer.vendor.call("DELETE", own),
        await customer.vendor.post(f"{own}:consent", consent),
    ):
        error_of(answer, 403, "PERMISSION_DENIED")
    member = customer.gate.new_person(customer.person.workspace, Role.MEMBER)
    error_of(await member.call("DELETE", own), 403, "PERMISSION_DENIED")
    error_of(await customer.gate.new_person().get(own), 404, "NOT_FOUND")
    wrong = {"package_version_id": "pkgv_" + "0" * 32}
    error_of(await customer.person.post(f"{own}:consent", wrong), 404, "NOT_FOUND")
    agreed = ok(await customer.person.post(f"{own}:consent", consent))
    assert agreed["consented_version_id"] == customer.versions["1.1.0"]
    stale = {"if-match": grant["etag"]}
    error_of(await customer.person.call("DELETE", own, headers=stale), 409, "ABORTED")
    ok(await customer.person.call("DELETE", own))
    error_of(await customer.person.post(f"{own}:consent", consent), 409, "FAILED_PRECONDITION")


async def test_a_customer_sees_which_version_waits_for_a_consent(customer: Customer) -> None:
    install = await customer.new_deployed(grant={"consent": "ask"})
    other = await customer.new_deployed(grant={"consent": "ask"})
    version = customer.versions["1.1.0"]
    rollout = ok(
        await customer.vendor.post(
            "/v1/rollouts",
            {
                "product_id": customer.product["id"],
                "package_version_id": version,
                "selector": {"install_ids": [install["id"], other["id"]]},
                "strategy": {
                    "checks": [{"kind": "workload"}, {"kind": "job", "image": "smoke:1.1.0"}]
                },
            },
        ),
        201,
    )

    async def waiting(person: Person) -> dict[str, JSON | None]:
        listed = ok(await person.get(PATH))["data"]
        return {each["install_id"]: each["waiting_version"] for each in listed}

    assert (await waiting(customer.person))[install["id"]] is None
    with customer.gate.administrator() as connection:
        connection.execute(
            "UPDATE rollout_targets SET state = 'waiting', waiting_for = 'consent'"
            " WHERE install_id = %s",
            (install["id"],),
        )
    seen = await waiting(customer.person)
    job = rollout["strategy"]["checks"][1]
    assert (job["kind"], job["image"]) == ("job", "smoke:1.1.0")
    expected = {"id": version, "semver": "1.1.0", "rollout_id": rollout["id"], "checks": [job]}
    assert (seen[install["id"]], seen[other["id"]]) == (expected, None)
    assert (await waiting(customer.vendor))[install["id"]] is None
    given = ok(await customer.person.get(PATH, params={"install_id": install["id"]}))["data"][0]
    consent = {"package_version_id": version}
    agreed = ok(await customer.person.post(f"{PATH}/{given['id']}:consent", consent))
    assert agreed["waiting_version"] is None


async def test_what_a_vendor_chooses_by_follows_the_install(customer: Customer) -> None:
    install = await customer.new_deployed(grant={}, labels={"tier": "gold"})
    ok(await customer.patch(install, {"labels": {"tier": "silver"}, "channel": "edge"}))
    grants = ok(await customer.vendor.get(PATH))["data"]
    grant = next(each for each in grants if each["install_id"] == install["id"])
    assert (grant["labels"], grant["channel"]) == ({"tier": "silver"}, "edge")


async def test_ones_own_product_needs_no_grant(gate: Gate) -> None:
    customer = await new_customer(gate, own=True)
    install = await customer.new_deployed()
    body = {"install_id": install["id"]}
    error_of(await customer.person.post(PATH, body), 409, "FAILED_PRECONDITION")
    error_of(await customer.ask(grant={}), 409, "FAILED_PRECONDITION")


async def test_a_vendor_sees_version_health_and_place_and_nothing_else(gate: Gate) -> None:
    customer = await new_customer(gate)
    install = await customer.new_deployed(grant={}, initial_values={"password": "hunter2"})
    own = f"/v1/installs/{install['id']}"
    shown = ok(await customer.vendor.get(own))
    listed = ok(
        await customer.vendor.get("/v1/installs", params={"product_id": customer.product["id"]})
    )
    assert listed["data"] == [shown]
    assert (shown["granted"], shown["state"]) == (True, "healthy")
    assert shown["package_version_id"] == customer.versions["1.0.0"]
    assert shown["customer_workspace"] == {"id": customer.person.workspace, "name": "test"}
    grants = ok(await customer.vendor.get(PATH))["data"]
    assert "hunter2" not in json.dumps([shown, listed, grants])
    assert not {"values", "current_render_id", "health_message", "hold"} & shown.keys()
    render = install["current_render_id"]
    for path in (
        *(f"{own}/{part}" for part in ("renders", "status", "pods", "logs", "drift")),
        *(f"{own}/renders/{render}{part}" for part in ("", "/plan", "/diff")),
    ):
        error_of(await customer.vendor.get(path), 404, "NOT_FOUND")
    # A vendor's list without a product has its own installs alone.
    assert ok(await customer.vendor.get("/v1/installs"))["data"] == []


@pytest.fixture(params=[DatabaseRole.API, DatabaseRole.WORKER])
async def database(gate: Gate, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    opened = Database(gate.settings.database, request.param)
    yield opened
    await opened.close()


async def test_the_database_shows_a_vendor_the_row_of_the_grant_alone(
    gate: Gate, database: Database
) -> None:
    customer = await new_customer(gate)
    await customer.new_deployed(grant={})
    mine = {"workspace": customer.person.workspace}
    async with database.workspace(customer.vendor.workspace) as session:
        for table in CUSTOMERS_TABLES:
            query = f"SELECT count(*) FROM {table} WHERE workspace_id = :workspace"  # noqa: S608 - ours
            assert (await session.execute(text(query), mine)).scalar_one() == 0, table
        query = "SELECT count(*) FROM grants WHERE workspace_id = :workspace"
        assert (await session.execute(text(query), mine)).scalar_one() == 1
    # What the row says is the customer's to change.
    for statement in (
        "UPDATE grants SET consent = 'automatic', revoked_at = NULL",
        "DELETE FROM grants",
    ):
        async with database.workspace(customer.vendor.workspace) as session:
            changed = await session.execute(
                text(f"{statement} WHERE workspace_id = :workspace"), mine
            )
            assert changed.rowcount == 0  # type: ignore[attr-defined] # of a statement that changes
    with pytest.raises(DBAPIError) as refused:
        async with database.workspace(customer.vendor.workspace) as session:
            await session.execute(
                text(
                    "INSERT INTO grants SELECT (jsonb_populate_record(g, jsonb_build_object("
                    "'id', 'grnt_' || repeat('0', 32),"
                    " 'workspace_id', CAST(:workspace AS text)))).*"
                    " FROM grants g WHERE workspace_id = :workspace"
                ),
                mine,
            )
    assert isinstance(refused.value.orig, psycopg.errors.InsufficientPrivilege)


async def test_a_customer_alone_sees_what_a_rollout_planned_for_an_install(gate: Gate) -> None:
    customer = await new_customer(gate)
    install = await customer.new_deployed(grant={})
    path = f"/v1/installs/{install['id']}/rollout_plan"
    error_of(await customer.person.get(path), 404, "NOT_FOUND")
    planned = {
        "changes": [{"key": "apps/Deployment//web", "change": "changed", "diff": []}],
        "needs": [],
        "counts": {"changed": 1},
        "hooks": [],
    }
    with gate.administrator() as connection:
        connection.execute(
            "INSERT INTO rollout_previews (workspace_id, install_id, rollout_id, semver,"
            " package_version_id, render_hash, plan, plan_digest)"
            " VALUES (%s, %s, 'roll_1', '2.0.0', %s, 'sha256:a', %s, 'sha256:b')",
            (
                customer.person.workspace,
                install["id"],
                install["package_version_id"],
                Jsonb({**planned, "chart": {"name": "web"}}),
            ),
        )
    found = ok(await customer.person.get(path))
    assert {name: found[name] for name in planned} == planned
    assert (found["semver"], found["plan_digest"]) == ("2.0.0", "sha256:b")
    assert "chart" not in found
    error_of(await customer.vendor.get(path), 404, "NOT_FOUND")
    async with gate.clients.database.workspace(customer.vendor.workspace) as session:
        assert await find_rollout_preview(session, install["id"]) is None
