"""Charts on this host's disk, by their digest. Charts are no secret, and can be fetched again."""

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from infra.helm.archive import digest_of

# Some thousands of charts; the ones that were not used for longest go first.
_MAXIMUM_BYTES: Final = 512 * 1024 * 1024

_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")


class ChartCache:
    """Keeps archives; what is read from it is what its digest says, whatever became of the disk."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def holds(self, digest: str) -> bool:
        """Tell whether an archive is here."""
        path = self._path_of(digest)
        return path is not None and path.exists()

    def read(self, digest: str) -> bytes | None:
        """Return an archive, None when it is not here, or not any more what it was."""
        path = self._path_of(digest)
        if path is None:
            return None
        try:
            content = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return None
        if digest_of(content) != digest:
            path.unlink(missing_ok=True)
            return None
        return content

    def write(self, content: bytes) -> None:
        """Keep an archive, and make room for it."""
        path = self._path_of(digest_of(content))
        assert path is not None  # noqa: S101 - our own digest
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_suffix(f".{secrets.token_hex(8)}.partial")
        try:
            partial.write_bytes(content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        self._make_room(keep=path)

    def _path_of(self, digest: str) -> Path | None:
        match = _DIGEST.fullmatch(digest)
        return None if match is None else self._directory / f"{match[1]}.tgz"

    def _make_room(self, *, keep: Path) -> None:
        kept: list[tuple[float, int, Path]] = []
        for path in self._directory.iterdir():
            # Another process may make room too.
            with suppress(FileNotFoundError):
                found = path.stat()
                kept.append((found.st_mtime, found.st_size, path))
        total = sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept):
            if total <= _MAXIMUM_BYTES:
                break
            if path != keep:
                path.unlink(missing_ok=True)
                total -= size
