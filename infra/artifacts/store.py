"""The directory of artifact sets: `files/<sha256>`, `sets/<id>.json`, `current/<platform>`."""

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from domain.errors import BulkheadError, Reason
from infra.artifacts.manifest import Manifest, describe
from infra.tools import PROGRAMS
from infra.tools.program import this_platform

_FILE_MODE = 0o644
_DIRECTORY_MODE = 0o755
_ID = re.compile(r"[0-9a-f]{64}")
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+")


class ArtifactSet:
    """The files of one manifest. What it finds is named by the manifest, never by a caller."""

    def __init__(self, manifest: Manifest, files: Path) -> None:
        self.manifest = manifest
        self.id = manifest.id
        self._files = {
            artifact.sha256: (files / artifact.sha256, artifact.size_bytes)
            for artifact in manifest.artifacts
        }

    def find(self, sha256: str) -> Path | None:
        """Give the stored file of that content, or None if the set has none.

        Only the file's kind and size are checked here: a download may be 60 MB, and servers
        compare the whole sha256 themselves.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE, the file is of the set but missing or damaged.
        """
        if sha256 not in self._files:
            return None
        path, size_bytes = self._files[sha256]
        try:
            status = path.lstat()
        except FileNotFoundError:
            status = None
        if status is None or not stat.S_ISREG(status.st_mode) or status.st_size != size_bytes:
            raise BulkheadError(
                Reason.DEPENDENCY_UNAVAILABLE,
                f"The stored artifact {sha256} is missing or damaged. Store the programs again:"
                f" that puts the right file back.",
                metadata={"set": self.id, "sha256": sha256},
            )
        return path


class ArtifactStore:
    """Keeps sets of programs; several processes may use one directory at the same time."""

    def __init__(self, directory: Path) -> None:
        self._files = directory / "files"
        self._sets = directory / "sets"
        self._current = directory / "current"

    def ensure(self, programs: Mapping[str, Path], platform: str | None = None) -> ArtifactSet:
        """Store programs as a set and make it the current one of its platform.

        Every file is read and hashed, the stored ones too, and what is missing or damaged is
        written again; older sets stay as they are.

        Args:
            programs: the executables by the names of their pins.
            platform: what they run on, for example `linux/arm64`; None means this machine's.

        Raises:
            BulkheadError: a name has no pin, or a file cannot be read or written.
        """
        if unknown := sorted(set(programs) - set(PROGRAMS)):
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                f"There is no pin for {', '.join(unknown)} in infra/tools/pins.py.",
            )
        platform = platform or this_platform()
        try:
            for directory in (self._files, self._sets, self._current):
                directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
            artifacts = tuple(
                describe(name, *self._store(path)) for name, path in sorted(programs.items())
            )
            manifest = Manifest(platform=platform, artifacts=artifacts)
            _replace(self._sets / f"{manifest.id}.json", manifest.canonical())
            _replace(self._pointer(platform), manifest.id.encode())
        except OSError as error:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"Artifacts cannot be stored in {self._files.parent}: {error.strerror}"
                f" ({error.filename}). Make room or rights there.",
            ) from error
        return ArtifactSet(manifest, self._files)

    def open(self, set_id: str) -> ArtifactSet | None:
        """Give a stored set by its id; None if there is none of that id.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE, its manifest is not the one of that id.
        """
        if not _ID.fullmatch(set_id):
            return None
        try:
            content = (self._sets / f"{set_id}.json").read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(content).hexdigest() != set_id:
            raise _damaged_manifest(set_id)
        try:
            return ArtifactSet(Manifest.model_validate_json(content), self._files)
        except ValidationError as error:
            raise _damaged_manifest(set_id) from error

    def current(self, platform: str) -> ArtifactSet | None:
        """Give the newest set of a platform; None if nothing was stored for it."""
        if not _PLATFORM.fullmatch(platform):
            return None
        try:
            set_id = self._pointer(platform).read_text()
        except FileNotFoundError:
            return None
        return self.open(set_id)

    def stored(self) -> Iterator[ArtifactSet]:
        """Give every stored set, the one that was stored last before others.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE, a manifest that is reached is damaged.
        """
        manifests = self._sets.glob("*.json")
        for file in sorted(manifests, key=lambda each: each.stat().st_mtime, reverse=True):
            if (found := self.open(file.stem)) is not None:
                yield found

    def _pointer(self, platform: str) -> Path:
        return self._current / platform.replace("/", "-")

    def _store(self, source: Path) -> tuple[str, int]:
        """Keep a copy of a file under its sha256; returns that and the size in bytes.

        A copy and not a hard link: the program must stay executable where it was made, and
        damage to one of two links is damage to both, which leaves nothing to repair from.
        """
        content = source.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        target = self._files / sha256
        if not _is_intact(target, sha256):
            _replace(target, content)
        return sha256, len(content)


def _is_intact(file: Path, sha256: str) -> bool:
    if file.is_symlink() or not file.is_file():
        return False
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == sha256


def _replace(target: Path, content: bytes) -> None:
    """Write a file in one step: who reads meanwhile gets the old one or the new one, whole."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:16]}-", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as output:
            output.write(content)
            output.flush()
            # A power cut after the rename must not leave an empty file under a good name.
            os.fsync(output.fileno())
        temporary.chmod(_FILE_MODE)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _damaged_manifest(set_id: str) -> BulkheadError:
    return BulkheadError(
        Reason.DEPENDENCY_UNAVAILABLE,
        f"The stored manifest of artifact set {set_id} is damaged. Store the programs again, or"
        f" make a new bootstrap, which uses the current set.",
        metadata={"set": set_id},
    )
