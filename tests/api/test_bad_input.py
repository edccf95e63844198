"""Whatever is wrong with a request is a 4xx that names the place, and nothing is written."""

import json
from typing import Any

import httpx
import pytest

from domain.identifiers import Prefix, new_id
from tests.api import contract
from tests.api.gate import Gate, Person

CANARY = "canary-7f3a"
LONG = "k" * 80
REGION = new_id(Prefix.REGION)
# In the names of tests, which are the same in each process that runs some of them.
NOWHERE = "0" * 32
BOOTSTRAPS = f"/v1/clusters/clu_{NOWHERE}/worker_bootstraps"
SERVER = {
    "csr": "",
    "hostname": "web-1",
    "operating_system": "linux",
    "architecture": "amd64",
    "addresses": [],
}

# Of each route with a body: a field's path, and bodies that are wrong there.
WRONG_FIELDS: list[tuple[str, str, str, list[Any]]] = [
    (
        "POST",
        "/v1/workspaces",
        "name",
        [{}, {"name": ""}, {"name": "x" * 101}, {"name": 7}, {"name": None}, {"name": ["x"]}],
    ),
    (
        "POST",
        "/v1/workspaces",
        "slug",
        [
            {"name": "x", "slug": slug}
            for slug in ("ab", "a" * 40, "Upper", "-dash", "dash-", "a b c", "ä-bc", "", None, 7)
        ],
    ),
    (
        "POST",
        "/v1/regions",
        "icon",
        [
            {"name": "x", "icon": icon}
            for icon in (
                "javascript:alert(1)",
                "file:///x",
                "http://example.test/i",
                "https:",
                "https://[",
                "data:text/html,<script>",
                "plain",
                "https://" + "x" * 256,
                7,
            )
        ],
    ),
    (
        "POST",
        "/v1/regions",
        "name",
        [
            {"name": name}
            for name in (
                *("a\u0000b", "a\nb", "a\x1b[2J", "a\u2028b", "a\u2029b"),
                *("a\u202eb", "a\u2066b", "a\u200fb"),
                *(" ", "\u00a0\u3000", "\u200b\u200d", "\u3164 "),
            )
        ],
    ),
    (
        "POST",
        "/v1/api_tokens",
        "expires_at",
        [
            {"name": "x", "expires_at": end}
            for end in (-1, 0, 1, 10**30, 253402300800, 1.5, "1999999999", True, [1])
        ],
    ),
    (
        "POST",
        "/v1/clusters",
        "region_id",
        [
            {"name": "x"},
            {"name": "x", "region_id": new_id(Prefix.CLUSTER)},
            {"name": "x", "region_id": "reg_"},
            {"name": "x", "region_id": REGION.upper()},
            {"name": "x", "region_id": REGION + "0" * 30},
            {"name": "x", "region_id": None},
        ],
    ),
    (
        "POST",
        "/v1/clusters",
        "network_profile",
        [{"name": "x", "region_id": REGION, "network_profile": value} for value in ("x", 1, None)],
    ),
    ("POST", "/v1/clusters", CANARY, [{"name": "x", "region_id": REGION, CANARY: CANARY}]),
    ("POST", "/v1/regions", "slug", [{"name": "x", "slug": "y"}]),
    (
        "POST",
        BOOTSTRAPS,
        "ttl_seconds",
        [{"ttl_seconds": ttl} for ttl in (59, 86_401, -1, 10**30, 900.5, "900", True, None)],
    ),
    ("POST", BOOTSTRAPS, CANARY, [{CANARY: CANARY}]),
    (
        "PATCH",
        f"/v1/machines/mch_{NOWHERE}",
        "name",
        [{"name": name} for name in ("x" * 121, "a\nb", "a\u202eb", "\u200b", 7, ["x"])],
    ),
    (
        "POST",
        "/v1/nodes",
        "hostname",
        [SERVER | {"hostname": name} for name in ("", "-x", "a b", "a\nb", "x" * 254, None, 7)],
    ),
    ("POST", "/v1/nodes", "architecture", [SERVER | {"architecture": "s390x"}]),
    ("POST", "/v1/nodes", CANARY, [SERVER | {CANARY: CANARY}]),
    (
        "POST",
        "/v1/nodes",
        "addresses",
        [SERVER | {"addresses": value} for value in (["10.0.0.7"] * 33, None, "10.0.0.7")],
    ),
    (
        "POST",
        "/v1/installs",
        "initial_values",
        [{"region_id": REGION, "initial_values": value} for value in (["x"], "x", 7, None)],
    ),
    ("POST", "/v1/installs", CANARY, [{"region_id": REGION, CANARY: CANARY}]),
    (
        "PATCH",
        f"/v1/installs/inst_{NOWHERE}",
        "pinned_semver",
        [{"pinned_semver": value} for value in ("", "one", "1.0.0\n", "1" * 300, 7)],
    ),
    (
        "POST",
        f"/v1/installs/inst_{NOWHERE}:hold",
        "reason",
        [{"reason": value} for value in ("", "a\rb", "x" * 501, None)],
    ),
    (
        "POST",
        "/v1/grants",
        "consent",
        [{"install_id": f"inst_{NOWHERE}", "consent": value} for value in ("maybe", 1, None)],
    ),
    (
        "POST",
        f"/v1/rollouts/roll_{NOWHERE}:approve",
        "digest",
        [{"digest": value} for value in ("", "a\u0000b", "x" * 129, None)],
    ),
    (
        "POST",
        "/v1/emergency_stops",
        "scope",
        [{"scope": value, "reason": "x"} for value in ("planet", "", None, 7)],
    ),
    (
        "POST",
        "/v1/emergency_stops",
        "reason",
        [{"scope": "workspace", "reason": value} for value in ("", "a\rb", "x" * 501, None)],
    ),
]

# Documents that JSON, or PostgreSQL's jsonb, does not have.
UNSTORABLE = {
    "a NUL": r'{"a": "b\u0000"}',
    "a NUL in a name": r'{"a\u0000": "b"}',
    "half a pair": r'{"a": "\ud800"}',
    "no number": '{"a": NaN}',
    "too large a number": '{"a": [1e999]}',
    "too deep": '{"a": ' + "[" * 100 + "]" * 100 + "}",
    "far too deep": '{"a":' * 900 + "0" + "}" * 900,
}
INSTALL = {"product_id": f"prod_{NOWHERE}", "region_id": f"reg_{NOWHERE}"}
SOURCE = {"kind": "helm", "repo_url": "oci://registry.test/web", "target_revision": "1.0.0"}
VERSION = {"semver": "1.0.0", "ref": "1.0.0"}
HERE = "here"
# Of each route that takes a document of people's own: a body with it.
DOCUMENTS: list[tuple[str, str, Any]] = [
    ("POST", "/v1/installs", INSTALL | {"initial_values": HERE}),
    ("PATCH", f"/v1/installs/inst_{NOWHERE}", {"values": HERE}),
    ("POST", "/v1/packages", {"name": "web", "sources": [SOURCE | {"values": HERE}]}),
    ("POST", f"/v1/packages/pkg_{NOWHERE}/versions", VERSION | {"input_schema": HERE}),
]


def failure_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert contract.differences(answer.json(), contract.ERROR) == [], answer.text
    error: dict[str, Any] = answer.json()["errors"][0]
    return error


@pytest.fixture(scope="module")
def person(gate: Gate) -> Person:
    return gate.new_person()


@pytest.fixture(autouse=True)
def _nothing_is_written(gate: Gate, person: Person) -> Any:  # noqa: ANN401 - a generator
    tables = (
        *("api_tokens", "audit_events", "clusters", "idempotency_keys", "machines", "operations"),
        *("regions", "worker_bootstraps", "emergency_stops", "grants", "installs", "packages"),
        *("products", "registry_connections", "rollouts"),
    )
    before = {table: gate.count(table, person.workspace) for table in tables}
    yield
    assert {table: gate.count(table, person.workspace) for table in tables} == before


@pytest.mark.parametrize(
    ("method", "path", "field", "body"),
    [(m, p, field, body) for m, p, field, bodies in WRONG_FIELDS for body in bodies],
)
async def test_a_wrong_field_is_named(
    person: Person,
    method: str,
    path: str,
    field: str,
    body: Any,  # noqa: ANN401 - whatever is wrong
) -> None:
    headers = {"idempotency-key": "k", "if-match": "1"}
    answer = await person.call(method, path, json=body, headers=headers)
    error = failure_of(answer, 422)
    assert error["path"] == ["body", field]
    assert error["metadata"]["reason"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("name", "said"),
    [("", "is empty"), ("  ", "blanks only"), ("a\u202eb", "direction of the text")],
)
async def test_a_name_that_cannot_be_read_is_refused_in_words(
    person: Person, name: str, said: str
) -> None:
    message = failure_of(await person.post("/v1/regions", {"name": name}), 422)["message"]
    assert said in message
    assert "String should" not in message


@pytest.mark.parametrize(
    ("wrong", "example"),
    [
        ({"pinned_semver": "latest"}, "1.4.0"),
        (
            {"update_window": {"timezone": "UTC", "days": ["mon"], "start": "9", "end": "x"}},
            "02:30",
        ),
    ],
)
async def test_what_has_another_form_is_told_the_form_with_an_example(
    person: Person, wrong: dict[str, Any], example: str
) -> None:
    path = f"/v1/installs/inst_{NOWHERE}"
    answer = await person.call("PATCH", path, json=wrong, headers={"if-match": "1"})
    message = failure_of(answer, 422)["message"]
    assert example in message
    assert "pattern" not in message


async def test_few_of_many_wrong_fields_are_named(person: Person) -> None:
    body = {f"k{number}": 0 for number in range(20_000)}
    answer = await person.post("/v1/regions", body)
    failure_of(answer, 422)
    assert len(answer.json()["errors"]) == 20
    assert len(answer.content) < 8192


async def test_what_was_sent_is_never_shown_back(person: Person) -> None:
    bodies: list[Any] = [
        {"name": CANARY * 10, "region_id": CANARY, "network_profile": CANARY},
        {"name": [CANARY], "region_id": {"x": CANARY}},
        [CANARY],
        CANARY,
    ]
    for body in bodies:
        answer = await person.post("/v1/clusters", body)
        failure_of(answer, 422)
        assert CANARY not in answer.text
    sent = {"name": "x", "kubeconfig": CANARY, "provider": CANARY}
    path = f"/v1/clusters/{new_id(Prefix.CLUSTER)}"
    answer = await person.call("PATCH", path, json=sent, headers={"if-match": "1"})
    failure_of(answer, 422)
    assert CANARY not in answer.text


@pytest.mark.parametrize(
    ("path", "content", "place"),
    [
        ("/v1/regions", '{"name": "a", "name": "b"}', ["name"]),
        ("/v1/regions", '{"name": "a", "\\u006eame": "a"}', ["name"]),
        ("/v1/regions", '{"x": [{"y": 1}, {"z": {"b": 1, "a": 2, "b": 3}}]}', ["x", "1", "z", "b"]),
        ("/v1/regions", '{"a": {"c": 1, "c": 1}, "a": 2}', ["a"]),
        ("/v1/regions", f'{{"{LONG}": 1, "{LONG}": 2}}', [LONG[:64]]),
        ("/v1/installs", f'{{"values": {{"{CANARY}": 1, "{CANARY}": 2}}}}', ["values"]),
        (f"/v1/clusters/clu_{NOWHERE}/worker_bootstraps", '{"labels": 1, "labels": 1}', ["labels"]),
    ],
)
async def test_a_key_that_is_there_twice_is_named(
    person: Person, path: str, content: str, place: list[str]
) -> None:
    answer = await person.call(
        "POST", path, content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert error["metadata"]["reason"] == "INVALID_ARGUMENT"
    assert error["path"] == ["body", *place]
    assert CANARY not in answer.text
    assert contract.differences(answer.json(), contract.ERROR) == []


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b'{"name": "x",}',
        b"\xff\xfe",
        b'{"name": "\xff"}',
        b"[" * 100_000,
        b'{"name": ' + b"9" * 5000 + b"}",
        b"name=x",
    ],
)
async def test_a_body_that_is_no_json_is_refused(person: Person, content: bytes) -> None:
    answer = await person.call(
        "POST", "/v1/regions", content=content, headers={"content-type": "application/json"}
    )
    assert failure_of(answer, 400)["metadata"]["reason"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "content",
    [b'{"name": "\\ud800"}', b'{"name": "x", "\\ud800": 1}', b'{"name": NaN}', b"null", b"[]", b""],
)
async def test_json_that_is_no_region_is_refused(person: Person, content: bytes) -> None:
    answer = await person.call(
        "POST", "/v1/regions", content=content, headers={"content-type": "application/json"}
    )
    assert failure_of(answer, 422)["path"][0] == "body"


@pytest.mark.parametrize("document", UNSTORABLE.values(), ids=UNSTORABLE)
@pytest.mark.parametrize(("method", "path", "body"), DOCUMENTS)
async def test_a_document_that_cannot_be_stored_is_refused(
    person: Person,
    method: str,
    path: str,
    body: Any,  # noqa: ANN401 - JSON
    document: str,
) -> None:
    content = json.dumps(body).replace(f'"{HERE}"', document).encode()
    sent = {"content-type": "application/json", "idempotency-key": "k", "if-match": "1"}
    answer = await person.call(method, path, content=content, headers=sent)
    assert failure_of(answer, 422)["path"][0] == "body"


async def test_a_check_of_a_rollout_can_hold_lines_and_no_nul(person: Person) -> None:
    job = {"kind": "job", "image": "x", "command": ["sh", "-c", "a\nb"]}
    body = {
        "product_id": f"prod_{NOWHERE}",
        "package_version_id": f"pkgv_{NOWHERE}",
        "strategy": {"checks": [job]},
    }
    assert failure_of(await person.post("/v1/rollouts", body), 404)["path"][0] == "body"
    job["command"] = ["a\u0000b"]
    assert "command" in failure_of(await person.post("/v1/rollouts", body), 422)["path"]


async def test_a_body_without_its_content_type_is_refused(person: Person) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "nonsense"):
        answer = await person.call(
            "POST", "/v1/regions", content=b'{"name": "x"}', headers={"content-type": kind}
        )
        assert "content-type: application/json" in failure_of(answer, 422)["message"]


@pytest.mark.parametrize("path", ["/v1/regions", "/v1/operations/op_x:cancel"])
async def test_a_body_of_a_megabyte_is_refused(person: Person, path: str) -> None:
    async def chunks() -> Any:  # noqa: ANN401 - an asynchronous generator
        for _ in range(1024):
            yield b" " * 1024

    sent = {"content-type": "application/json"}
    announced = await person.call("POST", path, content=b" " * 1024 * 1024, headers=sent)
    assert failure_of(announced, 413)["path"] == ["body"]
    if path == "/v1/regions":
        failure_of(await person.call("POST", path, content=chunks(), headers=sent), 413)


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/v1/clusters?limit=0", "limit"),
        ("/v1/clusters?limit=101", "limit"),
        ("/v1/regions?limit=x", "limit"),
        ("/v1/workspaces?limit=1.5", "limit"),
        ("/v1/operations?cursor=", "cursor"),
        ("/v1/operations?cursor=%00", "cursor"),
        ("/v1/operations?cursor=%F0%9F%92%A5", "cursor"),
        ("/v1/clusters?cursor=bm9uc2Vuc2U", "cursor"),
        ("/v1/clusters?cursor=" + "x" * 1000, "cursor"),
        ("/v1/operations?owner_type=cluster", "owner_id"),
        (f"/v1/operations?owner_id=clu_{NOWHERE}", "owner_type"),
        (f"/v1/operations?owner_type=planet&owner_id=clu_{NOWHERE}", "owner_type"),
        (f"/v1/operations?owner_type=cluster&owner_id=reg_{NOWHERE}", "owner_id"),
        ("/v1/operations?owner_type=machine&owner_id=%00", "owner_id"),
        ("/v1/clusters?stat=active", "stat"),
        ("/v1/quotas?cluster_id=", "cluster_id"),
    ],
)
async def test_a_wrong_query_is_named(person: Person, path: str, parameter: str) -> None:
    assert failure_of(await person.get(path), 400)["path"] == ["query", parameter]


async def test_an_address_without_query_parameters_says_so(person: Person) -> None:
    wrong = failure_of(await person.get("/v1/clusters/clu_" + NOWHERE + "?stat=active"), 400)
    assert wrong["message"] == "This address takes no query parameters."


@pytest.mark.parametrize("seconds", ["0", "61", "x", "-1", ""])
async def test_a_wrong_timeout_of_a_wait_is_named(person: Person, seconds: str) -> None:
    answer = await person.post(f"/v1/operations/{new_id(Prefix.OPERATION)}:wait?timeout={seconds}")
    assert failure_of(answer, 400)["path"] == ["query", "timeout"]


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("if-match", None),
        ("if-match", ""),
        ("if-match", "x" * 257),
        ("idempotency-key", ""),
        ("idempotency-key", "x" * 65),
        ("idempotency-key", "\xe4"),
        ("akua-context", "x" * 54),
    ],
)
async def test_a_wrong_header_is_named(person: Person, header: str, value: str | None) -> None:
    headers = {"if-match": "1", "idempotency-key": "k"}
    if value is None:
        del headers[header]
    else:
        headers[header] = value
    path = f"/v1/clusters/{new_id(Prefix.CLUSTER)}:suspend"
    raw = {name: text.encode("latin-1") for name, text in headers.items()}
    assert failure_of(await person.post(path, headers=raw), 400)["path"] == ["header", header]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/", 405),
        ("GET", "/v1", 404),
        ("GET", "/v1/clusters/", 404),
        ("GET", "/v1/planets", 404),
        ("POST", "/v1/clusters:import", 404),
        ("GET", "/v1/quotas/compute%2Fplanets", 404),
        ("PUT", "/v1/clusters", 405),
        ("DELETE", "/v1/clusters", 405),
        ("PATCH", f"/v1/operations/op_{NOWHERE}", 405),
        ("GET", f"/v1/operations/op_{NOWHERE}:wait", 404),
    ],
)
async def test_an_address_or_a_method_that_is_not_there_fails_as_everything_else(
    person: Person, method: str, path: str, status: int
) -> None:
    answer = await person.call(method, path)
    failure_of(answer, status)
    allowed = {"/": "GET, HEAD", "/v1/clusters": "GET, POST"}.get(path, "GET")
    assert answer.headers.get("allow") == (allowed if status == 405 else None)


async def test_a_given_request_id_is_kept_if_it_can_be_one(person: Person) -> None:
    for given in ("req-1", "A" * 64):
        answer = await person.get("/v1/nothing", headers={"x-request-id": given})
        assert answer.headers["x-request-id"] == given
    for given in ("", "a" * 65, "a b", "<script>"):
        answer = await person.get("/healthz", headers={"x-request-id": given})
        assert answer.headers["x-request-id"].startswith("req_")
