"""Reads of values as OpenBao's own audit logs have them, a batch at a time.

A full disk or a power loss tears a line, and the next one may begin in the middle of it. Such a
line is told, and what is whole in it is read: no damage hides what comes behind it.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from domain.identifiers import Prefix, is_id
from domain.secret import VersionPlace
from infra.openbao.audit_logs import NAMED_WORKSPACE
from infra.openbao.policies import AUDIT_ID_HEADER, SECRETS_MOUNT

_BATCH_BYTES: Final = 8 * 1024 * 1024
_VALUES: Final = f"{SECRETS_MOUNT}/data/"
_NAMESPACE: Final = "ws-"

# Most lines are of other requests, and are not worth parsing.
_NEEDLES: Final = (f'"path":"{_VALUES}'.encode(), b'"type":"response"')

# How OpenBao begins a line.
_BEGINNING: Final = b'{"time":'


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueRead:
    """One answer that held a value, or a token that stands for one.

    Attributes:
        request_id: OpenBao's own.
        place: the version.
        audit_id: what the request carried; None when that was nothing, or more than one.
        read_at: on OpenBao's clock.
    """

    request_id: str
    place: VersionPlace
    audit_id: str | None
    read_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class TornLine:
    """A line that cannot be read as OpenBao wrote it: which reads it told is not known.

    Attributes:
        at_bytes: where in the log it begins.
        workspace_ids: the workspaces that it still names.
    """

    at_bytes: int
    workspace_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Batch:
    """A part of a log: what was read, what cannot be, and where the next part begins.

    `seen_bytes` is where it ends; a last line that is not whole begins the next part again.
    """

    reads: list[ValueRead]
    torn: list[TornLine]
    next_bytes: int
    seen_bytes: int
    is_last: bool


def log_id_of(log: Path) -> str | None:
    """Return what a log is known by whatever its name becomes; None while it has no line."""
    with log.open("rb") as file:
        first = file.readline()
    if not first.endswith(b"\n"):
        return None
    # The first line has a time to the nanosecond. A copy in the same folder is the same log.
    return hashlib.sha256(log.parent.name.encode() + b"\0" + first).hexdigest()


def read_batch(log: Path, from_bytes: int) -> Batch:
    """Return the reads of values in the whole lines that follow a position."""
    with log.open("rb") as file:
        file.seek(from_bytes)
        data = file.read(_BATCH_BYTES)
    whole = data[: data.rfind(b"\n") + 1]
    reads: list[ValueRead] = []
    torn: list[TornLine] = []
    at_bytes = from_bytes
    for line in whole.split(b"\n")[:-1]:
        if all(needle in line for needle in _NEEDLES) or not _looks_whole(line):
            is_whole, found = _reads_in(line)
            reads += found
            if not is_whole:
                torn.append(TornLine(at_bytes=at_bytes, workspace_ids=_named_in(line)))
        at_bytes += len(line) + 1
    is_last = len(data) < _BATCH_BYTES or not whole
    return Batch(reads, torn, at_bytes, from_bytes + len(data), is_last)


def _looks_whole(line: bytes) -> bool:
    whole = line.startswith(_BEGINNING) and line.endswith(b"}")
    return whole and line.find(_BEGINNING, 1) < 0


def _reads_in(line: bytes) -> tuple[bool, list[ValueRead]]:
    """Return whether a line can be read, and the reads in it or in what is whole behind a tear."""
    for beginning in _beginnings(line):
        try:
            read = _value_read(json.loads(line[beginning:]))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue
        return beginning == 0, [] if read is None else [read]
    return False, []


def _beginnings(line: bytes) -> Iterator[int]:
    yield 0
    beginning = line.find(_BEGINNING, 1)
    while beginning > 0:
        yield beginning
        beginning = line.find(_BEGINNING, beginning + 1)


def _named_in(line: bytes) -> frozenset[str]:
    return frozenset(
        f"{Prefix.WORKSPACE}_{found.decode()}" for found in NAMED_WORKSPACE.findall(line)
    )


def _value_read(line: dict[str, Any]) -> ValueRead | None:
    request, response = line["request"], line.get("response") or {}
    namespace = str(request.get("namespace", {}).get("path", "")).rstrip("/")
    shows = (response.get("data") or {}).get("data") or response.get("wrap_info")
    if request.get("operation") != "read" or "error" in line or not shows:
        return None
    place = _place(namespace, str(request["path"]))
    if place is None:
        return None
    carried = (request.get("headers") or {}).get(AUDIT_ID_HEADER.lower()) or []
    return ValueRead(
        request_id=str(request["id"]),
        place=place,
        audit_id=str(carried[0]) if len(carried) == 1 else None,
        read_at=datetime.fromisoformat(str(line["time"])),
    )


def _place(namespace: str, path: str) -> VersionPlace | None:
    if not namespace.startswith(_NAMESPACE):
        return None
    secret, _, version = path.removeprefix(_VALUES).partition("/")
    place = VersionPlace(
        workspace_id=f"{Prefix.WORKSPACE}_{namespace.removeprefix(_NAMESPACE)}",
        secret_id=f"{Prefix.SECRET}_{secret}",
        version_id=f"{Prefix.SECRET_VERSION}_{version}",
    )
    is_ours = (
        is_id(Prefix.WORKSPACE, place.workspace_id)
        and is_id(Prefix.SECRET, place.secret_id)
        and is_id(Prefix.SECRET_VERSION, place.version_id)
    )
    return place if is_ours else None
