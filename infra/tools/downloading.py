"""Downloads an official release and believes nothing but its pinned sha256."""

import hashlib
import shutil
import tarfile
from contextlib import suppress
from pathlib import Path

import httpx

from domain.errors import BulkheadError, Reason
from infra.tools.program import Program, this_platform
from infra.tools.progress import Task

_CHUNK_BYTES = 1 << 20
# A mirror that sends nothing for this long is taken for dead; the whole may take any time.
_SILENCE_SECONDS = 60.0


def download(program: Program, work: Path, *, task: Task) -> Path:
    """Fetch a program's release into `work`, check it, and return the executable's path.

    Raises:
        BulkheadError: no checksum is pinned for this platform, the server did not deliver, or
            what it delivered is not what was pinned.
    """
    release = program.release
    expected = release.sha256.get(this_platform()) if release else None
    if release is None or expected is None:
        raise _no_checksum(program)
    arch = this_platform().split("/")[1]
    url = release.url.format(arch=arch)
    file = work / f"{expected}.download"
    # Several programs come out of one archive.
    actual = expected if file.exists() else _fetch(url, file, task)
    if actual != expected:
        file.unlink()
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"{url} has sha256 {actual}, but {program.name} {program.version} is pinned to"
            f" {expected}. The file was thrown away. Look for a proxy that changes downloads,"
            f" or install Go, with which the program is built from checked sources.",
            metadata={"program": program.name, "expected": expected, "actual": actual},
        )
    if release.member is None:
        return file
    return _unpack(file, release.member.format(arch=arch), work / program.name)


def _fetch(url: str, file: Path, task: Task) -> str:
    digest = hashlib.sha256()
    received = 0
    try:
        with (
            httpx.stream("GET", url, follow_redirects=True, timeout=_SILENCE_SECONDS) as answer,
            file.open("wb") as output,
        ):
            answer.raise_for_status()
            for chunk in answer.iter_bytes(_CHUNK_BYTES):
                output.write(chunk)
                digest.update(chunk)
                received += len(chunk)
                task.proceed(f"{received / 1e6:.0f} MB")
    except httpx.HTTPError as error:
        raise BulkheadError(
            Reason.DEPENDENCY_UNAVAILABLE,
            f"{url} could not be downloaded: {error}. Try again, or install Go, with which the"
            f" program is built instead.",
            metadata={"url": url},
        ) from error
    return digest.hexdigest()


def _unpack(archive: Path, member: str, target: Path) -> Path:
    with (
        suppress(StopIteration, tarfile.TarError),
        tarfile.open(archive, "r:gz") as tar,
        target.open("wb") as output,
    ):
        # Some archives have "./" before each name.
        entry = next(one for one in tar if one.name.removeprefix("./") == member)
        source = tar.extractfile(entry)
        if source is not None:
            shutil.copyfileobj(source, output)
            return target
    raise BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"{archive.name} is not a gzipped tar file with a file {member} in it; correct the"
        f" release in infra/tools/pins.py.",
    )


def _no_checksum(program: Program) -> BulkheadError:
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"There is no Go on PATH to build {program.name} {program.version} with, and no sha256 of"
        f" an official release for {this_platform()} is pinned in infra/tools/pins.py to download"
        f" it by. Install Go, or pin that checksum.",
        metadata={"program": program.name, "platform": this_platform()},
    )
