"""Starts supervisord, at most one a directory, and ends what a dead one left behind."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from domain.errors import BulkheadError, Reason
from infra.supervisor.configuration import set_aside_unreadable
from infra.supervisor.files import SupervisorFiles

# All that a program inherits, beside its own variables and what supervisord tells it of itself.
_ENVIRONMENT = {"LANG": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin"}

# The kernel has killed them by then, and PostgreSQL, which gets SIGINT, has written its last
# checkpoint (0.1 s here); what it could not write in time it recovers from its log.
_LEFT_BEHIND_SECONDS = 5.0

_POLL_SECONDS = 0.02


def start_daemon(files: SupervisorFiles) -> bool:
    """Start supervisord in the background, with a clean environment.

    The child inherits a lock that lives as long as it does, so that two starters never get two.
    Returns False when one lives already.

    Raises:
        BulkheadError: INTERNAL with its own words when it could not start.
    """
    with files.lock.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        set_aside_unreadable(files)
        end_left_behind(files)
        with files.start_output.open("wb") as output:
            # It reads its configuration and listens before it goes to the background.
            code = subprocess.run(
                [sys.executable, "-I", "-m", "supervisor.supervisord", "-c", files.configuration],
                check=False,
                cwd=files.directory,
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[lock.fileno()],
                start_new_session=True,
            ).returncode
    if code != 0:
        raise BulkheadError(
            Reason.INTERNAL,
            f"supervisord did not start (exit code {code}): "
            f"{files.start_output.read_text(errors='replace').strip()[-500:]}",
            metadata={"dependency": "supervisord"},
        )
    return True


def is_alive(files: SupervisorFiles) -> bool:
    """Tell whether a supervisord of this directory lives, whether or not it answers."""
    try:
        with files.lock.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def pid_of(files: SupervisorFiles) -> int | None:
    """Return the process id of the living supervisord, None when there is none."""
    try:
        pid = int(files.pid.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return pid if is_supervisord(files, pid) else None


def is_supervisord(files: SupervisorFiles, pid: int) -> bool:
    """Tell whether the process is the supervisord of this directory."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(files.configuration) in arguments and b"supervisor.supervisord" in arguments


def end_left_behind(files: SupervisorFiles) -> None:
    """Wait until no process of a dead supervisord lives, and kill those that stay.

    The kernel ends them with their parent, but for one caught between its fork and the call that
    asks for it, and for what a program started of its own.
    """
    deadline = time.monotonic() + _LEFT_BEHIND_SECONDS
    while pids := set(_left_behind(files)):
        if time.monotonic() > deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _left_behind(files: SupervisorFiles) -> Iterator[int]:
    """Find processes by the address of their supervisord, which every child is told."""
    mark = b"SUPERVISOR_SERVER_URL=unix://" + os.fsencode(files.socket)
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        # Gone meanwhile, or another user's, who cannot be running ours.
        with contextlib.suppress(OSError):
            environment = Path(entry.path, "environ").read_bytes()
            if mark in environment.split(b"\0"):
                yield int(entry.name)
