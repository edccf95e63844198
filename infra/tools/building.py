"""Builds programs with Go from a module directory, several in one call."""

import os
import re
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from domain.errors import BulkheadError, Reason
from infra.tools.program import GoModule, Program
from infra.tools.progress import Task

_LINES_SHOWN = 15
_POLL_SECONDS = 0.5
# What `go build` writes when all is well: packages as they are compiled, modules as they arrive.
_NARRATION = re.compile(r"^(go: downloading .+|[\w.~-]+(/[\w.~-]+)*)$")
_MAJOR_VERSION = re.compile(r"^v[0-9]+$")


def build(
    module: GoModule,
    programs: Sequence[Program],
    work: Path,
    *,
    go: str,
    task: Task,
) -> dict[str, Path]:
    """Build all the programs at once, which compiles what they share once.

    Args:
        module: the pin whose directory decides every version.
        programs: programs of that module.
        work: an empty directory that the executables and the log go to.
        go: the Go command.
        task: told which package is being compiled; the build ends when it is stopped.

    Returns:
        The path of each executable by the program's name.

    Raises:
        BulkheadError: Go failed (the message has its last lines), or the task was stopped.
    """
    log = work / "build.log"
    cgo = "1" if module.static_libraries else "0"
    command = [go, "build", "-v", "-mod=readonly", "-trimpath", "-ldflags", module.ldflags]
    command += ["-tags", module.tags, "-o", f"{work}/", *(program.package for program in programs)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=module.directory,
            env={**os.environ, "CGO_ENABLED": cgo, "GOWORK": "off"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A group of its own, so that the compilers end with it.
            start_new_session=True,
        )
        try:
            _follow(process, log, task)
        finally:
            _end(process)
    if process.returncode != 0:
        raise _failure(module, log, process.returncode)
    return {program.name: work / _executable_of(program.package) for program in programs}


def _follow(process: subprocess.Popen[bytes], log: Path, task: Task) -> None:
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)
            return
        task.proceed(_describe(log.read_text(errors="replace").splitlines()))


def _describe(lines: Sequence[str]) -> str:
    """Say how far `go build -v` is, by what it wrote."""
    if not lines:
        return "reading modules"
    if lines[-1].startswith("go: "):
        return lines[-1].removeprefix("go: ")
    packages = sum(not line.startswith("go: ") for line in lines)
    return f"{packages} packages so far, now {lines[-1]}"


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _failure(module: GoModule, log: Path, status: int) -> BulkheadError:
    lines = log.read_text(errors="replace").splitlines()
    telling = [line for line in lines if not _NARRATION.match(line)][-_LINES_SHOWN:]
    said = "\n".join(telling or lines[-_LINES_SHOWN:] or ["(nothing)"])
    return BulkheadError(
        Reason.DEPENDENCY_UNAVAILABLE,
        f"go build of {module.name} {module.version} in {module.directory} ended with status"
        f" {status}. Check that Go is as new as its go.mod asks, that the module proxy (go env"
        f" GOPROXY) answers and that there is disk space, then run `make programs`. Go said"
        f" last:\n{said}",
        metadata={"module": module.name, "version": module.version, "status": str(status)},
    )


def _executable_of(package: str) -> str:
    """Name the file that `go build -o DIRECTORY/` makes: a trailing /vN is not part of it."""
    parts = package.split("/")
    return parts[-2] if len(parts) > 1 and _MAJOR_VERSION.match(parts[-1]) else parts[-1]
