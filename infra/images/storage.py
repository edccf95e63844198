"""The directory that a distribution registry serves, written without the registry.

Its layout is that of the registry's `filesystem` driver: `blobs/` by digest, and for each
repository links to the blobs that it may serve. Everything is readable for all, so that the
registry can be another user, who then cannot change it whatever is asked of it.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

from infra.supervisor.files import write_atomically

_FILE_MODE: Final = 0o644
_DIRECTORY_MODE: Final = 0o755

# What people may ask for instead of a digest.
_TAG: Final = "current"

_UNFINISHED: Final = ".new-"


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored blob."""

    digest: str
    size: int

    @property
    def hex(self) -> str:
        """The digest without its algorithm."""
        return self.digest.removeprefix("sha256:")


class RegistryStorage:
    """The registry's root directory. What lies at a blob's place is complete."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._root = directory / "docker" / "registry" / "v2"

    def has(self, digest: str) -> bool:
        """Tell whether a blob is there."""
        return self._blob(digest.removeprefix("sha256:")).is_file()

    def add_blob(self, write: Callable[[BinaryIO], object]) -> Blob:
        """Store what is written, as a stream, by the function."""
        blobs = self._root / "blobs"
        self._make(blobs)
        # What a death left behind; there is one writer at a time.
        for leftover in blobs.glob(f"{_UNFINISHED}*"):
            leftover.unlink()
        handle, unfinished = tempfile.mkstemp(dir=blobs, prefix=_UNFINISHED)
        with os.fdopen(handle, "wb") as file:
            hashing = HashingWriter(file)
            write(cast("BinaryIO", hashing))
            file.flush()
            os.fchmod(handle, _FILE_MODE)
            os.fsync(handle)
        blob = hashing.blob
        self._make(self._blob(blob.hex).parent)
        Path(unfinished).rename(self._blob(blob.hex))
        return blob

    def link(self, repository: str, *, manifest: Blob, blobs: tuple[Blob, ...]) -> None:
        """Let a repository serve a manifest and the blobs that it names, under its tag too."""
        place = self._root / "repositories" / repository
        for blob in blobs:
            self._write_link(place / "_layers" / "sha256" / blob.hex, blob)
        manifests = place / "_manifests"
        self._write_link(manifests / "revisions" / "sha256" / manifest.hex, manifest)
        tag = manifests / "tags" / _TAG
        self._write_link(tag / "index" / "sha256" / manifest.hex, manifest)
        self._write_link(tag / "current", manifest)

    def _blob(self, digits: str) -> Path:
        return self._root / "blobs" / "sha256" / digits[:2] / digits / "data"

    def _write_link(self, directory: Path, blob: Blob) -> None:
        self._make(directory)
        write_atomically(directory / "link", blob.digest)
        (directory / "link").chmod(_FILE_MODE)

    def _make(self, directory: Path) -> None:
        """Make a directory, and each that is missing down to it, whatever our umask is."""
        missing = [
            place
            for place in (directory, *directory.parents)
            if place.is_relative_to(self.directory) and not place.exists()
        ]
        for place in reversed(missing):
            place.mkdir(parents=True, exist_ok=True)
            place.chmod(_DIRECTORY_MODE)


class HashingWriter:
    """Writes to a file, and knows the sha256 and the size of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._size = 0

    @property
    def blob(self) -> Blob:
        """What was written so far."""
        return Blob(f"sha256:{self._sha256.hexdigest()}", self._size)

    def write(self, content: bytes) -> int:
        """Write it on."""
        self._sha256.update(content)
        self._size += len(content)
        return self._file.write(content)

    def flush(self) -> None:
        """Flush the file."""
        self._file.flush()
