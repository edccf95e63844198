"""Whether this machine can boot servers, and what it takes."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from domain.errors import BulkheadError, Reason
from infra.local_cloud import archives, cgroups
from infra.local_cloud.commands import succeeds
from infra.tools.progress import Progress

DEFAULT_DIRECTORY = Path("/var/lib/bulkhead/local-cloud")

# The program that is needed, and the package of Debian and Ubuntu that has it.
_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
}
_SIMULATE = "or go on with simulated nodes, which need nothing of this"
_PREPARE = "run `python -m infra.local_cloud prepare`, which does it"
_INSTALL_SECONDS = 600.0
# All servers' programs are one user's to the kernel, and each server's take about ten; of the usual
# 128 a dozen servers leave none, and the next kubelet ends with "too many open files".
_INOTIFY_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
_INOTIFY_INSTANCES = 1024


@dataclass(frozen=True, slots=True)
class Host:
    """This machine, with the directory in which the servers' disks shall be."""

    directory: Path = DEFAULT_DIRECTORY

    def check(self) -> list[str]:
        """Say why this machine cannot boot servers, a sentence each with what to do next.

        Nothing is left changed. An empty list means that servers boot here.
        """
        hopeless = self._hopeless()
        if hopeless:
            return hopeless
        lacking = self._lacking_packages()
        if lacking:
            hopeless = [f"{', '.join(lacking)} must be installed with apt-get; {_PREPARE}."]
        elif not archives.known():
            hopeless = [f"apt-get has no package lists and must update them; {_PREPARE}."]
        return hopeless

    def prepare(self, progress: Progress) -> None:
        """Install what is lacking with apt-get and raise what limits servers, after saying so.

        Raises:
            BulkheadError: FAILED_PRECONDITION, when this machine cannot boot servers whatever is
                installed; DEPENDENCY_UNAVAILABLE, when apt-get failed.
        """
        hopeless = self._hopeless()
        if hopeless:
            raise BulkheadError(Reason.FAILED_PRECONDITION, " ".join(hopeless))
        lacking = self._lacking_packages()
        if lacking or not archives.known():
            progress.say("Updating the package lists with apt-get")
            _apt_get("update", progress=progress)
        if lacking:
            progress.say(f"Installing {', '.join(lacking)} with apt-get, to boot local servers")
            _apt_get("install", "--yes", "--no-install-recommends", *lacking, progress=progress)
        remaining = self.check()
        if remaining:
            raise BulkheadError(Reason.FAILED_PRECONDITION, " ".join(remaining))
        if int(_INOTIFY_LIMIT.read_text()) < _INOTIFY_INSTANCES:
            progress.say(f"Raising {_INOTIFY_LIMIT} to {_INOTIFY_INSTANCES} until the next boot")
            with suppress(OSError):
                # Where even root may not, there is room for a few servers all the same.
                _INOTIFY_LIMIT.write_text(str(_INOTIFY_INSTANCES))

    def _hopeless(self) -> list[str]:
        """Find what no package mends."""
        reason = ""
        if sys.platform != "linux":
            reason = (
                f"Servers boot on Linux only and this is {platform.system()}; run it in a Linux"
                f" machine"
            )
        elif os.geteuid() != 0:
            reason = "Booting servers takes root; run the same command with sudo"
        elif shutil.which("apt-get") is None:
            reason = "Servers are made with apt-get and there is none; run it on Debian or Ubuntu"
        elif not cgroups.are_writable():
            reason = (
                "No control group can be made in /sys/fs/cgroup; if this is a container, start it"
                " with --privileged"
            )
        elif not self._mounts_overlays():
            reason = (
                f"No overlay file system can be mounted on {self.directory}; run `modprobe"
                f" overlay`, or start a container with --privileged and a volume on that directory"
            )
        return [f"{reason}, {_SIMULATE}."] if reason else []

    def _mounts_overlays(self) -> bool:
        places = (self.directory, *self.directory.parents)
        place = next(place for place in places if place.is_dir())
        with tempfile.TemporaryDirectory(dir=place, prefix=".bulkhead-probe-") as probe:
            for name in ("lower", "upper", "work", "root"):
                (Path(probe) / name).mkdir()
            options = f"lowerdir={probe}/lower,upperdir={probe}/upper,workdir={probe}/work"
            mount = ("mount", "-t", "overlay", "-o", options, "overlay", f"{probe}/root")
            return succeeds("unshare", "--mount", *mount)

    @staticmethod
    def _lacking_packages() -> list[str]:
        return sorted({package for tool, package in _TOOLS.items() if shutil.which(tool) is None})


def _apt_get(*arguments: str, progress: Progress) -> None:
    command = ["apt-get", "--quiet", *arguments]
    with progress.task(f"apt-get {arguments[0]}"):
        answer = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            timeout=_INSTALL_SECONDS,
        )
    if answer.returncode != 0:
        raise BulkheadError(
            Reason.DEPENDENCY_UNAVAILABLE,
            f"apt-get {arguments[0]} failed; correct what it says and run it again:"
            f" {answer.stderr.strip()[-2000:]}",
        )
