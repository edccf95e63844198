"""Logs that are followed over connections that break."""

import json
from collections.abc import Iterator

import httpx
import pytest

from cli import log_stream
from cli.client import ApiClient
from cli.configuration import Connection
from cli.errors import CliError
from cli.log_stream import events_in, log_entries


def _line(number: int, position: str = "") -> str:
    entry = {"content": f"line {number}", "podName": "web-0", "timestamp": f"{number:04}"}
    identity = f"id: {position}\n" if position else ""
    return f"{identity}event: message\ndata: {json.dumps(entry)}\n\n"


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_stream, "_PAUSE_SECONDS", 0.0)


def _read(*answers: str | list[str], sent: list[httpx.Request]) -> Iterator[str]:
    """Read what a server sends over its connections; a list is cut off at its end."""
    left = list(answers)

    def cut_off(parts: list[str]) -> Iterator[bytes]:
        yield from (part.encode() for part in parts)
        message = "cut off"
        raise httpx.ReadError(message)

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        content = left.pop(0)
        parts = cut_off(content) if isinstance(content, list) else content.encode()
        return httpx.Response(200, content=parts)

    client = ApiClient(
        Connection(url="https://api.example", token="t"), transport=httpx.MockTransport(answer)
    )
    for entry in log_entries(client, "/installs/inst_1/logs", follow=True, tail=5, pod=None):
        yield entry["content"]


def test_events_are_read_as_the_standard_has_them() -> None:
    lines = [": connected", "", "data: a", "data: b", "", "event: end", "data: {}", "", "data: c"]
    events = list(events_in(lines))
    assert [(event.name, event.data) for event in events] == [("message", "a\nb"), ("end", "{}")]


def test_a_stream_that_breaks_goes_on_behind_its_position_without_a_line_twice() -> None:
    sent: list[httpx.Request] = []
    first = [_line(1, "p1"), _line(2), _line(3)]
    second = _line(2) + _line(3) + _line(3) + _line(4, "p4") + "event: end\ndata: {}\n\n"
    shown = list(_read(first, second, sent=sent))
    # The same line twice in the second answer is twice in the log.
    assert shown == ["line 1", "line 2", "line 3", "line 3", "line 4"]
    assert [request.headers.get("last-event-id") for request in sent] == [None, "p1"]
    assert all(request.url.params["follow"] == "true" for request in sent)


def test_a_stream_that_fails_says_why() -> None:
    failure = 'event: effect/httpapi/stream/failure\ndata: {"message": "The cluster is gone."}\n\n'
    with pytest.raises(CliError) as failed:
        list(_read(_line(1) + failure, sent=[]))
    assert failed.value.message == "The cluster is gone."
