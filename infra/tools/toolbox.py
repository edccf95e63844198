"""Finds the pinned programs, makes those that are missing, and puts them where they are run."""

import filecmp
import itertools
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from domain.errors import BulkheadError, Reason
from infra.tools import native
from infra.tools.building import build
from infra.tools.cache import EXECUTABLE_MODE, ProgramCache, user_cache
from infra.tools.downloading import download
from infra.tools.pins import NODE, PROGRAMS
from infra.tools.program import GoModule, Program
from infra.tools.progress import Progress

# The slowest, kube-apiserver, answers in 0.3 s; a busy machine gets room.
_VERSION_TIMEOUT_SECONDS = 30.0
# Two builds fill the gaps in which one of them downloads or links; more only take memory: each
# link of a Kubernetes program takes 1 to 2 GB.
_MODULES_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Found:
    """Where a program is; `origin` is "PATH" or "cache"."""

    path: Path
    origin: str


class Toolbox:
    """The pinned programs of one machine.

    Args:
        programs: the pins by name.
        cache: where programs are kept.
        search_path: directories in the form of PATH; None means the environment's PATH. Go is
            looked for there too.
    """

    def __init__(
        self,
        programs: Mapping[str, Program] = PROGRAMS,
        cache: Path | None = None,
        search_path: str | None = None,
    ) -> None:
        self._programs = programs
        self._cache = ProgramCache(cache or user_cache())
        self._search_path = os.environ.get("PATH", "") if search_path is None else search_path

    def find(self, name: str) -> Found | None:
        """Say where a program is, or None if it has to be made first."""
        program = self._program(name)
        if path := self._on_path(program):
            return Found(path, "PATH")
        if self._cache.holds(program):
            return Found(self._cache.path_of(program), "cache")
        return None

    def ensure(self, names: Iterable[str]) -> dict[str, Path]:
        """Return the path of each program, after making those that are missing.

        Raises:
            BulkheadError: a name is unknown, or a program can be neither built nor downloaded.
        """
        found = {name: self.find(name) for name in names}
        missing = [self._program(name) for name, place in found.items() if place is None]
        if missing:
            try:
                self._make_all(missing)
            except OSError as error:
                raise BulkheadError(
                    Reason.FAILED_PRECONDITION,
                    f"Programs cannot be kept in {self._cache.path_of(missing[0]).parent}:"
                    f" {error.strerror}. Make room or rights there, or set XDG_CACHE_HOME.",
                ) from error
        return {
            name: place.path if place else self._cache.path_of(self._program(name))
            for name, place in found.items()
        }

    def install_into(self, directory: Path, names: Iterable[str]) -> None:
        """Put programs into a directory from which other users run them.

        Each is a hard link into the cache, or a copy where that is impossible, mode 0755, and
        is replaced in one step when its pin has changed: what runs keeps its old file. The
        caller chooses a directory whose parents those users may enter, so not below a private
        home.
        """
        programs = self.ensure(names)
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        for name, source in programs.items():
            _install(source, directory / name)

    def _program(self, name: str) -> Program:
        if name not in self._programs:
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                f"There is no pinned program {name!r}; there are {', '.join(self._programs)}.",
            )
        return self._programs[name]

    def _on_path(self, program: Program) -> Path | None:
        if program.name in NODE:
            # Servers get it, and what lies on PATH may need this machine's libraries.
            return None
        for directory in self._search_path.split(os.pathsep):
            path = shutil.which(program.name, path=directory) if directory else None
            if path and version_of(program, Path(path)) == program.version:
                return Path(path).absolute()
        return None

    def _make_all(self, missing: Sequence[Program]) -> None:
        """Make programs, those of two modules at the same time; the first failure ends all."""
        by_module = [
            (module, list(programs))
            for module, programs in itertools.groupby(
                sorted(missing, key=lambda program: program.module.name),
                key=lambda program: program.module,
            )
        ]
        with Progress() as progress, ThreadPoolExecutor(_MODULES_AT_ONCE) as pool:
            futures = [
                pool.submit(self._make, module, programs, progress)
                for module, programs in by_module
            ]
            try:
                for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                    future.result()
            finally:
                progress.stop()

    def _make(self, module: GoModule, programs: Sequence[Program], progress: Progress) -> None:
        with self._cache.making(module, progress) as work:
            # Another process may have made them while this one waited for the lock.
            missing = [program for program in programs if not self._cache.holds(program)]
            go = shutil.which("go", path=self._search_path)
            if missing and go and self._has_libraries_of(module, missing, progress):
                self._build(module, missing, work, go, progress)
            elif missing:
                for program in missing:
                    self._download(program, work, progress)

    def _has_libraries_of(
        self, module: GoModule, missing: Sequence[Program], progress: Progress
    ) -> bool:
        """Whether the module can be built here, after installing what that takes if we may."""
        if not module.static_libraries:
            return True
        packages = native.missing_packages(module.static_libraries, self._search_path)
        if packages and native.can_install(self._search_path):
            native.install(packages, self._search_path, progress)
            packages = native.missing_packages(module.static_libraries, self._search_path)
        if packages and not all(program.release for program in missing):
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"{module.name} {module.version} is built with {', '.join(packages)} (names of"
                f" Debian packages), which are not here. Install them and run `make programs`.",
            )
        return not packages

    def _build(
        self,
        module: GoModule,
        programs: Sequence[Program],
        work: Path,
        go: str,
        progress: Progress,
    ) -> None:
        names = ", ".join(program.name for program in programs)
        title = f"building {names} {module.version} with Go"
        progress.say(f"{title}: {self._expectation(module)}")
        with progress.task(f"building {module.name}") as task:
            made = build(module, programs, work, go=go, task=task)
        for program in programs:
            self._keep(program, made[program.name])
        self._cache.remember_duration(module, task.seconds)
        progress.say(f"{title}: done in {task.seconds:.0f} s")

    def _download(self, program: Program, work: Path, progress: Progress) -> None:
        title = f"downloading {program.name} {program.version}"
        with progress.task(title) as task:
            made = download(program, work, task=task)
        self._keep(program, made)
        progress.say(f"{title}: done in {task.seconds:.0f} s")

    def _keep(self, program: Program, made: Path) -> None:
        made.chmod(EXECUTABLE_MODE)
        version = version_of(program, made)
        if version != program.version:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"What was made as {program.name} {program.version} calls itself {version};"
                f" bring infra/tools/pins.py and {program.module.directory}/go.mod together.",
            )
        self._cache.keep(program, made)

    def _expectation(self, module: GoModule) -> str:
        last = self._cache.last_duration(module)
        if last is not None:
            return f"it took {last:.0f} s last time"
        return f"the first build took {module.typical_seconds} s on a machine with two cores"


def version_of(program: Program, path: Path) -> str | None:
    """Ask an executable for its version; None if it does not tell one."""
    if program.version_arguments is None:
        return _version_built_into(program, path)
    try:
        answer = subprocess.run(
            [path, *program.version_arguments],
            check=False,
            stdout=subprocess.PIPE,
            # CNI plugins and flanneld tell it there.
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=_VERSION_TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(program.version_pattern, answer.stdout, re.MULTILINE)
    return match.group(1) if match else None


def _version_built_into(program: Program, path: Path) -> str | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    match = re.search(program.version_pattern.encode(), content)
    return match.group(1).decode() if match else None


def _install(source: Path, target: Path) -> None:
    # Of two links to one file, rename(2) keeps both and reports success.
    if target.exists() and filecmp.cmp(source, target, shallow=True):
        target.chmod(EXECUTABLE_MODE)
        return
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        try:
            temporary.hardlink_to(source)
            temporary.chmod(EXECUTABLE_MODE)
        except OSError:
            # Another file system, or somebody else's file from PATH.
            temporary.unlink(missing_ok=True)
            shutil.copy2(source, temporary)
            temporary.chmod(EXECUTABLE_MODE)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def ensure(names: Iterable[str]) -> dict[str, Path]:
    """Return the path of each named program on this machine, after making what is missing."""
    return Toolbox().ensure(names)


def install_into(directory: Path, names: Iterable[str]) -> None:
    """Put the named programs into a directory; see `Toolbox.install_into`."""
    Toolbox().install_into(directory, names)
