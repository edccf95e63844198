"""Server-sent events of an install's logs, read line by line and taken up again when cut off."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cli.client import ApiClient, JsonObject
from cli.errors import ApiError, CliError, ExitCode, UnreachableError
from cli.follow import PATIENCE_SECONDS

_PAUSE_SECONDS = 1.0
_END = "end"
_FAILURES = frozenset({"effect/httpapi/stream/failure", "effect/http-api/stream/failure"})
# What makes a line: one that comes again after a reconnect has the same.
_KEY = ("podName", "containerName", "timestamp", "content")


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream; `position` is the last one that was told."""

    name: str
    data: str
    position: str


def events_in(lines: Iterable[str]) -> Iterator[Event]:
    """Return the events that lines of `text/event-stream` are.

    An event that is cut off in the middle is left out, as browsers do.
    """
    name, data, position = "message", list[str](), ""
    for line in lines:
        if not line:
            if data:
                yield Event(name, "\n".join(data), position)
            name, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            position = value


def log_entries(
    client: ApiClient, path: str, *, follow: bool, **params: object
) -> Iterator[JsonObject]:
    """Return log lines as they come: `content`, `podName`, `containerName`, `timestamp`.

    A stream that breaks off without its end is asked for again from the last position on; lines
    since that position come twice, and are left out the second time.

    Raises:
        CliError: the API refuses, or stayed away for too long.
    """
    reader = _Reader()
    last_answer = time.monotonic()
    while not reader.ended:
        # A query has no booleans of its own.
        asked = {**params, "follow": "true" if follow else "false"}
        headers = {"Last-Event-ID": reader.position} if reader.position else {}
        try:
            with client.stream(path, headers=headers, **asked) as lines:
                last_answer = time.monotonic()
                yield from reader.entries(events_in(lines))
                last_answer = time.monotonic()
        except (UnreachableError, ApiError) as error:
            if error.exit_code is not ExitCode.UNAVAILABLE:
                raise
            if time.monotonic() - last_answer > PATIENCE_SECONDS:
                raise
        if not reader.ended:
            time.sleep(_PAUSE_SECONDS)


class _Reader:
    """Remembers where a stream was, and what came since."""

    def __init__(self) -> None:
        self.position = ""
        self.ended = False
        self._since = set[tuple[str, ...]]()
        self._again = set[tuple[str, ...]]()

    def entries(self, events: Iterator[Event]) -> Iterator[JsonObject]:
        """Return the lines of a connection that were not seen before."""
        self._again |= self._since
        for event in events:
            if event.name == _END:
                self.ended = True
                return
            if event.name in _FAILURES:
                raise _failed(event)
            entry = _object_in(event.data)
            key = tuple(str(entry.get(one)) for one in _KEY)
            if event.position and event.position != self.position:
                self.position = event.position
                self._since = set()
            self._since.add(key)
            if key in self._again:
                self._again.discard(key)
                continue
            yield entry


def _failed(event: Event) -> CliError:
    told = _object_in(event.data)
    message = str(told.get("message") or "The stream of logs failed in the platform.")
    return CliError(message, ExitCode.UNAVAILABLE, next_commands=("the same command again",))


def _object_in(text: str) -> JsonObject:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"content": text}
