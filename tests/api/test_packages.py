"""Packages: charts of real registries and repositories, kept by their digest."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from domain.caller import Role
from domain.identifiers import Prefix, new_id
from tests import charts
from tests.api import contract
from tests.api.catalog import new_product, running_chart_worker, versions_of
from tests.api.gate import JSON, Gate, Person, a_key
from tests.api.keeper import error_of, new_keeper, ok
from tests.charts import Registry, Repository

PATH = "/v1/packages"


@dataclass(frozen=True)
class Places:
    """Where charts are: for everybody, for who has a login, and in a repository."""

    open: Registry
    private: Registry
    repository: Repository


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    with (
        charts.running_registry() as free,
        charts.running_registry(asks_login=True) as private,
        charts.running_repository() as repository,
    ):
        for version in ("1.0.0", "1.1.0", "2.0.0-rc.1"):
            free.push(charts.archive("web", version))
        free.push(charts.archive("web", "1.2.0"), tag="1.3.0")
        private.push(charts.archive("web", "1.0.0"))
        private.push(charts.archive("web", "1.1.0"))
        repository.add(charts.archive("web", "3.0.0"), charts.archive("with-crd", "0.1.0"))
        yield Places(free, private, repository)


@pytest.fixture(scope="module", autouse=True)
async def worker(gate: Gate, places: Places) -> AsyncIterator[None]:
    async with running_chart_worker(gate, places.open.address, places.private.address):
        yield


@pytest.fixture
def vendor(gate: Gate) -> Person:
    return gate.new_person()


def source_of(place: str, revision: str = "1.0.0", **more: Any) -> JSON:  # noqa: ANN401 - a body
    return {"kind": "helm", "repo_url": place, "target_revision": revision, **more}


def version_of(semver: str, ref: str | None = None, **more: Any) -> JSON:  # noqa: ANN401 - a body
    return {"semver": semver, "ref": ref or semver, "input_schema": {}, **more}


async def ended(person: Person, operation: JSON) -> JSON:
    path = f"/v1/operations/{operation['id']}:wait?timeout=30"
    found = ok(await person.post(path))
    assert found["done"], found
    return found


async def create(person: Person, source: JSON, name: str = "web") -> JSON:
    """Make a package, and return its operation when that has ended."""
    body = {"name": name, "sources": [source]}
    return await ended(person, ok(await person.post(PATH, body), 202))


async def created(person: Person, source: JSON, name: str = "web") -> JSON:
    """Make a package, and return it."""
    operation = await create(person, source, name)
    assert operation["state"] == "SUCCEEDED", operation["error"]
    return ok(await person.get(f"{PATH}/{operation['response']['package_id']}"))


async def test_a_package_is_made_of_a_chart_and_kept_by_its_digest(
    gate: Gate, vendor: Person, places: Places
) -> None:
    key = {"idempotency-key": a_key()}
    source = source_of(places.open.url_of("web"), values={"replicas": 2})
    body = {"name": "web", "display_image_url": "https://example.test/i", "sources": [source]}
    asked = ok(await vendor.post(PATH, body, headers=key), 202)
    assert ok(await vendor.post(PATH, body, headers=key), 202)["id"] == asked["id"]
    operation = await ended(vendor, asked)
    assert contract.differences(operation, contract.PACKAGE_OPERATION) == []
    assert operation["metadata"] == {
        "type": "package.create",
        "workspace_id": vendor.workspace,
        "package_id": asked["owner_id"],
        "name": "web",
        "idempotency_key": key["idempotency-key"],
    }
    listed = await vendor.get(
        "/v1/operations", params={"owner_type": "package", "owner_id": asked["owner_id"]}
    )
    assert [each["id"] for each in ok(listed)["data"]] == [asked["id"]]
    own = f"{PATH}/{asked['owner_id']}"
    package = ok(await vendor.get(own))
    assert contract.differences(package, contract.PACKAGE) == []
    assert package["source"] == {"kind": "oci", "oci_ref": places.open.url_of("web")}
    assert operation["response"]["package_version_id"] == package["latest_version_id"]
    assert ok(await vendor.get(PATH, params={"view": "basic"}))["data"] == [package]

    version = ok(await vendor.get(f"{own}/versions/{package['latest_version_id']}"))
    assert contract.differences(version, contract.PACKAGE_VERSION) == []
    assert version["semver"] == "1.0.0"
    assert version["ref"].startswith(places.open.url_of("web") + "@sha256:")
    assert version["default_values"] == {"replicas": 2}
    inputs = ok(await vendor.get(f"{own}/versions/{version['id']}/inputs"))
    assert inputs == version["input_schema"]
    assert "replicas" in inputs["properties"]
    assert ("package.create", "succeeded", package["id"]) in gate.audit(vendor.workspace)


async def test_a_create_that_fails_leaves_nothing(
    gate: Gate, vendor: Person, places: Places
) -> None:
    for source, said in (
        (source_of(places.open.url_of("nothing-there")), "NOT_FOUND"),
        (source_of(places.open.url_of("web"), "9.9.9"), "NOT_FOUND"),
        (source_of(places.private.url_of("web")), "CREDENTIAL_REJECTED"),
    ):
        operation = await create(vendor, source)
        assert (operation["state"], operation["error"]["reason"]) == ("FAILED", said)
        error_of(await vendor.get(f"{PATH}/{operation['owner_id']}"), 404)
    assert gate.count("packages", vendor.workspace) == 0
    assert gate.count("package_versions", vendor.workspace) == 0
    # The name is free again.
    await created(vendor, source_of(places.open.url_of("web")))


async def test_a_repository_is_read_like_a_registry(vendor: Person, places: Places) -> None:
    source = source_of(places.repository.url, "^3", chart="web")
    package = await created(vendor, source)
    assert package["source"] == {
        "kind": "repository",
        "repo_url": places.repository.url,
        "chart": "web",
    }
    assert list(await versions_of(vendor, package["id"])) == ["3.0.0"]


async def test_a_private_registry_is_read_with_the_connection_for_it(
    gate: Gate, places: Places
) -> None:
    vendor = (await new_keeper(gate)).person
    username, password = charts.LOGIN
    connection = {
        "name": "private",
        "registry_url": f"oci://{places.private.address}/charts",
        "type": "basic",
        "credentials": {"username": username, "password": password},
    }
    made = ok(await vendor.post("/v1/registry_connections", connection), 201)
    package = await created(vendor, source_of(places.private.url_of("web")))
    published = await vendor.post(f"{PATH}/{package['id']}/versions", version_of("1.1.0"))
    ok(published, 201)
    listed = ok(await vendor.get("/v1/registry_connections"))["data"]
    assert [each["id"] for each in listed] == [made["id"]]
    assert listed[0]["last_used_at"] is not None
    refused = await vendor.call("DELETE", f"/v1/registry_connections/{made['id']}")
    error_of(refused, 409, "FAILED_PRECONDITION")


async def test_a_version_is_published_once_and_never_changes(
    vendor: Person, places: Places
) -> None:
    url = places.open.url_of("web")
    package = await created(vendor, source_of(url, values={"replicas": 2}))
    own = f"{PATH}/{package['id']}"
    compatibility = {
        "clusterTypes": ["managed_kaas"],
        "kubernetes": {"minVersion": "1.33"},
        "placement": {"providers": "any", "regions": ["falkenstein"]},
        "kaas": {"networkProfile": "linux_cilium"},
    }
    schema = {"type": "object", "properties": {"replicas": {"maximum": 3}}}
    body = version_of("1.1.0", f"{url}:1.1.0", compatibility=compatibility, input_schema=schema)
    version = ok(await vendor.post(f"{own}/versions", body), 201)
    assert version["compatibility"] == compatibility
    assert version["input_schema"] == schema
    assert version["default_values"] == {"replicas": 2}
    assert ok(await vendor.get(f"{own}/versions/{version['id']}")) == version
    changed = ok(await vendor.get(own))
    assert changed["latest_version_id"] == version["id"]
    assert changed["etag"] != package["etag"]
    error_of(await vendor.post(f"{own}/versions", body), 409, "CONFLICT")

    edge = ok(await vendor.post(f"{own}/versions", version_of("2.0.0-rc.1")), 201)
    assert edge["channel"] == "edge"
    # A release stays the latest beside a newer pre-release.
    assert ok(await vendor.get(own))["latest_version_id"] == version["id"]
    listed = ok(await vendor.get(f"{own}/versions", params={"limit": 2}))
    assert [each["semver"] for each in listed["data"]] == ["2.0.0-rc.1", "1.1.0"]
    older = {"limit": 2, "cursor": listed["next_cursor"]}
    following = ok(await vendor.get(f"{own}/versions", params=older))["data"]
    assert [each["semver"] for each in following] == ["1.0.0"]

    for refused, path in (
        (version_of("1.3.0"), ["body", "semver"]),
        (version_of("1.4.0"), ["body", "ref"]),
        (version_of("1.4.0", "oci://elsewhere.test/charts/web:1.4.0"), ["body", "ref"]),
        (version_of("v1.4"), ["body", "semver"]),
        (version_of("1.4.0", input_schema={"type": "nonsense"}), ["body", "input_schema"]),
    ):
        answer = await vendor.post(f"{own}/versions", refused)
        assert error_of(answer, 422)["path"] == path, refused


async def test_two_who_publish_the_same_version_get_one(vendor: Person, places: Places) -> None:
    package = await created(vendor, source_of(places.open.url_of("web")))
    path = f"{PATH}/{package['id']}/versions"
    answers = await asyncio.gather(*(vendor.post(path, version_of("1.1.0")) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]


async def test_a_published_chart_is_imported_with_its_first_version(
    gate: Gate, vendor: Person, places: Places
) -> None:
    url = places.open.url_of("web")
    key = {"idempotency-key": a_key()}
    body = {
        "name": "imported",
        "description": "Mine.",
        "oci_ref": url,
        "version": version_of("1.1.0", f"{url}:1.1.0"),
    }
    answer = await vendor.post(f"{PATH}:import", body, headers=key)
    package = ok(answer, 201)
    again = await vendor.post(f"{PATH}:import", body, headers=key)
    assert (ok(again, 201), again.headers["idempotency-replayed"]) == (package, "true")
    assert package["description"] == "Mine."
    assert list(await versions_of(vendor, package["id"])) == ["1.1.0"]
    other = {**body, "name": "other"}
    error_of(await vendor.post(f"{PATH}:import", other, headers=key), 409, "CONFLICT")
    error_of(await vendor.post(f"{PATH}:import", body), 409, "CONFLICT")
    wrong = {**other, "version": version_of("1.1.0", f"{url}:1.0.0")}
    error_of(await vendor.post(f"{PATH}:import", wrong), 422, "INVALID_ARGUMENT")
    assert gate.count("packages", vendor.workspace) == 1


async def test_a_package_stays_while_a_product_refers_to_it_archived_or_not(
    gate: Gate, vendor: Person, places: Places
) -> None:
    package = await created(vendor, source_of(places.open.url_of("web")))
    own, etag = f"{PATH}/{package['id']}", {"if-match": package["etag"]}
    product = await new_product(vendor, package["id"])
    refused = error_of(await vendor.call("DELETE", own, headers=etag), 409, "FAILED_PRECONDITION")
    assert refused["metadata"]["product_ids"] == product["id"]
    path = f"/v1/products/{product['id']}"
    archived = await vendor.post(f"{path}:archive", {}, headers={"if-match": product["etag"]})
    etag_of_it = {"if-match": ok(archived)["etag"]}
    refused = error_of(await vendor.call("DELETE", own, headers=etag), 409, "FAILED_PRECONDITION")
    assert "archived" in refused["message"]
    assert refused["metadata"]["product_ids"] == product["id"]
    again = ok(await vendor.post(f"{path}:unarchive", {}, headers=etag_of_it))
    assert (again["id"], again["state"]) == (product["id"], "active")
    assert gate.count("packages", vendor.workspace) == 1


async def test_a_package_to_which_nothing_refers_is_deleted_once(
    gate: Gate, vendor: Person, places: Places
) -> None:
    await created(vendor, source_of(places.open.url_of("web")))
    other = await created(vendor, source_of(places.open.url_of("web")), "other")
    own = f"{PATH}/{other['id']}"
    stale = await vendor.call("DELETE", own, headers={"if-match": "99"})
    assert error_of(stale, 409, "ABORTED")["metadata"]["etag"] == other["etag"]
    headers = {"if-match": other["etag"], "idempotency-key": a_key()}
    for _ in range(2):
        deleted = await vendor.call("DELETE", own, headers=headers)
        assert (deleted.status_code, deleted.content) == (204, b"")
    error_of(await vendor.get(own), 404)
    assert gate.count("package_versions", vendor.workspace) == 1


async def test_packages_belong_to_their_workspace(
    gate: Gate, vendor: Person, places: Places
) -> None:
    package = await created(vendor, source_of(places.open.url_of("web")))
    own = f"{PATH}/{package['id']}"
    version = f"{own}/versions/{package['latest_version_id']}"
    stranger = gate.new_person()
    for path in (own, f"{own}/versions", version, f"{version}/inputs"):
        error_of(await stranger.get(path), 404)
    assert ok(await stranger.get(PATH))["data"] == []


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"sources": []}, ["body", "sources"]),
        (
            {"sources": [source_of("oci://a.test/b"), source_of("oci://a.test/c")]},
            ["body", "sources"],
        ),
        ({"sources": [source_of("a.test/b")]}, ["body", "sources", "0", "repo_url"]),
        ({"sources": [source_of("https://a.test")]}, ["body", "sources", "0", "repo_url"]),
        ({"sources": [source_of("oci://a.test/b", path="c")]}, ["body", "sources", "0", "path"]),
        (
            {"sources": [source_of("oci://a.test/b", values={"a": "\0"})]},
            ["body", "sources", "0", "values"],
        ),
        (
            {
                "sources": [
                    source_of(
                        "oci://a.test/b",
                        values={"a": {"$secret": {"id": new_id(Prefix.SECRET)}}},
                    )
                ]
            },
            ["body", "sources", "0", "values", "a"],
        ),
        ({"name": ""}, ["body", "name"]),
    ],
)
async def test_what_is_wrong_with_a_package_is_named(
    vendor: Person, change: JSON, path: list[str]
) -> None:
    body = {"name": "web", "sources": [source_of("oci://registry.test/web")], **change}
    assert error_of(await vendor.post(PATH, body), 422, "INVALID_ARGUMENT")["path"] == path


async def test_members_publish_nothing(gate: Gate, vendor: Person) -> None:
    member = gate.new_person(vendor.workspace, Role.MEMBER)
    body = {"name": "web", "sources": [source_of("oci://registry.test/web")]}
    error_of(await member.post(PATH, body), 403, "PERMISSION_DENIED")
    wanted = {"name": "w", "oci_ref": "oci://a.test/b", "version": version_of("1.0.0")}
    error_of(await member.post(f"{PATH}:import", wanted), 403, "PERMISSION_DENIED")
    assert ("package.create", "denied", vendor.workspace) in gate.audit(vendor.workspace)
