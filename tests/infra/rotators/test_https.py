import json
from collections.abc import Iterator

import pytest

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.rotation import Rotation
from domain.secret import MAXIMUM_VALUE_BYTES, SecretValue, ValueEncoding
from infra.outbound import Outbound
from infra.rotators.https import Https
from infra.settings import OutboundSettings
from tests.infra.https_server import HttpsServer, Request, Response, https_server, new_authority
from tests.infra.rotators.rotations import KnownValues, fails, loopback, new_rotation

CURRENT = SecretValue.of_text('canary-current-\u00e9"\\')
NEW = "canary-new"
TOKEN = "canary-token-of-the-endpoint"  # noqa: S105 - planted


class Endpoint:
    """An endpoint that keeps the contract, for one credential of its target."""

    def __init__(self) -> None:
        self.accepted = {CURRENT.text()}
        self.made: dict[str, str] = {}

    def __call__(self, request: Request) -> Response:
        body = json.loads(request.body)
        match body["operation"]:
            case "create":
                made = self.made.setdefault(body["rotation_id"], NEW)
                return Response(200, json.dumps({"value": made}).encode())
            case "set":
                self.accepted.add(body["pending"]["value"])
            case "test":
                accepted = body["pending"]["value"] in self.accepted
                return Response(200, json.dumps({"accepted": accepted}).encode())
            case "unset":
                self.accepted.discard(self.made.pop(body["rotation_id"], ""))
            case "retire":
                self.accepted.discard(body["retired"]["value"])
        return Response(204, b"")


@pytest.fixture(scope="module")
def shared() -> Iterator[HttpsServer]:
    with https_server() as found:
        yield found


@pytest.fixture
def server(shared: HttpsServer) -> HttpsServer:
    shared.answer = lambda _: Response()
    shared.requests.clear()
    return shared


def rotator(values: KnownValues | None = None) -> Https:
    return Https(loopback(), values or KnownValues())


def rotation_at(server: HttpsServer, **settings: object) -> Rotation:
    given = {"url": f"{server.url}/rotate", "ca": server.authority.ca, **settings}
    return new_rotation(Https.check_settings(new_id(Prefix.SECRET), given))


async def test_every_step_may_be_repeated_and_the_value_is_in_the_body_alone(
    server: HttpsServer,
) -> None:
    endpoint = server.answer = Endpoint()
    values = KnownValues()
    https, rotation = rotator(values), rotation_at(server, auth_secret_id=values.add(TOKEN))
    pending = await https.create(rotation, CURRENT)
    assert await https.create(rotation, CURRENT) == pending
    for _ in range(2):
        await https.set(rotation, pending, CURRENT)
    for _ in range(2):
        await https.test(rotation, pending)
    assert endpoint.accepted == {CURRENT.text(), NEW}
    for _ in range(2):
        await https.retire(rotation, CURRENT, pending)
    assert endpoint.accepted == {NEW}
    keys = [request.headers["idempotency-key"] for request in server.requests]
    assert len(keys) == 8
    assert keys == sorted(keys, key=keys.index)
    assert len(set(keys)) == 4
    assert all(rotation.operation_id in key for key in keys)
    for request in server.requests:
        outside_body = f"{request.path} {request.headers}"
        assert request.headers["host"] == f"localhost:{server.port}"
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        assert NEW not in outside_body
        assert "canary-current" not in outside_body


@pytest.mark.parametrize("reached", ["nothing", "create", "set", "test"])
async def test_an_undo_leaves_the_current_value_alone(server: HttpsServer, reached: str) -> None:
    endpoint = server.answer = Endpoint()
    https, rotation = rotator(), rotation_at(server)
    pending = None if reached == "nothing" else await https.create(rotation, CURRENT)
    if pending is not None and reached != "create":
        await https.set(rotation, pending, CURRENT)
        if reached == "test":
            await https.test(rotation, pending)
    for _ in range(2):
        await https.unset(rotation, pending, CURRENT)
    assert endpoint.accepted == {CURRENT.text()}


async def test_any_bytes_come_and_go_as_they_are(server: HttpsServer) -> None:
    made = SecretValue(bytes(range(256)) * (MAXIMUM_VALUE_BYTES // 256), ValueEncoding.BASE64)
    server.answer = lambda _: Response(
        200, json.dumps({"value": made.text(), "value_encoding": "base64"}).encode()
    )
    current = SecretValue(b"\0\xff", ValueEncoding.BASE64)
    assert await rotator().create(rotation_at(server), current) == made
    assert json.loads(server.requests[0].body)["current"] == {
        "value": "AP8=",
        "value_encoding": "base64",
    }


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (302, Reason.FAILED_PRECONDITION),
        (400, Reason.FAILED_PRECONDITION),
        (401, Reason.CREDENTIAL_REJECTED),
        (403, Reason.CREDENTIAL_REJECTED),
        (404, Reason.FAILED_PRECONDITION),
        (429, Reason.DEPENDENCY_UNAVAILABLE),
        (500, Reason.DEPENDENCY_UNAVAILABLE),
    ],
)
async def test_a_status_says_whether_trying_again_helps_and_nothing_is_followed(
    server: HttpsServer, status: int, reason: Reason
) -> None:
    echo = Response(status, CURRENT.data, {"location": f"{server.url}/elsewhere"})
    server.answer = lambda _: echo
    with fails(reason, "canary", "elsewhere"):
        await rotator().create(rotation_at(server), CURRENT)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"canary",
        b"{}",
        b'{"value": ""}',
        b'{"value": 7}',
        b'{"value": "canary", "value_encoding": "rot13"}',
        json.dumps({"value": CURRENT.text()}).encode(),
        json.dumps({"value": "x" * (MAXIMUM_VALUE_BYTES + 1)}).encode(),
        b" " * (1024 * 1024) + b"{}",
        b"[" * 100_000,
    ],
    ids=range(11),
)
async def test_an_answer_beside_the_contract_is_refused_without_being_told(
    server: HttpsServer, answer: bytes
) -> None:
    server.answer = lambda _: Response(200, answer)
    with fails(Reason.FAILED_PRECONDITION, "canary", "rot13"):
        await rotator().create(rotation_at(server), CURRENT)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b'{"accepted": false}', Reason.CREDENTIAL_REJECTED),
        (b'{"accepted": "yes"}', Reason.FAILED_PRECONDITION),
        (b"{}", Reason.FAILED_PRECONDITION),
    ],
)
async def test_only_an_explicit_yes_passes_the_test(
    server: HttpsServer, answer: bytes, reason: Reason
) -> None:
    server.answer = lambda _: Response(200, answer)
    with fails(reason):
        await rotator().test(rotation_at(server), CURRENT)


async def test_no_value_goes_to_a_server_that_is_not_the_one(server: HttpsServer) -> None:
    with https_server("elsewhere.example") as elsewhere:
        strangers = [
            rotation_at(server, ca=new_authority("localhost").ca),
            rotation_at(server, ca=None),
            rotation_at(elsewhere),
        ]
        for rotation in strangers:
            with fails(Reason.DEPENDENCY_UNAVAILABLE, "canary"):
                await rotator().set(rotation, CURRENT, CURRENT)
        assert elsewhere.requests == server.requests == []


async def test_an_address_that_is_not_public_is_not_asked(server: HttpsServer) -> None:
    closed = Https(Outbound(OutboundSettings()), KnownValues())
    for host in ("localhost", "127.0.0.1", "[::ffff:127.0.0.1]"):
        with fails(Reason.FAILED_PRECONDITION):
            await closed.create(rotation_at(server, url=f"https://{host}:{server.port}/"), CURRENT)
    assert server.requests == []


async def test_an_address_instead_of_a_name_works_where_the_certificate_has_it(
    server: HttpsServer,
) -> None:
    server.answer = Endpoint()
    url = f"https://127.0.0.1:{server.port}/rotate"
    assert await rotator().create(rotation_at(server, url=url), CURRENT)


async def test_a_bearer_token_that_would_break_the_header_is_not_sent(
    server: HttpsServer,
) -> None:
    values = KnownValues()
    rotation = rotation_at(server, auth_secret_id=values.add("canary\r\nx: y"))
    with fails(Reason.FAILED_PRECONDITION, "canary"):
        await rotator(values).create(rotation, CURRENT)
    assert server.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "https://",
        "https://user:canary@example.com",
        "https://example.com/?token=canary",
        "https://example.com/#canary",
        "https://example.com:99999",
        "https://exam ple.com",
        "https://example.com/\r\nx",
        "file:///canary",
    ],
)
def test_an_address_that_could_carry_or_lose_a_secret_is_refused(url: str) -> None:
    with fails(Reason.INVALID_ARGUMENT, "canary"):
        Https.check_settings(new_id(Prefix.SECRET), {"url": url})


def test_the_endpoints_own_token_cannot_be_rotated_with_itself() -> None:
    secret_id = new_id(Prefix.SECRET)
    with pytest.raises(BulkheadError) as refused:
        Https.check_settings(secret_id, {"url": "https://example.com", "auth_secret_id": secret_id})
    assert refused.value.status == 400
    assert refused.value.path == ("body", "settings", "auth_secret_id")
