"""Bounds the audit logs of an embedded OpenBao: `python -m infra.openbao.audit_logs DIRECTORY`.

OpenBao never ends a log by itself, and answers nothing any more when it cannot write one. A log
that is large enough gets a name with its end's time, `audit-20260102T030405.678901Z.log`, and the
server is told to open a new one. It writes to the old one until then, so no line is lost.

Ended logs are removed, the oldest first, once they are compared with our own audit log, which
whoever does that says in a file beside the log. When that does not happen, the disk has a bound:
then what was never compared is removed too, and a file tells whose reads were in it.
"""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from infra.openbao.policies import SECRETS_MOUNT
from infra.supervisor.files import write_atomically
from infra.telemetry import configure_logging

# A request takes about 1.4 kB in each of the two devices: 45,000 requests a file.
_MAXIMUM_BYTES: Final = 64 * 1024 * 1024

# A GiB for each device; at 100 requests a second these are two hours, for whoever looks at them.
_KEPT: Final = 16

# Four GiB for each device: at 100 requests a second, eight hours in which nothing is compared.
_MOST: Final = 64

_LOOK_SECONDS: Final = 10.0

_DEVICES: Final = "audit-*"
_CURRENT: Final = "audit.log"
_ENDED: Final = "audit-*.log"
_COMPARED: Final = ".compared"
_REMOVED: Final = ".removed"

# Of an answer that may hold a value, and of the namespace that it comes from.
_OF_VALUES: Final = (f'"path":"{SECRETS_MOUNT}/data/'.encode(), b'"type":"response"')
NAMED_WORKSPACE: Final = re.compile(rb'"path":"ws-([0-9a-f]{32})/"')

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Removal:
    """A log that was removed although it was not compared to its end.

    Attributes:
        note: the file that tells of it, to be removed by whoever has passed that on.
        log: the name that the log had.
        workspaces: the opaque parts of the ids of those whose values were read in it.
    """

    note: Path
    log: str
    workspaces: list[str]


def rotate(
    directory: Path,
    *,
    maximum_bytes: int = _MAXIMUM_BYTES,
    kept: int = _KEPT,
    most: int = _MOST,
) -> bool:
    """End the logs that are large enough, remove the oldest; tell whether any was ended.

    Args:
        directory: the server's own folder.
        maximum_bytes: how large a log may become.
        kept: how many ended logs stay, of each device, although they are compared.
        most: how many stay at most.
    """
    is_ended = False
    for device in directory.glob(_DEVICES):
        current = device / _CURRENT
        if current.exists() and current.stat().st_size >= maximum_bytes:
            now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            current.rename(device / f"audit-{now}.log")
            is_ended = True
        old = sorted(device.glob(_ENDED))[:-kept]
        waiting = [ended for ended in old if not _is_compared(ended)]
        too_many = waiting[: max(0, len(waiting) + kept - most)]
        for ended in too_many:
            _tell_removal(ended)
        for ended in old:
            if ended in too_many or ended not in waiting:
                # The log last: what is left of a removal that was interrupted is removed again.
                ended.with_suffix(_COMPARED).unlink(missing_ok=True)
                ended.unlink()
    return is_ended


def mark_compared(ended: Path, compared_bytes: int) -> None:
    """Say that a log was compared so far; nothing of one that is written, or that is gone."""
    mark = ended.with_suffix(_COMPARED)
    # Whoever keeps logs of another OpenBao need not let us write beside them.
    with suppress(OSError):
        if ended.name != _CURRENT and ended.exists() and _compared_bytes(ended) != compared_bytes:
            mark.write_text(str(compared_bytes))


def removals_of(device: Path) -> Iterator[Removal]:
    """Return which logs of an audit device were removed uncompared, as far as nobody was told."""
    for note in sorted(device.glob(f"audit-*{_REMOVED}")):
        told = json.loads(note.read_text())
        yield Removal(note=note, log=note.with_suffix(".log").name, workspaces=told["workspaces"])


def _is_compared(ended: Path) -> bool:
    return _compared_bytes(ended) >= ended.stat().st_size


def _compared_bytes(ended: Path) -> int:
    try:
        return int(ended.with_suffix(_COMPARED).read_text())
    except (OSError, ValueError):
        return -1


def _tell_removal(ended: Path) -> None:
    log.error(
        "a log of OpenBao is removed before it was compared: there is no room for more",
        file=ended.name,
        device=ended.parent.name,
    )
    try:
        write_atomically(
            ended.with_suffix(_REMOVED), json.dumps({"workspaces": _workspaces_in(ended)})
        )
    except OSError as error:
        # The disk may be full; then room is what matters.
        log.error("nobody is told of it", error=type(error).__name__)  # noqa: TRY400 - no more to say


def _workspaces_in(ended: Path) -> list[str]:
    found: set[str] = set()
    with ended.open("rb") as lines:
        for line in lines:
            if all(part in line for part in _OF_VALUES):
                found.update(name.decode() for name in NAMED_WORKSPACE.findall(line))
    return sorted(found)


def logs_of(device: Path) -> list[Path]:
    """Return the logs of an audit device that exist, the oldest first."""
    current = device / _CURRENT
    return [*sorted(device.glob(_ENDED)), *([current] if current.exists() else [])]


def reopen(directory: Path) -> None:
    """Have the server open its logs again; one that is starting does that anyway."""
    try:
        pid = int((directory / "server.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        # The number of one that died may be another program's by now.
        if os.fsencode(directory / "server.hcl") in command:
            os.kill(pid, signal.SIGHUP)
    except (OSError, ValueError):
        return


def main(directory: Path) -> None:
    """Look after the logs for ever."""
    configure_logging("INFO")
    # One that was ended before we died may still be written to.
    reopen(directory)
    while True:
        if rotate(directory):
            reopen(directory)
        time.sleep(_LOOK_SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
