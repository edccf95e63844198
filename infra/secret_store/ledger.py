"""The ledger of purges: a file that no backup replaces, so that a restored one cannot undo them.

One JSON object a line, only ever added to, and on the disk before the purge counts as done. It
belongs to the worker of the control queue: where several machines serve that queue, one of them
keeps the ledger, or all of them share its file.
"""

import fcntl
import os
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from domain.errors import BulkheadError, Reason
from domain.secret import SecretKind, VersionPlace
from infra.database.tables import SecretTombstoneRow

_MODE: Final = 0o600


class LedgerEntry(BaseModel):
    """One purged secret: ids, and the evidence that its values were gone."""

    model_config = ConfigDict(frozen=True)

    workspace_id: str
    secret_id: str
    kind: SecretKind
    version_ids: list[str]
    evidence: dict[str, Any]
    actor_kind: str
    actor_id: str
    approved_by: str | None
    purged_at: datetime

    @classmethod
    def of_tombstone(cls, row: SecretTombstoneRow) -> Self:
        """Return what the ledger says of a tombstone."""
        return cls.model_validate(row.model_dump())

    def tombstone(self) -> SecretTombstoneRow:
        """Return the row that says the same."""
        return SecretTombstoneRow(**self.model_dump())

    def places(self) -> list[VersionPlace]:
        """Return where the values were."""
        return [
            VersionPlace(
                workspace_id=self.workspace_id, secret_id=self.secret_id, version_id=version_id
            )
            for version_id in self.version_ids
        ]


class Ledger:
    """The file. Blocking; safe to use from several threads and processes of one machine."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = Lock()
        self._known: dict[str, LedgerEntry] = {}
        self._read_bytes = 0
        self._inode = 0

    def entries(self) -> dict[str, LedgerEntry]:
        """Return every entry by the id of its secret.

        Raises:
            BulkheadError: INTERNAL when a line was damaged.
        """
        with self._lock:
            if self._file.exists():
                with self._file.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_SH)
                    self._read(file.fileno())
            else:
                self._forget()
            return dict(self._known)

    def append(self, entry: LedgerEntry) -> None:
        """Add an entry, unless its secret has one; it is on the disk when this returns.

        Raises:
            BulkheadError: INTERNAL when a line was damaged; DEPENDENCY_UNAVAILABLE when the disk
                does not take it.
        """
        with self._lock:
            try:
                self._append(entry)
            except OSError as error:
                raise BulkheadError(
                    Reason.DEPENDENCY_UNAVAILABLE,
                    f"The ledger of purges {self._file} cannot be written "
                    f"({os.strerror(error.errno or 0)}); nothing counts as purged without it. Make "
                    "room, or make it writable; the purge is tried again.",
                ) from error

    def _append(self, entry: LedgerEntry) -> None:
        is_new = not self._file.exists()
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_APPEND, _MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # A line without its end was never on the disk as a whole: its purge is not done.
            os.ftruncate(descriptor, self._read(descriptor))
            if entry.secret_id not in self._known:
                _write_all(descriptor, entry.model_dump_json().encode() + b"\n")
            # Also for an entry that was found: who wrote it may have died before this.
            os.fsync(descriptor)
            self._read(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            _sync_directory(self._file.parent)

    def _read(self, descriptor: int) -> int:
        """Take in what was added, and return where the last whole line ends."""
        facts = os.fstat(descriptor)
        if facts.st_ino != self._inode or facts.st_size < self._read_bytes:
            self._forget()
        added = os.pread(descriptor, facts.st_size - self._read_bytes, self._read_bytes)
        whole = added[: added.rfind(b"\n") + 1]
        for line in whole.splitlines():
            entry = self._parsed(line)
            self._known.setdefault(entry.secret_id, entry)
        self._inode = facts.st_ino
        self._read_bytes += len(whole)
        return self._read_bytes

    def _parsed(self, line: bytes) -> LedgerEntry:
        try:
            return LedgerEntry.model_validate_json(line)
        except ValidationError:
            raise BulkheadError(
                Reason.INTERNAL,
                f"A line of the ledger of purges {self._file} is damaged, so nobody knows what a "
                "restored backup must not bring back. Put a copy of the file back; its lines are "
                "only ever added to.",
            ) from None

    def _forget(self) -> None:
        self._known, self._read_bytes, self._inode = {}, 0, 0


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
