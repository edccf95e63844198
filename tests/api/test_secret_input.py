"""What is wrong with a request about secrets is a 400 that repeats nothing of a value."""

import logging
from typing import Any

import httpx
import pytest

from tests.api import contract
from tests.api.gate import JSON, Gate, a_key
from tests.api.keeper import VALUE, error_of, new_keeper, ok

CANARY = "canary-5e1d-value"
_SECRET = {"name": "n", "kind": "generic", "value": CANARY}

# Bodies that are wrong somewhere, each with the canary where a value may be.
WRONG_SECRETS: list[Any] = [
    {**_SECRET, "value": [CANARY]},
    {**_SECRET, "value": {CANARY: 1}},
    {**_SECRET, "value": 7, "name": CANARY * 20},
    {**_SECRET, "name": 7},
    {**_SECRET, "kind": CANARY},
    {**_SECRET, "kind": ["generic", CANARY]},
    {**_SECRET, "value_encoding": CANARY},
    {**_SECRET, "value_encoding": "base64"},
    {**_SECRET, "value": CANARY * 10_000},
    {**_SECRET, "username": CANARY},
    {**_SECRET, "kind": "cloud_provider/aws", "username": CANARY},
    {**_SECRET, "kind": "webhook_signing", "value": CANARY[:15]},
    {**_SECRET, "description": CANARY + "\u0000"},
    {**_SECRET, "labels": {"a": CANARY * 20}},
    {**_SECRET, "labels": [CANARY]},
    {**_SECRET, "labels": {CANARY: 1}},
    {**_SECRET, CANARY: 1},
    {**_SECRET, "expire_time": CANARY},
    {**_SECRET, "expire_time": 1},
    {"name": "n", "kind": "generic", "data": CANARY},
    {"name": "n", "value": CANARY},
    [CANARY],
    CANARY,
]
WRONG_CHANGES: list[JSON] = [
    {"value": CANARY},
    {"version_aliases": {CANARY: "1"}},
    {"mime_type": [CANARY]},
]
WRONG_REQUESTS: list[tuple[str, JSON]] = [
    ("/v1/secrets/{}/versions", {"value": [CANARY]}),
    ("/v1/secrets/{}/versions", {"value": CANARY, "comment": 7}),
    ("/v1/secrets/{}/versions", {"comment": CANARY}),
    ("/v1/secrets/{}/versions/current:access", {"wrap_ttl_seconds": CANARY}),
    ("/v1/secrets/unwrap", {"token": [CANARY]}),
    ("/v1/secrets/unwrap", {"token": f"{CANARY} {CANARY}"}),
]


def _quotes(answer: httpx.Response) -> bool:
    return CANARY in answer.text or CANARY in str(answer.headers)


async def test_no_error_and_no_log_repeats_a_value(
    gate: Gate, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    keeper = await new_keeper(gate)
    secret = await keeper.create("mine")
    path = f"/v1/secrets/{secret['id']}"
    raw = b'{"name": "n", "kind": "generic", "value": "%s\\ud800"}' % CANARY.encode()
    broken = b'{"name": "n", "kind": "generic", "value": "%s' % CANARY.encode()
    person, json = keeper.person, {"content-type": "application/json"}
    answers = [
        *[
            await person.post("/v1/secrets", body, headers={"idempotency-key": a_key()})
            for body in WRONG_SECRETS
        ],
        *[
            await person.call("POST", "/v1/secrets", content=content, headers=json)
            for content in (raw, broken, broken + b'\xff"}')
        ],
        *[
            await person.call("PATCH", path, json=body, headers={"if-match": secret["etag"]})
            for body in WRONG_CHANGES
        ],
        *[await person.post(to.format(secret["id"]), body) for to, body in WRONG_REQUESTS],
        *[
            await person.post("/v1/secrets/validate_token", {"provider": provider, "value": value})
            for provider, value in (("azure", CANARY), ("hcloud", [CANARY]))
        ],
    ]
    for answer in answers:
        error_of(answer, 400, "INVALID_ARGUMENT")
        assert contract.differences(answer.json(), contract.ERROR) == []
        assert not _quotes(answer)
    output = capfd.readouterr()
    assert CANARY not in output.out + output.err
    assert CANARY not in caplog.text
    assert [row["name"] for row in ok(await keeper.person.get("/v1/secrets"))["data"]] == ["mine"]


# Where a key is there twice, and which of its place an answer may name.
TWICE: list[tuple[str, str, list[str]]] = [
    ("/v1/secrets", '{"name": "n", "kind": "generic", "value": "%s", "value": "x"}', ["value"]),
    ("/v1/secrets", '{"name": "n", "value": {"%s": 1, "%s": 2}}', ["value"]),
    ("/v1/secrets", '{"name": "n", "%s": 1, "%s": 2}', []),
    ("/v1/secrets", '{"name": "n", "labels": {"%s": "a", "%s": "b"}}', ["labels"]),
    ("/v1/secrets/{}/versions", '{"value": "x", "value": "%s"}', ["value"]),
    ("/v1/secrets/{}/versions/current:access", '{"%s": 1, "%s": 1}', []),
    (
        "/v1/secrets/{}/versions/current:access",
        '{"wrap_ttl_seconds": 60, "wrap_ttl_seconds": "%s"}',
        ["wrap_ttl_seconds"],
    ),
    ("/v1/registry_connections", '{"name": "n", "%s": 1, "%s": 2}', []),
]


async def test_a_key_that_is_there_twice_is_refused_without_what_may_be_a_value(
    gate: Gate,
) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create("mine")
    for path, content, place in TWICE:
        answer = await keeper.person.call(
            "POST",
            path.format(secret["id"]),
            content=content.replace("%s", CANARY),
            headers={"content-type": "application/json"},
        )
        assert error_of(answer, 400, "INVALID_ARGUMENT")["path"] == ["body", *place], content
        assert not _quotes(answer)
    assert (await keeper.get(secret))["etag"] == secret["etag"]


async def test_no_answer_but_plaintext_has_a_value(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    key = {"idempotency-key": a_key()}
    made = [await keeper.person.post("/v1/secrets", _SECRET, headers=key) for _ in range(2)]
    secret = ok(made[0], 201)
    path = f"/v1/secrets/{secret['id']}"
    second = await keeper.person.post(f"{path}/versions", {"value": CANARY + "2"}, headers=key)
    error_of(second, 409, "CONFLICT")
    answers = [
        *made,
        await keeper.person.post(f"{path}/versions", {"value": CANARY + "2"}),
        await keeper.person.get(path),
        await keeper.person.get("/v1/secrets"),
        await keeper.person.get(f"{path}/versions"),
        await keeper.patch(secret, {"description": "x"}),
        await keeper.person.get("/v1/audit_events"),
    ]
    assert not any(_quotes(answer) for answer in answers)
    with gate.administrator() as connection:
        for table in ("secrets", "secret_versions", "idempotency_keys", "audit_events"):
            rows = connection.execute(f"SELECT {table}::text FROM {table}").fetchall()  # noqa: S608 - tables of ours
            assert CANARY not in str(rows), table


async def test_a_secret_and_its_versions_have_their_shape(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    full: JSON = {
        "name": "registry",
        "kind": "oci_registry",
        "value": VALUE,
        "username": "robot",
        "description": "d" * 500,
        "labels": {"team": "a", "empty": ""},
        "expire_time": 4102444800,
    }
    secret = ok(await keeper.person.post("/v1/secrets", full), 201)
    assert contract.differences(secret, contract.SECRET, *contract.SECRET_OPTIONAL) == []
    assert secret["attributes"] == {"username": "robot"}
    wanted = {name: full[name] for name in ("description", "labels", "expire_time", "kind")}
    assert {name: secret[name] for name in wanted} == wanted
    changed = ok(
        await keeper.patch(
            secret, {"labels": {"only": "this"}, "mime_type": "text/plain", "name": "renamed"}
        )
    )
    assert changed["labels"] == {"only": "this"}
    assert (changed["mime_type"], changed["name"]) == ("text/plain", "renamed")
    assert changed["etag"] != secret["etag"]
    assert ok(await keeper.patch(secret, {"name": "renamed"})) == changed
    await keeper.create("taken")
    error_of(await keeper.patch(secret, {"name": "taken"}), 409, "CONFLICT")
    commented = await keeper.person.post(
        f"/v1/secrets/{secret['id']}/versions", {"value": "x", "comment": "why"}
    )
    version = ok(commented, 201)
    assert contract.differences(version, contract.SECRET_VERSION, "comment", "destroyed_at") == []
    assert version["comment"] == "why"
    page = contract.page_of(contract.shape(contract.SECRET_VERSION, "comment", "destroyed_at"))
    listed = await keeper.person.get(f"/v1/secrets/{secret['id']}/versions?state=enabled&limit=1")
    assert contract.differences(ok(listed), page) == []
    following = ok(
        await keeper.person.get(
            f"/v1/secrets/{secret['id']}/versions?limit=1&cursor={listed.json()['next_cursor']}"
        )
    )
    assert [row["version_number"] for row in following["data"]] == [1]


async def test_a_rotation_is_set_changed_started_and_removed(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create(kind="webhook_signing", value="x" * 32)
    path = f"/v1/secrets/{secret['id']}"
    error_of(await keeper.person.get(f"{path}/rotation"), 404)
    error_of(await keeper.person.post(f"{path}:rotate"), 404)
    body = {
        "rotator": "webhook_signing_key",
        "interval_seconds": 86400,
        "window": {"start_minute": 60, "minutes": 120},
    }
    made = ok(await keeper.person.call("PUT", f"{path}/rotation", json=body))
    assert (made["window"], made["retirement"]) == (body["window"], "keep")
    assert made["next_rotation_at"] > secret["created_at"]
    old = {"if-match": "9"}
    error_of(await keeper.person.call("PUT", f"{path}/rotation", json=body, headers=old), 409)
    changed = await keeper.person.call(
        "PUT",
        f"{path}/rotation",
        json={**body, "retirement": "disable"},
        headers={"if-match": made["etag"]},
    )
    assert ok(changed)["retirement"] == "disable"
    for wrong in (
        {"interval_seconds": 1},
        {"settings": {"unheard_of": CANARY}},
        {"rotator": "x"},
        {"window": {"start_minute": 1440, "minutes": 1}},
    ):
        answer = await keeper.person.call("PUT", f"{path}/rotation", json={**body, **wrong})
        error_of(answer, 400, "INVALID_ARGUMENT")
        assert not _quotes(answer)
    key = {"idempotency-key": a_key()}
    started = ok(await keeper.person.post(f"{path}:rotate", headers=key), 202)
    assert (started["owner_type"], started["owner_id"]) == ("secret", secret["id"])
    assert ok(await keeper.person.post(f"{path}:rotate", headers=key), 202) == started
    busy = error_of(await keeper.person.post(f"{path}:rotate"), 409, "CONFLICT")
    assert busy["metadata"]["operation_id"] == started["id"]
    assert await gate.workflow(started) is not None
    assert (await keeper.person.call("DELETE", f"{path}/rotation")).status_code == 204
    error_of(await keeper.person.get(f"{path}/rotation"), 404)


async def test_a_cloud_that_cannot_be_asked_holds_nothing_up(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create(
        kind="cloud_provider/aws", value="x" * 40, aws_access_key_id="AKIAIOSFODNN7EXAMPLE"
    )
    assert (secret["validation"]["state"], secret["validation"]["validated_at"]) == (
        "unspecified",
        0,
    )
    assert secret["validation"]["error"]
    assert await keeper.get(secret) == secret
    key = f'{{"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "{CANARY}"}}'
    for provider, value, why in (
        ("hcloud", CANARY, "reached"),
        ("aws", key, "reached"),
        ("aws", CANARY, "access_key_id"),
        ("gcp", CANARY, "no key file"),
    ):
        body = {"provider": provider, "value": value}
        found = ok(await keeper.person.post("/v1/secrets/validate_token", body))
        assert found["valid"] is False
        assert why in found["error"]
        assert CANARY not in found["error"]
    assert not _quotes(await keeper.person.get("/v1/audit_events"))
