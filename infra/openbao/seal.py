"""The key that seals an embedded OpenBao, and the files of its rotation.

What is there says how far a rotation came, so that whatever dies, the next start and the next
attempt find their way:

    seal.key                      no rotation
    seal.key, seal-next.key       the server gets both, and wraps anew with the next one
    seal-previous.key, seal-next.key    between two renames: the server gets both
    seal.key, seal-previous.key   the server gets the new one alone, to prove that it suffices
"""

import hashlib
import json
import os
import re
import secrets
import tarfile
from enum import Enum, auto
from pathlib import Path
from typing import Final

from domain.errors import BulkheadError, Reason
from infra.supervisor.files import write_atomically

_SEAL_KEY_BYTES: Final = 32

# Of the SHA-256 of a key of 256 random bits: tells keys apart and says nothing about them.
_ID_DIGITS: Final = 16
_ID: Final = re.compile(rb"seal-[0-9a-f]{16}")


class Stage(Enum):
    """How far a rotation of the seal key came."""

    NONE = auto()
    BOTH = auto()
    PROOF = auto()


class SealKeys:
    """The seal keys in a server's folder.

    Args:
        directory: the server's own folder.
    """

    def __init__(self, directory: Path) -> None:
        self.current = directory / "seal.key"
        self._next = directory / "seal-next.key"
        self._previous = directory / "seal-previous.key"

    @property
    def stage(self) -> Stage:
        """How far a rotation came."""
        if self._next.exists():
            return Stage.BOTH
        return Stage.PROOF if self._previous.exists() else Stage.NONE

    def all(self) -> list[bytes]:
        """Return every key that is here."""
        files = (self.current, self._next, self._previous)
        return [file.read_bytes() for file in files if file.exists()]

    def ensure(self) -> None:
        """Make the first key unless there is one."""
        if not self.current.exists() and self.stage is Stage.NONE:
            self._write(self.current, secrets.token_bytes(_SEAL_KEY_BYTES))

    def install(self, key: bytes) -> None:
        """Make this the only key, where there is no store that needs another one."""
        self._write(self.current, key)
        self._next.unlink(missing_ok=True)
        self._previous.unlink(missing_ok=True)

    def configuration(self) -> str:
        """Return the lines of the server's `seal "static"` for this stage."""
        if self.stage is not Stage.BOTH:
            return _lines("current", self.current)
        old = self.current if self.current.exists() else self._previous
        return f"{_lines('current', self._next)}\n{_lines('previous', old)}"

    def begin(self) -> None:
        """Make the next key; one that was made is kept, for the store may be sealed with it."""
        if self.stage is Stage.NONE:
            self._write(self._next, secrets.token_bytes(_SEAL_KEY_BYTES))

    def newest_id(self) -> str:
        """Return the id of the key that is to remain."""
        return id_of((self._next if self._next.exists() else self.current).read_bytes())

    def previous_id(self) -> str:
        """Return the id of the key that is to go, in the stage of the proof."""
        return id_of(self._previous.read_bytes())

    def prove(self) -> None:
        """Have the server start with the new key alone; the old one is set aside, not removed."""
        if self.current.exists():
            self.current.rename(self._previous)
        self._next.rename(self.current)
        _sync(self.current.parent)

    def retreat(self) -> None:
        """Give the server both keys again."""
        self.current.rename(self._next)
        self._previous.rename(self.current)
        _sync(self.current.parent)

    def finish(self) -> None:
        """Remove the old key. Only after the server has opened its store without it."""
        self._previous.unlink(missing_ok=True)
        _sync(self.current.parent)

    def _write(self, path: Path, key: bytes) -> None:
        write_atomically(path, key)
        # A store that is sealed with a key whose name the disk forgot would be lost.
        _sync(path.parent)


def read_seal_key(path: Path) -> bytes:
    """Return the key that a file holds.

    Raises:
        BulkheadError: INVALID_ARGUMENT when there is none.
    """
    try:
        key = path.read_bytes()
    except OSError as error:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT, f"The seal key {path} cannot be read: {error.strerror}."
        ) from None
    if len(key) != _SEAL_KEY_BYTES:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            f"{path} is no seal key: it has {len(key)} bytes instead of {_SEAL_KEY_BYTES}.",
        )
    return key


def id_of(key: bytes) -> str:
    """Return the name under which the server knows a key."""
    return f"seal-{hashlib.sha256(key).hexdigest()[:_ID_DIGITS]}"


def ids_in_snapshot(path: Path) -> set[str]:
    """Return the ids of all keys with which anything in a raft snapshot is wrapped.

    Whatever the seal wraps has the id of its key beside it, in clear; what the store keeps below
    that is ciphertext.
    """
    found: set[bytes] = set()
    overlap = b""
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            content = archive.extractfile(member)
            while content is not None and (chunk := content.read(1 << 20)):
                found.update(_ID.findall(overlap + chunk))
                overlap = chunk[-len("seal-") - _ID_DIGITS :]
    return {name.decode() for name in found}


def _lines(role: str, path: Path) -> str:
    name, place = json.dumps(id_of(path.read_bytes())), json.dumps(f"file://{path}")
    return f"  {role}_key_id = {name}\n  {role}_key = {place}"


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
