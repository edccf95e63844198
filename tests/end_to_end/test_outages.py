"""A dependency that is away or closed: a typed error on the operation, and work that goes on."""

from uuid import uuid4

from tests.end_to_end.seal import sealed
from tests.end_to_end.stack import Body, Bulkhead


def _error_while_away(bulkhead: Bulkhead, creating: Body) -> Body:
    """Wait until the operation says what it waits for; the metadata API answers meanwhile."""

    def failed() -> Body | None:
        operation = bulkhead.get(f"/operations/{creating['id']}")
        assert not operation["done"], operation["error"]
        error: Body | None = operation["last_error"]
        return error

    error = bulkhead.eventually(failed)
    assert bulkhead.http.get("/clusters").status_code == 200
    assert bulkhead.http.get(f"/clusters/{creating['owner_id']}").status_code == 200
    return error


def _goes_on(bulkhead: Bulkhead, creating: Body) -> None:
    bulkhead.stack.up()
    ended = bulkhead.end_of(creating)
    assert ended["state"] == "SUCCEEDED", ended["error"]
    assert ended["last_error"] is None
    bulkhead.delete_cluster(creating["owner_id"])


def test_a_create_waits_for_a_secret_store_that_is_down(bulkhead: Bulkhead) -> None:
    region = bulkhead.new_region()
    bulkhead.stack.supervisor.stop("openbao", "openbao")
    try:
        creating = bulkhead.create_cluster(region)
        error = _error_while_away(bulkhead, creating)
        assert error["reason"] == "DEPENDENCY_UNAVAILABLE"
    finally:
        bulkhead.stack.up()
    _goes_on(bulkhead, creating)


def test_a_create_waits_for_a_secret_store_that_is_sealed(bulkhead: Bulkhead) -> None:
    region = bulkhead.new_region()
    with sealed(bulkhead):
        creating = bulkhead.create_cluster(region)
        error = _error_while_away(bulkhead, creating)
        assert error["reason"] == "DEPENDENCY_UNAVAILABLE"
    _goes_on(bulkhead, creating)


def test_values_wait_for_a_secret_store_that_is_sealed_and_metadata_does_not(
    bulkhead: Bulkhead,
) -> None:
    body = {"name": f"sealed-{uuid4().hex}", "kind": "generic", "value": "first"}
    secret = bulkhead.persist("POST", "/secrets", json=body)
    path, key = f"/secrets/{secret['id']}/versions", {"idempotency-key": uuid4().hex}
    with sealed(bulkhead):
        for answer in (
            bulkhead.http.post(path, json={"value": "second"}, headers=key),
            bulkhead.http.post(path, json={"value": "third"}),
            bulkhead.http.post(f"{path}/current:access"),
        ):
            assert answer.status_code == 503, answer.text
            assert answer.headers["retry-after"]
        assert len(bulkhead.get(path)["data"]) == 1
        assert bulkhead.get(f"/secrets/{secret['id']}")["version_count"] == 1
    added = bulkhead.persist("POST", path, json={"value": "second"}, headers=key)
    assert bulkhead.persist("POST", f"{path}/{added['id']}:access")["value"] == "second"
    assert bulkhead.persist("POST", f"{path}/current:access")["value"] == "first"
