"""The disk image that servers start from: made once into the user's cache, never changed."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from domain.errors import BulkheadError, Reason
from infra.local_cloud import archives
from infra.local_cloud.archives import Archives
from infra.tools.cache import ProgramCache, user_cache
from infra.tools.program import this_platform
from infra.tools.progress import Progress, Task

# What a cloud's Debian image has. The product's bootstrap brings all that makes it a node.
_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "udev", "cloud-init", "kmod", "procps"),
    *("iproute2", "iptables", "conntrack", "ethtool", "socat", "iputils-ping"),
    *("curl", "openssl", "ca-certificates", "libfaketime"),
)
# Nothing may fetch or wait behind a server's back: boots are measured.
_MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "systemd-udevd.service"),
    *("systemd-udev-trigger.service", "systemd-networkd-wait-online.service"),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount", "dev-hugepages.mount"),
)
_ENABLED = ("cloud-init-local", "cloud-init", "cloud-config", "cloud-final")
# Shell commands that finish the image, whose root is in $1.
_HOOKS = (
    f'chroot "$1" systemctl enable {" ".join(_ENABLED)}',
    f'chroot "$1" systemctl mask {" ".join(_MASKED)}',
    # Each server gets its own names, and none the host's proxy settings or shortcuts of the build.
    'cd "$1/etc"; rm -f machine-id hostname resolv.conf */*/99mmdebstrap',
)
# An image that was cut short is thrown away, so that nothing need be synced while it is made.
_DPKG = ("force-unsafe-io", "path-exclude=/usr/share/man/*", "path-exclude=/usr/share/doc/*")
# What the image has beyond packages, because of what this host is; a layer of its own.
_FILES = Path(__file__).parent / "root"
_TYPICAL_SECONDS = 60
_POLL_SECONDS = 0.5
_LINES_SHOWN = 15


@dataclass(frozen=True, slots=True)
class Image:
    """Directories that lie on each other, the topmost first. They are shared and read-only."""

    layers: tuple[Path, ...]

    def with_files(self, files: Mapping[str, Path]) -> "Image":
        """Return this image with files of the host in it, known by their sha256.

        Their mode is kept and their owner is root. The same contents give the same layer.

        Args:
            files: the absolute path in the server, and the file to copy there.
        """
        layer = _FilesLayer(dict(sorted(files.items())))
        cache = _cache()
        place = _directory() / layer.name / layer.key()
        with Progress() as progress, cache.making(layer, progress) as work:
            if not place.is_dir():
                layer.write(work / "root")
                _keep(work / "root", place)
        return Image((place, *self.layers))


@dataclass(frozen=True, slots=True)
class _FilesLayer:
    files: dict[str, Path]
    name: str = "server-files"

    def key(self) -> str:
        digest = hashlib.sha256()
        for target, source in self.files.items():
            with source.open("rb") as content:
                sha256 = hashlib.file_digest(content, "sha256").hexdigest()
            digest.update(f"{target}\0{sha256}\0{source.stat().st_mode}\n".encode())
        return digest.hexdigest()[:32]

    def write(self, root: Path) -> None:
        for target, source in self.files.items():
            place = root / target.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
            place.chmod(source.stat().st_mode & 0o777)
        for directory in (root, *(path for path in root.rglob("*") if path.is_dir())):
            # The topmost layer's mode counts, and the caller's umask must not.
            directory.chmod(0o755)


@dataclass(frozen=True, slots=True)
class _Recipe:
    """All that decides what the image is, but for the day's versions of its packages."""

    archives: Archives
    name: str = "server-image"

    def key(self) -> str:
        digest = hashlib.sha256(json.dumps([_PACKAGES, _HOOKS, _DPKG]).encode()).hexdigest()[:16]
        return f"{self.archives.suite}-{this_platform().replace('/', '-')}-{digest}"


def server_image(progress: Progress, *, make: bool = True) -> Image:
    """Return the image, after making it if it is not there yet: half a minute on two cores.

    Call `Host.prepare` first. Of two processes that want it, one makes it and the other waits.

    Args:
        progress: told how far it is.
        make: whether it may be made.

    Raises:
        BulkheadError: FAILED_PRECONDITION, when apt knows no packages, or the image is not there
            and `make` is False; DEPENDENCY_UNAVAILABLE, when the packages could not be had
            (nothing is left behind, and the message has the last lines).
    """
    recipe = _Recipe(archives.read())
    place = _directory() / recipe.name / recipe.key()
    if not place.is_dir():
        if not make:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                "There is no image for local servers yet; make it with `make server-image`.",
            )
        cache = _cache()
        with cache.making(recipe, progress) as work:
            if not place.is_dir():
                last = cache.last_duration(recipe) or _TYPICAL_SECONDS
                progress.say(f"Making the image of local servers, in about {last:.0f} s")
                with progress.task("server image") as task:
                    _build(recipe, work, task)
                _keep(work / "root", place)
                cache.remember_duration(recipe, task.seconds)
                progress.say(f"The image of local servers is in {place}")
    files = [path for path in _FILES.rglob("*") if path.is_file()]
    return Image((place,)).with_files({f"/{path.relative_to(_FILES)}": path for path in files})


def _directory() -> Path:
    return user_cache().parent / "servers"


def _cache() -> ProgramCache:
    return ProgramCache(_directory())


def _keep(made: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    made.rename(place)


def _build(recipe: _Recipe, work: Path, task: Task) -> None:
    root, log = work / "root", work / "build.log"
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--"]
    command += ["mmdebstrap", "--mode=root", "--variant=apt", "--skip=output/mknod"]
    command += [f"--include={','.join(_PACKAGES)}"]
    command += [f"--dpkgopt={option}" for option in _DPKG]
    command += [f"--aptopt={option}" for option in recipe.archives.options]
    command += [f"--customize-hook={hook}" for hook in _HOOKS]
    command += [recipe.archives.suite, os.fspath(root), *recipe.archives.sources]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _follow(process, log, task)
        finally:
            if process.poll() is None:
                # unshare takes its whole process namespace with it.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode != 0:
        lines = log.read_text(errors="replace").splitlines()[-_LINES_SHOWN:]
        raise BulkheadError(
            Reason.DEPENDENCY_UNAVAILABLE,
            f"mmdebstrap ended with status {process.returncode}; check that `apt-get update` works"
            f" and that there is 1 GB of disk space, then try again. It said last:\n"
            + "\n".join(lines),
        )
    root.chmod(0o755)


def _follow(process: subprocess.Popen[bytes], log: Path, task: Task) -> None:
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)
            return
        lines = log.read_text(errors="replace").split("\n")
        steps = [line.removeprefix("I: ") for line in lines if line.startswith("I: ")]
        task.proceed(steps[-1] if steps else "starting")
