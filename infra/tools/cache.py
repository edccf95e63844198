"""The user's cache of programs: one path a pin, filled atomically, one writer a pin at a time."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, TextIO

from infra.tools.program import Program
from infra.tools.progress import Progress

EXECUTABLE_MODE = 0o755
_LOCK_POLL_SECONDS = 0.2


def user_cache() -> Path:
    """Where programs are kept: outside any checkout, so that all checkouts share them."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative paths ignored.
    base = Path(configured) if configured.startswith("/") else Path.home() / ".cache"
    return base / "bulkhead" / "programs"


class Pin(Protocol):
    """What is made once: `key` names its exact content, `name` is the same for all versions."""

    @property
    def name(self) -> str:
        """What a person calls it."""

    def key(self) -> str:
        """Name everything that decides what comes out."""


class ProgramCache:
    """A directory of finished programs; what lies at a program's path is complete and verified."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path_of(self, program: Program) -> Path:
        """Where this pin of a program is, or will be."""
        return self._directory / program.name / program.module.key() / program.name

    def holds(self, program: Program) -> bool:
        """Whether the program of this pin is there."""
        return self.path_of(program).is_file()

    @contextmanager
    def making(self, module: Pin, progress: Progress) -> Iterator[Path]:
        """Be the only one who makes programs of this pin; yields an empty directory for it.

        Waits for another process that does so already. The kernel drops the lock with its
        holder, so a killed build blocks nobody; what it left behind is removed first.
        """
        name = f"{module.name}-{module.key()}"
        locks = self._directory / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / name).open("w") as lock:
            if not _try_lock(lock):
                with progress.task(f"waiting for another process to make {module.name}") as task:
                    while not _try_lock(lock):
                        task.proceed(str(lock.name))
                        time.sleep(_LOCK_POLL_SECONDS)
            works = self._directory / ".work"
            works.mkdir(exist_ok=True)
            for leftover in works.glob(f"{name}-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            # A new name each time: a compiler that outlived a killed build writes elsewhere.
            work = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=works))
            try:
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)

    def keep(self, program: Program, made: Path) -> None:
        """Move a finished program to its place. It must lie in the directory of `making`."""
        made.chmod(EXECUTABLE_MODE)
        path = self.path_of(program)
        path.parent.mkdir(parents=True, exist_ok=True)
        made.replace(path)

    def last_duration(self, module: Pin) -> float | None:
        """How many seconds the last build of this module took here, of whatever version."""
        with suppress(OSError, ValueError):
            return float(self._duration_file(module).read_text())
        return None

    def remember_duration(self, module: Pin, seconds: float) -> None:
        """Keep how long a build took, for the next one to announce."""
        file = self._duration_file(module)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{seconds:.1f}\n")

    def _duration_file(self, module: Pin) -> Path:
        return self._directory / ".durations" / module.name


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
