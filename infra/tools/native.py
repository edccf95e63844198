"""What a program with C parts needs from the host: a compiler, and libraries to link statically."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from domain.errors import BulkheadError, Reason
from infra.tools.progress import Progress

# Which Debian packages have which static library, and what finds it.
_PACKAGES = {"libc": ("libc6-dev",), "libseccomp": ("libseccomp-dev", "pkg-config")}
_LINES_SHOWN = 5


def missing_packages(libraries: Sequence[str], search_path: str) -> list[str]:
    """Name the Debian packages without which programs cannot be linked with the libraries."""
    compiler = shutil.which("gcc", path=search_path)
    missing = [] if compiler else ["gcc"]
    for library in libraries:
        package, *helpers = _PACKAGES[library]
        if compiler is None or not _has_static(compiler, library):
            missing.append(package)
        missing += [helper for helper in helpers if shutil.which(helper, path=search_path) is None]
    return missing


def can_install(search_path: str) -> bool:
    """Whether this process may install Debian packages here."""
    return os.geteuid() == 0 and shutil.which("apt-get", path=search_path) is not None


def install(packages: Sequence[str], search_path: str, progress: Progress) -> None:
    """Install Debian packages, after saying so.

    Raises:
        BulkheadError: apt-get failed; the message has its last lines.
    """
    apt = shutil.which("apt-get", path=search_path) or "apt-get"
    names = " ".join(packages)
    progress.say(f"installing {names} with apt-get, which a build with C parts needs")
    with progress.task(f"installing {names}"):
        for arguments in (
            ["update", "-q"],
            ["install", "-q", "-y", "--no-install-recommends", *packages],
        ):
            answer = subprocess.run(
                [apt, *arguments],
                check=False,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            if answer.returncode != 0:
                said = "\n".join(answer.stdout.splitlines()[-_LINES_SHOWN:])
                raise BulkheadError(
                    Reason.DEPENDENCY_UNAVAILABLE,
                    f"apt-get {arguments[0]} ended with status {answer.returncode}. Install"
                    f" {names} and run `make programs`. It said last:\n{said}",
                )


def _has_static(compiler: str, library: str) -> bool:
    # gcc answers with a path if it has the file, else with the bare name.
    answer = subprocess.run(
        [compiler, f"-print-file-name={library}.a"], check=False, capture_output=True, text=True
    )
    return Path(answer.stdout.strip()).is_absolute()
