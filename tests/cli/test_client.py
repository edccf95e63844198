"""The rules of repetition and of errors, on a transport that fails on demand."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from cli.client import ApiClient
from cli.configuration import Connection
from cli.errors import ApiError, CliError, ExitCode, UnreachableError, exit_code_of

Answer = httpx.Response | httpx.TransportError | KeyboardInterrupt


class Wire:
    """Gives the prepared answers in turn and keeps what was sent."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.sent: list[httpx.Request] = []
        self.pauses: list[float] = []
        self.client = ApiClient(
            Connection(url="https://api.example", token="the-token"),
            workspace_id="ws_1",
            transport=httpx.MockTransport(self._answer),
            sleep=self.pauses.append,
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        answer = self._answers.pop(0)
        if not isinstance(answer, httpx.Response):
            raise answer
        return answer


MakeWire = Callable[..., Wire]


@pytest.fixture
def wire() -> Iterator[MakeWire]:
    made: list[Wire] = []

    def make(*answers: Answer) -> Wire:
        made.append(Wire(*answers))
        return made[-1]

    yield make
    for one in made:
        one.client.close()


def _error(status: int, reason: str = "", **headers: str) -> httpx.Response:
    metadata = {"reason": reason} if reason else {}
    item: dict[str, Any] = {"code": 7000, "message": "No.", "metadata": metadata}
    body = {"success": False, "errors": [item], "result": {}}
    return httpx.Response(status, json=body, headers=headers)


def test_a_create_is_repeated_with_the_same_key_until_an_answer_arrives(wire: MakeWire) -> None:
    lost = wire(
        httpx.ConnectError("refused"),
        httpx.ReadError("gone"),
        _error(503, "DEPENDENCY_UNAVAILABLE", **{"retry-after": "3"}),
        httpx.Response(202, json={"id": "op_1"}),
    )

    assert lost.client.create("/clusters", {"name": "a"}) == {"id": "op_1"}

    assert len({request.headers["idempotency-key"] for request in lost.sent}) == 1
    assert {request.headers["authorization"] for request in lost.sent} == {"Bearer the-token"}
    assert {request.headers["akua-context"] for request in lost.sent} == {"ws_1"}
    assert lost.pauses[0] < lost.pauses[1] < lost.pauses[2] == 3.0


def test_a_create_without_a_key_is_not_repeated_once_it_may_have_arrived(wire: MakeWire) -> None:
    lost = wire(httpx.ConnectError("refused"), httpx.ReadError("gone"))

    with pytest.raises(UnreachableError, match="may have been carried out") as failed:
        lost.client.create("/workspaces", {}, once=False)

    assert len(lost.sent) == 2
    assert failed.value.exit_code is ExitCode.UNAVAILABLE


def test_repetition_ends(wire: MakeWire) -> None:
    away = wire(*[httpx.ConnectError("[Errno 111] Connection refused")] * 5)

    with pytest.raises(UnreachableError, match="does not answer: Connection refused") as failed:
        away.client.get("/clusters/clu_1")

    assert len(away.sent) == 5
    assert "may have been carried out" not in failed.value.message


def test_an_interrupt_in_the_middle_of_a_request_says_what_may_go_on(wire: MakeWire) -> None:
    with pytest.raises(CliError, match="may have been carried out") as stopped:
        wire(KeyboardInterrupt()).client.create("/clusters", {})
    assert stopped.value.exit_code is ExitCode.INTERRUPTED

    # What follows an operation says that it goes on.
    with pytest.raises(KeyboardInterrupt):
        wire(KeyboardInterrupt()).client.get("/operations/op_1")


@pytest.mark.parametrize(
    "answer",
    [
        _error(503, "CAPACITY_UNAVAILABLE", **{"retry-after": "2"}),
        _error(503, "DEPENDENCY_UNAVAILABLE", **{"retry-after": "3600"}),
        httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"),
    ],
    ids=["no room", "asked to wait for an hour", "certificate is not trusted"],
)
def test_nothing_is_repeated_that_no_short_wait_can_change(wire: MakeWire, answer: Answer) -> None:
    refused = wire(answer)
    with pytest.raises(CliError) as failed:
        refused.client.get("/clusters")
    assert failed.value.exit_code is ExitCode.UNAVAILABLE
    assert not refused.pauses


def test_an_error_tells_everything_the_api_said(wire: MakeWire) -> None:
    item = {
        "code": 7005,
        "message": "cluster.create is running on the cluster.",
        "path": ["body", "name"],
        "metadata": {"reason": "CONFLICT", "operation_id": "op_7"},
    }
    body = {"success": False, "errors": [item], "result": {}}
    refused = wire(httpx.Response(409, json=body, headers={"x-request-id": "req_1"}))

    with pytest.raises(ApiError) as failed:
        refused.client.change("POST", "/clusters/clu_1:suspend", etag="4")

    assert refused.sent[0].headers["if-match"] == "4"
    assert failed.value.facts() == {
        "message": "cluster.create is running on the cluster.",
        "exit_code": 5,
        "next": ["bulkhead operations watch op_7", "bulkhead operations cancel op_7"],
        "status": 409,
        "reason": "CONFLICT",
        "request_id": "req_1",
        "errors": [item],
    }
    assert failed.value.detail_lines() == (
        ("at", "body.name"),
        ("reason", "CONFLICT (HTTP 409)"),
        ("request", "req_1"),
    )


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"errors": []}', b'{"errors": [7]}'])
def test_an_answer_of_another_server_is_called_one(wire: MakeWire, body: bytes) -> None:
    other = wire(httpx.Response(418, content=body))
    with pytest.raises(CliError, match="not an answer of this API"):
        other.client.get("/clusters")


def test_a_list_is_read_page_by_page_and_no_further_than_needed(wire: MakeWire) -> None:
    def page(*names: str, cursor: str | None) -> httpx.Response:
        data = [{"name": name} for name in names]
        body = {"data": data, "has_more": cursor is not None, "next_cursor": cursor}
        return httpx.Response(200, json=body)

    pages = wire(page("a", "b", cursor="c1"), page("c", cursor="c2"), page("d", cursor=None))
    assert [entry["name"] for entry in pages.client.read_list("/clusters", limit=3)] == [*"abc"]
    assert [request.url.params.get("cursor") for request in pages.sent] == [None, "c1"]


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        (400, "", 2),
        (422, "INVALID_ARGUMENT", 2),
        (404, "NOT_FOUND", 3),
        (401, "UNAUTHENTICATED", 4),
        (403, "PERMISSION_DENIED", 4),
        (403, "QUOTA_EXCEEDED", 5),
        (409, "ABORTED", 5),
        (422, "FAILED_PRECONDITION", 5),
        (429, "RATE_LIMITED", 6),
        (503, "DEPENDENCY_UNAVAILABLE", 6),
        (504, "", 6),
        (500, "INTERNAL", 1),
        (520, "A_REASON_OF_TOMORROW", 1),
    ],
)
def test_the_exit_code_tells_a_script_what_kind_of_failure_it_was(
    status: int, reason: str, code: int
) -> None:
    assert exit_code_of(status, reason) == code
