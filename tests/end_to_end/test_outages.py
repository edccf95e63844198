"""A dependency that is away or closed: a typed error on the operation, and work that goes on."""

import shutil
from pathlib import Path

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
    seal: Path = bulkhead.stack.home.openbao / "seal.key"
    kept = seal.with_suffix(".kept")
    bulkhead.stack.supervisor.stop("openbao", "openbao")
    shutil.copy2(seal, kept)
    # Another key of the right length: the server runs, and cannot open its store.
    seal.write_bytes(bytes(reversed(seal.read_bytes())))
    bulkhead.stack.supervisor.restart("openbao", "openbao")
    try:
        creating = bulkhead.create_cluster(region)
        error = _error_while_away(bulkhead, creating)
        assert error["reason"] == "DEPENDENCY_UNAVAILABLE"
    finally:
        bulkhead.stack.supervisor.stop("openbao", "openbao")
        kept.replace(seal)
        bulkhead.stack.up()
    _goes_on(bulkhead, creating)
