"""Writes files for the processes of one control plane, and types a full disk."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from domain.errors import BulkheadError, Reason

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

_MEBIBYTE: Final = 1024 * 1024


@contextmanager
def typed_disk_errors(directory: Path) -> Iterator[None]:
    """Turn a full disk or an exhausted disk quota into a typed error."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full(directory) from error
        raise


def disk_full(directory: Path) -> BulkheadError:
    """Return the failure for a directory that has no room left.

    Trying again cannot help: somebody must make room first.
    """
    free = free_bytes(directory) // _MEBIBYTE
    return BulkheadError(
        Reason.CAPACITY_UNAVAILABLE,
        f"The control-plane host has no disk space left for the cluster ({free} MiB free). Free "
        f"space or enlarge the volume of {directory.name}, then ask again.",
        metadata={"resource": "disk", "free_bytes": str(free * _MEBIBYTE)},
        retryable=False,
    )


def free_bytes(directory: Path) -> int:
    """Return how much an ordinary user can still write there, or where it would be made."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    return shutil.disk_usage(existing).free


def make_directory(path: Path, *, uid: int | None, writable: bool = False) -> None:
    """Make a directory that only we and the processes of the cluster can enter.

    With a user id of their own the processes own what they write into and can merely read the
    rest: what we write there as root must not be theirs to replace by a link.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    if uid is None:
        path.chmod(0o700)
    elif writable:
        if path.stat().st_uid != uid:
            # Made before its processes got a user id of their own: all of it becomes theirs.
            for folder, folders, names in os.walk(path):
                for name in (*folders, *names):
                    os.chown(Path(folder, name), uid, uid, follow_symlinks=False)
            os.chown(path, uid, uid)
        path.chmod(0o700)
    else:
        os.chown(path, 0, uid)
        path.chmod(0o750)


def write_file(path: Path, content: bytes, *, uid: int | None) -> None:
    """Replace a file as a whole, readable by its owner alone; an equal one is left as it is."""
    try:
        if path.read_bytes() == content and uid in {None, path.stat().st_uid}:
            return
    except FileNotFoundError:
        pass
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if uid is not None:
                os.fchown(file.fileno(), uid, uid)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
