"""The program: where it is, whether it understands our configuration, and how it is installed."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from domain.errors import BulkheadError, Reason

# Debian puts it where only root looks.
_PATH: Final = "/usr/local/sbin:/usr/sbin:/sbin"

_INSTALL_SECONDS: Final = 600.0

# It reads some kilobytes, and resolves no name.
_CHECK_SECONDS: Final = 30.0


def find() -> str | None:
    """Return the path of haproxy, None where it is not installed."""
    return shutil.which("haproxy") or shutil.which("haproxy", path=_PATH)


def is_installable() -> bool:
    """Tell whether `install` may try: as root, on Debian or Ubuntu."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install() -> None:
    """Install it from the distribution's packages, without a service of its own.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE with apt-get's last words.
    """
    _apt_get("update")
    # With a run level of single-user mode the package does not start what we do not need; the
    # machine's next start would, so the service is disabled as well.
    _apt_get("install", "--yes", "--no-install-recommends", "haproxy")
    if shutil.which("systemctl") is not None:
        subprocess.run(
            ["systemctl", "disable", "--quiet", "haproxy.service"],  # noqa: S607 - the system's
            check=False,
            capture_output=True,
        )


def command(program: str, configuration: Path) -> list[str]:
    """Return what runs it in the foreground."""
    return [program, "-db", "-f", configuration.name]


def check(program: str, configuration: Path) -> None:
    """Return when this haproxy understands the configuration.

    Raises:
        BulkheadError: FAILED_PRECONDITION with its words; versions before 2.6 do not.
            DEPENDENCY_UNAVAILABLE when it does not end.
    """
    try:
        answer = subprocess.run(
            [*command(program, configuration), "-c", "-q"],
            check=False,
            cwd=configuration.parent,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_CHECK_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise BulkheadError(
            Reason.DEPENDENCY_UNAVAILABLE,
            f"{program} did not check {configuration} within {_CHECK_SECONDS:.0f} s.",
        ) from error
    if answer.returncode != 0:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"{program} does not accept {configuration}; version 2.6 or newer is needed. It says: "
            f"{answer.stderr.strip()[-1000:]}",
        )


def _apt_get(*arguments: str) -> None:
    answer = subprocess.run(
        ["apt-get", "--quiet", *arguments],  # noqa: S607 - the system's
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"},
        stdin=subprocess.DEVNULL,
        timeout=_INSTALL_SECONDS,
    )
    if answer.returncode != 0:
        raise BulkheadError(
            Reason.DEPENDENCY_UNAVAILABLE,
            f"apt-get {arguments[0]} failed; correct what it says, or install haproxy yourself: "
            f"{answer.stderr.strip()[-1000:]}",
        )
