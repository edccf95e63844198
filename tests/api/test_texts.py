"""What people write about things: as they wrote it, and nothing that draws over a terminal."""

import pytest

from tests.api.catalog import new_package, new_product
from tests.api.gate import JSON, Gate, a_key
from tests.api.installs import new_customer
from tests.api.keeper import Keeper, error_of, new_keeper, ok

TEXT = "First line.\n\tSecond line, of a list."
_REFUSED = ["carriage\rreturn", "\x1b[2J", "turned \u202e around", "\x00"]


@pytest.fixture(scope="module")
async def keeper(gate: Gate) -> Keeper:
    return await new_keeper(gate)


async def test_what_is_written_about_a_secret_keeps_its_lines(keeper: Keeper) -> None:
    secret = await keeper.create("lines", description=TEXT)
    assert secret["description"] == TEXT
    changed = ok(await keeper.patch(secret, {"description": f"{TEXT}\n"}))
    assert changed["description"] == f"{TEXT}\n"
    path = f"/v1/secrets/{secret['id']}/versions"
    added = ok(await keeper.person.post(path, {"value": "x", "comment": TEXT}), 201)
    assert added["comment"] == TEXT


async def test_what_is_written_about_a_product_keeps_its_lines(gate: Gate) -> None:
    vendor = gate.new_person()
    product = await new_product(vendor, await new_package(gate, vendor), custom_description=TEXT)
    assert product["custom_description"] == TEXT
    path, etag = f"/v1/products/{product['id']}:archive", {"if-match": product["etag"]}
    ok(await vendor.post(path, {"archive_reason": TEXT}, headers=etag))


async def test_what_is_written_about_an_install_keeps_its_lines(gate: Gate) -> None:
    customer = await new_customer(gate)
    install = await customer.new_deployed(cluster_id=customer.cluster["id"])
    held = ok(await customer.call(install, ":hold", {"reason": TEXT}))
    assert held["hold"]["reason"] == TEXT
    ok(await customer.call(install, ":release_hold", {}))
    rendered = ok(await customer.call(install, "/renders", {"message": TEXT}), 201)
    assert rendered["message"] == TEXT


@pytest.mark.parametrize("text", _REFUSED)
async def test_what_draws_over_a_terminal_is_refused_everywhere(keeper: Keeper, text: str) -> None:
    body: JSON = {"name": "text", "kind": "generic", "value": "x", "description": text}
    error = error_of(await keeper.person.post("/v1/secrets", body), 400, "INVALID_ARGUMENT")
    assert error["path"] == ["body", "description"]


@pytest.mark.parametrize("name", ["two\nlines", "a\ttab"])
async def test_a_name_is_one_line(gate: Gate, keeper: Keeper, name: str) -> None:
    body: JSON = {"name": name, "kind": "generic", "value": "x"}
    error_of(await keeper.person.post("/v1/secrets", body), 400, "INVALID_ARGUMENT")
    key = {"idempotency-key": a_key()}
    answer = await gate.new_person().post("/v1/regions", {"name": name}, headers=key)
    assert answer.status_code in {400, 422}
