"""Products: what a workspace offers, to itself and through the marketplace."""

import pytest

from domain.caller import Role
from infra.database.queries.package import (
    find_offer,
    find_visible_version,
)
from tests.api import contract
from tests.api.catalog import new_package, new_product, versions_of
from tests.api.gate import JSON, Gate, Person, a_key
from tests.api.keeper import error_of, ok

PATH = "/v1/products"


@pytest.fixture(scope="module")
def vendor(gate: Gate) -> Person:
    return gate.new_person()


async def test_a_product_is_made_shown_changed_archived_and_offered_again(
    gate: Gate, vendor: Person
) -> None:
    package = await new_package(gate, vendor, "1.0.0", "1.1.0", "2.0.0-rc.1")
    versions = await versions_of(vendor, package)
    key = {"idempotency-key": a_key()}
    body = {
        "name": "Web",
        "package_id": package,
        "package_version_pin": {"kind": "latest"},
        "custom_image": "https://example.test/web.png",
        "custom_description": "A web server.",
    }
    made = ok(await vendor.post(PATH, body, headers=key), 201)
    assert ok(await vendor.post(PATH, body, headers=key), 201) == made
    assert made["package"]["default_version_id"] == versions["1.1.0"]
    assert (made["state"], made["marketplace"]) == ("active", {"published": False})
    own = f"{PATH}/{made['id']}"
    assert contract.differences(made, contract.PRODUCT, *contract.PRODUCT_OPTIONAL) == []
    assert ok(await vendor.get(own)) == made
    assert made in ok(await vendor.get(PATH))["data"]

    change = {
        "package_version_pin": {"kind": "pinned", "version": "2.0.0-rc.1"},
        "custom_image": None,
        "marketplace": {"published": True},
    }
    etag = {"if-match": made["etag"]}
    changed = ok(await vendor.call("PATCH", own, json=change, headers=etag))
    assert changed["package"]["default_version_id"] == versions["2.0.0-rc.1"]
    assert "custom_image" not in changed
    assert changed["custom_description"] == "A web server."
    stale = error_of(await vendor.call("PATCH", own, json={}, headers=etag), 409, "ABORTED")
    assert stale["metadata"]["etag"] == changed["etag"]

    archive = {"archive_reason": "The end.", "cascade_offers": True}
    etag = {"if-match": changed["etag"]}
    archived = ok(await vendor.post(f"{own}:archive", archive, headers=etag))
    assert contract.differences(archived, contract.PRODUCT, *contract.PRODUCT_OPTIONAL) == []
    assert (archived["state"], archived["archive_reason"]) == ("archived", "The end.")
    etag = {"if-match": archived["etag"]}
    for path, method in ((f"{own}:archive", "POST"), (own, "PATCH")):
        refused = await vendor.call(method, path, json={}, headers=etag)
        error_of(refused, 422, "FAILED_PRECONDITION")
    again = ok(await vendor.post(f"{own}:unarchive", {}, headers=etag))
    assert again["state"] == "active"
    assert not {"archived_at", "archive_reason"} & again.keys()
    lines = [line[0] for line in gate.audit(vendor.workspace) if line[2] == made["id"]]
    assert lines == [
        "product.create",
        "product.update",
        "product.archive",
        "product.unarchive",
    ]


async def test_a_product_needs_a_package_and_a_version_of_the_workspace(
    gate: Gate, vendor: Person
) -> None:
    package = await new_package(gate, vendor)
    foreign = await new_package(gate, gate.new_person())
    latest = {"kind": "latest"}
    for change, path in (
        ({"package_id": foreign}, ["body", "package_id"]),
        ({"package_id": "nonsense"}, ["body", "package_id"]),
        (
            {"package_version_pin": {"kind": "pinned", "version": "9.9.9"}},
            ["body", "package_version_pin", "version"],
        ),
        ({"package_version_pin": {"kind": "newest"}}, ["body", "package_version_pin"]),
        ({"name": "W"}, ["body", "name"]),
        ({"custom_image": "javascript:alert(1)"}, ["body", "custom_image"]),
    ):
        body = {"name": "Web", "package_id": package, "package_version_pin": latest, **change}
        assert error_of(await vendor.post(PATH, body), 422)["path"] == path
    member = gate.new_person(vendor.workspace, Role.MEMBER)
    body = {"name": "Web", "package_id": package, "package_version_pin": latest}
    error_of(await member.post(PATH, body), 403, "PERMISSION_DENIED")


async def _offered(gate: Gate, person: Person, product: JSON) -> str | None:
    async with gate.clients.database.workspace(person.workspace) as session:
        offer = await find_offer(session, product["id"])
    return None if offer is None else offer.version.semver


async def test_others_see_a_product_only_as_an_offer(gate: Gate, vendor: Person) -> None:
    package = await new_package(gate, vendor, "1.0.0", "1.10.0", "1.9.0", "2.0.0-a")
    product = await new_product(vendor, package)
    customer = gate.new_person()
    assert await _offered(gate, vendor, product) == "1.10.0"
    assert await _offered(gate, customer, product) is None

    own = f"{PATH}/{product['id']}"
    change = {"marketplace": {"published": True}, "package_version_pin": {"kind": "latest"}}
    etag = {"if-match": product["etag"]}
    product = ok(await vendor.call("PATCH", own, json=change, headers=etag))
    assert await _offered(gate, customer, product) == "1.10.0"
    error_of(await customer.get(own), 404)
    error_of(await customer.get(f"/v1/packages/{package}"), 404)
    assert ok(await customer.get(PATH))["data"] == []

    pin = {"package_version_pin": {"kind": "pinned", "version": "1.9.0"}}
    etag = {"if-match": product["etag"]}
    product = ok(await vendor.call("PATCH", own, json=pin, headers=etag))
    assert await _offered(gate, customer, product) == "1.9.0"
    ok(await vendor.post(f"{own}:archive", {}, headers={"if-match": product["etag"]}))
    assert await _offered(gate, vendor, product) is None
    assert await _offered(gate, customer, product) is None


async def test_who_has_installed_a_package_sees_its_versions_and_keeps_it(gate: Gate) -> None:
    vendor, customer = gate.new_person(), gate.new_person()
    package = await new_package(gate, vendor, "1.0.0", "1.1.0", "1.2.0-rc.1")
    versions = await versions_of(vendor, package)
    place = (vendor.workspace, package)
    async with gate.clients.database.workspace(customer.workspace) as session:
        assert await find_visible_version(session, *place, semver="1.1.0") is None
    cluster = await gate.new_active_cluster(customer)
    with gate.administrator() as connection:
        connection.execute(
            "INSERT INTO installs (workspace_id, id, cluster_id, region_id, package_workspace_id,"
            ' package_id, desired_version_id, "values", labels, channel,'
            " automatic_updates_enabled, drift_correction, state, health, sync, version)"
            " VALUES (%s, 'inst_1', %s, %s, %s, %s, %s, '{}', '{}', 'stable', false, false,"
            " 'healthy', 'Healthy', 'Synced', 1)",
            (
                customer.workspace,
                cluster["id"],
                cluster["region_id"],
                *place,
                versions["1.0.0"],
            ),
        )
    async with gate.clients.database.workspace(customer.workspace) as session:
        found = await find_visible_version(session, *place, semver="1.1.0")
        assert found is not None
        assert found.id == versions["1.1.0"]
        by_id = await find_visible_version(session, *place, version_id=versions["1.0.0"])
        assert by_id is not None

    own = f"/v1/packages/{package}"
    etag = {"if-match": ok(await vendor.get(own))["etag"]}
    refused = error_of(await vendor.call("DELETE", own, headers=etag), 409, "FAILED_PRECONDITION")
    assert refused["metadata"]["installs"] == "1"
