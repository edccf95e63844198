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
from infra.supervisor.configuration import set_aside_unreadable, util_linux
from infra.supervisor.files import SupervisorFiles

# All that a program inherits, beside its own variables and what supervisord tells it of itself.
_ENVIRONMENT = {"LANG": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin"}

# The kernel has killed them by then, and PostgreSQL, which gets SIGINT, has written its last
# checkpoint (0.1 s here); what it could not write in time it recovers from its log.
_LEFT_BEHIND_SECONDS = 5.0

# PostgreSQL and the worker may take 30 s each to stop, one after the other.
_LOST_SECONDS = 90.0

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
                [
                    # Inherited by all that it runs, whose memory holds keys and tokens.
                    *(util_linux("prlimit"), "--core=0:0", "--"),
                    *(sys.executable, "-I", "-m", "supervisor.supervisord"),
                    *("-c", files.configuration),
                ],
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


def is_lost(files: SupervisorFiles, pid: int) -> bool:
    """Tell whether the directory was removed or moved away under this supervisord.

    Another one may have been made in its place, with a supervisord of its own.
    """
    return pid_of(files) != pid and not _holds_lock(files, pid)


def _holds_lock(files: SupervisorFiles, pid: int) -> bool:
    """Tell whether it has the lock file open; no new file can get the number of an open one."""
    try:
        lock = files.lock.stat()
        descriptors = list(os.scandir(f"/proc/{pid}/fd"))
    except OSError:
        return False
    for descriptor in descriptors:
        # Closed meanwhile, or of no file.
        with contextlib.suppress(OSError):
            if os.path.samestat(descriptor.stat(), lock):
                return True
    return False


def find_lost(files: SupervisorFiles) -> list[int]:
    """Return each supervisord of this directory that lives on although its files were removed."""
    found = {
        int(entry.name)
        for entry in os.scandir("/proc")
        if entry.name.isdigit() and is_supervisord(files, int(entry.name))
    }
    # A child is a copy of its supervisord until it becomes its program.
    return sorted(pid for pid in found if is_lost(files, pid) and _parent_of(pid) not in found)


def end_lost(files: SupervisorFiles) -> None:
    """End every supervisord whose files were removed, with all that it runs, and wait for it."""
    deadline = time.monotonic() + _LOST_SECONDS
    asked: set[int] = set()
    while pids := set(find_lost(files)):
        late = time.monotonic() > deadline
        for pid in pids if late else pids - asked:
            # One that ends by itself removes the socket by its name: the successor's, if any.
            at_once = late or is_alive(files)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if at_once else signal.SIGTERM)
        asked |= pids
        time.sleep(_POLL_SECONDS)
    if not is_alive(files):
        end_left_behind(files)


def _parent_of(pid: int) -> int | None:
    try:
        # The second field, the command's name in brackets, may hold spaces and brackets.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


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
