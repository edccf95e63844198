"""The logs of one install's containers as one stream, for as long as somebody reads it.

Nothing is kept: each container's log is read no further than the reader is, but for a few hundred
lines in a queue. What comes and goes meanwhile is noticed within a second.
"""

import asyncio
import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from domain.errors import BulkheadError, Reason
from infra.kubernetes.pods import Container, NoLogYetError, Pod, PodReader

# Lines that were read and are not sent yet; each is 16 KiB at most.
_QUEUED_LINES: Final = 128

# Each open log is a connection to the API server, and one from there to a kubelet.
MOST_CONTAINERS: Final = 50

# Logs that are read to their ends are read so many at a time.
_AT_ONCE: Final = 8

_LOOK_SECONDS: Final = 1.0

# A kubelet ends a log with its container; one that is lost with its node ends nothing.
_LOOKS_AFTER_ITS_END: Final = 3

# A cluster's API server restarts within this time.
_OUTAGE_SECONDS: Final = 60.0

_TIMESTAMP: Final = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)"
)

_NANOSECONDS: Final = 10**9


@dataclass(frozen=True, kw_only=True, slots=True)
class LogSelection:
    """What is to be read.

    Attributes:
        pod: one pod; None: all of them.
        container: one container of each; None: all of them.
        follow: go on with what is written from now on.
        tail: so many of the last lines of each container; None: all.
        since_seconds: lines that are no older; None: all.
        after: by container (`key_of`), the last line that was read already, in nanoseconds.
    """

    pod: str | None = None
    container: str | None = None
    follow: bool = False
    tail: int | None = None
    since_seconds: int | None = None
    after: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line; `at` is its time in nanoseconds, `is_last`: the log of this run ends with it."""

    pod: str
    container: str
    key: str
    timestamp: str
    at: int
    content: str
    is_last: bool

    def __repr__(self) -> str:
        """Show nothing of what an application wrote."""
        return f"LogLine(key={self.key}, at={self.at})"


def key_of(pod: Pod, container: Container) -> str:
    """Return what a container is called in a reader's position: the same for all its runs."""
    return hashlib.sha256(f"{pod.uid}/{container.name}".encode()).hexdigest()[:12]


class LogStream:
    """Reads the logs that are selected into a queue. `run` it once, and read `lines` meanwhile."""

    def __init__(self, reader: PodReader, selection: LogSelection) -> None:
        self._reader = reader
        self._selection = selection
        self._open: dict[str, asyncio.Task[None]] = {}
        # By container that is read and whose pod is gone, how many looks ago.
        self._gone: dict[str, int] = {}
        # By container, how many of its runs were read to their ends.
        self._runs_read: dict[str, int] = {}
        self._last: dict[str, int] = dict(selection.after)
        self._places = asyncio.Semaphore(MOST_CONTAINERS if selection.follow else _AT_ONCE)
        self._failure: BulkheadError | None = None
        # Who goes on where it was has the lines before.
        self._has_begun = bool(selection.after)
        self.lines: asyncio.Queue[LogLine] = asyncio.Queue(_QUEUED_LINES)

    def check(self, pods: list[Pod]) -> None:
        """Return when what was selected is there.

        Raises:
            BulkheadError: NOT_FOUND for a pod or a container; FAILED_PRECONDITION for too many.
        """
        wanted = self._selection
        if wanted.pod is not None and not any(pod.name == wanted.pod for pod in pods):
            raise _missing(field="pod")
        chosen = self._chosen(pods)
        if wanted.container is not None and not chosen and pods:
            raise _missing(field="container")
        if len(chosen) > MOST_CONTAINERS:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"The install has {len(chosen)} containers, and one stream has at most "
                f"{MOST_CONTAINERS}; name a pod or a container.",
            )

    async def run(self) -> None:
        """Read until there is nothing more to come.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the API server does not answer for a
                minute; FAILED_PRECONDITION when the install's rights are gone.
        """
        try:
            async with asyncio.TaskGroup() as group:
                pods = await self._reader.list_pods()
                self._begin(group, pods)
                while self._selection.follow and (self._goes_on(pods) or self._open):
                    await asyncio.sleep(_LOOK_SECONDS)
                    pods = await self._look_again()
                    self._begin(group, pods)
        except* BulkheadError as errors:
            raise _first(errors) from None
        if self._failure is not None:
            raise self._failure

    def _goes_on(self, pods: list[Pod]) -> bool:
        wanted = self._selection.pod
        return wanted is None or any(pod.name == wanted for pod in pods)

    async def _look_again(self) -> list[Pod]:
        deadline = asyncio.get_running_loop().time() + _OUTAGE_SECONDS
        while True:
            try:
                return await self._reader.list_pods()
            except BulkheadError as error:
                late = asyncio.get_running_loop().time() > deadline
                if late or error.reason is not Reason.DEPENDENCY_UNAVAILABLE:
                    raise
            await asyncio.sleep(_LOOK_SECONDS)

    def _chosen(self, pods: list[Pod]) -> list[tuple[Pod, Container]]:
        wanted = self._selection
        return [
            (pod, container)
            for pod in pods
            if wanted.pod in {None, pod.name}
            for container in pod.containers
            if wanted.container in {None, container.name}
        ]

    def _begin(self, group: asyncio.TaskGroup, pods: list[Pod]) -> None:
        """Start to read what is there and is not being read."""
        chosen = self._chosen(pods)
        keys = {key_of(pod, container) for pod, container in chosen}
        # Of what is gone nothing comes any more.
        self._runs_read = {key: runs for key, runs in self._runs_read.items() if key in keys}
        self._gone = {key: self._gone.get(key, 0) + 1 for key in self._open if key not in keys}
        for key, looks in self._gone.items():
            if looks > _LOOKS_AFTER_ITS_END:
                self._open[key].cancel()
        for pod, container in chosen:
            key = key_of(pod, container)
            if key in self._open or not container.has_begun:
                continue
            if self._runs_read.get(key, 0) > container.restarts:
                continue
            if self._selection.follow and len(self._open) >= MOST_CONTAINERS:
                return
            parameters = self._parameters(key)
            reading = self._read(pod, container, key, parameters)
            self._open[key] = group.create_task(reading)
        self._has_begun = True

    async def _read(
        self, pod: Pod, container: Container, key: str, parameters: Mapping[str, str]
    ) -> None:
        try:
            async with self._places:
                await self._read_run(pod, container, key, parameters)
        except NoLogYetError:
            return
        except BulkheadError as error:
            # A node that is away keeps nothing of the others back. Who follows gets it later.
            if not self._selection.follow:
                self._failure = self._failure or error
            return
        finally:
            del self._open[key]
        if container.is_over:
            self._runs_read[key] = container.restarts + 1

    async def _read_run(
        self, pod: Pod, container: Container, key: str, parameters: Mapping[str, str]
    ) -> None:
        held: LogLine | None = None
        at: int | None = None
        read_before = self._last.get(key, 0)
        async with self._reader.open_log(pod, container, parameters) as pieces:
            async for piece in pieces:
                content = piece.data
                if not piece.continues:
                    at, content = _time_of(piece.data, read_before)
                if at is None:
                    # Read before, and a part of what is read before.
                    continue
                self._last[key] = at
                line = _line(pod, container, key, at, content)
                if self._selection.follow:
                    await self.lines.put(line)
                    continue
                # Which line is the last one, its successor tells.
                if held is not None:
                    await self.lines.put(held)
                held = line
        if held is not None:
            await self.lines.put(_as_last(held))

    def _parameters(self, key: str) -> dict[str, str]:
        wanted = self._selection
        parameters = {"timestamps": "true"}
        if wanted.follow:
            parameters["follow"] = "true"
        last = self._last.get(key)
        if last is not None:
            # The kubelet counts in seconds; what it repeats of the first one is left out.
            begin = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=last // _NANOSECONDS)
            parameters["sinceTime"] = begin.strftime("%Y-%m-%dT%H:%M:%SZ")
            return parameters
        if self._has_begun:
            # What comes later is read from its begin.
            return parameters
        if wanted.tail is not None:
            parameters["tailLines"] = str(wanted.tail)
        if wanted.since_seconds:
            parameters["sinceSeconds"] = str(wanted.since_seconds)
        return parameters


def _time_of(raw: bytes, read_before: int) -> tuple[int | None, bytes]:
    """Return a line's time and what comes after it; None: the line was read before."""
    match = _TIMESTAMP.match(raw)
    if match is None:
        return read_before, raw
    at = _nanoseconds(match)
    return at if at > read_before else None, raw[match.end() + 1 :]


def _line(pod: Pod, container: Container, key: str, at: int, content: bytes) -> LogLine:
    seconds, fraction = divmod(at, _NANOSECONDS)
    moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return LogLine(
        pod=pod.name,
        container=container.name,
        key=key,
        timestamp=f"{moment}.{fraction:09}Z",
        at=at,
        content=content.decode(errors="replace").removesuffix("\r"),
        is_last=False,
    )


def _as_last(line: LogLine) -> LogLine:
    return dataclasses.replace(line, is_last=True)


def _nanoseconds(match: re.Match[bytes]) -> int:
    whole = datetime.fromisoformat((match[1] + match[3].replace(b"Z", b"+00:00")).decode())
    return int(whole.timestamp()) * _NANOSECONDS + int((match[2] or b"").ljust(9, b"0"))


def _first(errors: ExceptionGroup[BulkheadError]) -> BulkheadError:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


def _missing(*, field: str) -> BulkheadError:
    return BulkheadError(
        Reason.NOT_FOUND, f"The install has no such {field} now.", path=("query", field)
    )
