"""Bounds the audit logs of an embedded OpenBao: `python -m infra.openbao.audit_logs DIRECTORY`.

OpenBao never ends a log by itself, and answers nothing any more when it cannot write one. A log
that is large enough gets a name with its end's time, `audit-20260102T030405.678901Z.log`, and the
server is told to open a new one. It writes to the old one until then, so no line is lost.
"""

import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

# A request takes about 1.4 kB in each of the two devices: 45,000 requests a file.
_MAXIMUM_BYTES: Final = 64 * 1024 * 1024

# A GiB for each device; at 100 requests a second these are two hours, ten times what whoever
# compares the logs needs.
_KEPT: Final = 16

_LOOK_SECONDS: Final = 10.0

_DEVICES: Final = "audit-*"
_CURRENT: Final = "audit.log"
_ENDED: Final = "audit-*.log"


def rotate(directory: Path, *, maximum_bytes: int = _MAXIMUM_BYTES, kept: int = _KEPT) -> bool:
    """End the logs that are large enough, remove the oldest; tell whether any was ended.

    Args:
        directory: the server's own folder.
        maximum_bytes: how large a log may become.
        kept: how many ended logs stay, of each device.
    """
    is_ended = False
    for device in directory.glob(_DEVICES):
        current = device / _CURRENT
        if current.exists() and current.stat().st_size >= maximum_bytes:
            now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            current.rename(device / f"audit-{now}.log")
            is_ended = True
        for old in sorted(device.glob(_ENDED))[:-kept]:
            old.unlink()
    return is_ended


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
    # One that was ended before we died may still be written to.
    reopen(directory)
    while True:
        if rotate(directory):
            reopen(directory)
        time.sleep(_LOOK_SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
