"""Saves what was pushed to the registry of charts into a file, and puts it back."""

import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# What is being pushed: parts of files, which the registry renames when they are whole.
_UPLOADS: Final = "_uploads"
_PART: Final = ".tmp"

# The files that the others name by their digests.
_BLOBS: Final = "blobs"


def save_charts(storage: Path, file: Path) -> None:
    """Write what is stored into an existing private file, while the registry goes on.

    Whatever names a blob is read before the blobs are, so that each blob that is named is there.
    """
    with file.open("wb") as out, tarfile.open(fileobj=out, mode="w") as archive:
        for of_blobs in (False, True):
            for path in _files(storage):
                name = path.relative_to(storage)
                if (_BLOBS in name.parts) is of_blobs:
                    archive.add(path, arcname=name)


def load_charts(file: Path, storage: Path, uid: int | None) -> None:
    """Put a copy in the place of what is stored; the registry does not run. May be repeated.

    Args:
        file: from `save_charts`.
        storage: the registry's folder.
        uid: whose the files will be; None: whoever does this.
    """
    loaded = storage.with_name(f"{storage.name}.restored")
    shutil.rmtree(loaded, ignore_errors=True)
    loaded.mkdir(mode=0o700, parents=True)
    with tarfile.open(file) as archive:
        archive.extractall(loaded, filter="data")
    if uid is not None:
        for path in (loaded, *loaded.rglob("*")):
            os.chown(path, uid, uid)
    shutil.rmtree(storage, ignore_errors=True)
    loaded.rename(storage)


def _files(storage: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(storage):
        folders[:] = [name for name in folders if name != _UPLOADS]
        yield from (Path(folder, name) for name in names if not name.endswith(_PART))
