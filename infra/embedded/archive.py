"""The file of a backup: a manifest with sums, database, secret store, login keys, and charts.

The seal key is never in it: with it, who has the file would have every secret.
"""

import hashlib
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, Field, ValidationError

from domain.errors import BulkheadError, Reason
from infra.openbao.setup import ROOT_LOGINS

DATABASE: Final = "postgresql.dump"
SNAPSHOT: Final = "openbao.snapshot"
CHARTS: Final = "charts.tar"
LOGIN_KEYS: Final = tuple(f"{login.principal}.key" for login in ROOT_LOGINS)

_MANIFEST: Final = "manifest.json"
_MEMBERS: Final = frozenset({DATABASE, SNAPSHOT, CHARTS, *LOGIN_KEYS})
# Backups that were made before the stack had a registry of charts are as good as they were.
_MAY_BE_MISSING: Final = frozenset({CHARTS})
_CHUNK_BYTES: Final = 1 << 20


class FileFacts(BaseModel):
    """One file of a backup: its SHA-256 in hex and its size."""

    sha256: str
    bytes: int


class Manifest(BaseModel):
    """What a backup is of.

    Attributes:
        format: of the archive.
        created_at: when.
        seal_key_id: which seal key opens the secret store's snapshot.
        cluster_id: the secret store's own name of itself.
        files: the archive's other members.
    """

    format: Literal[1] = 1
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    seal_key_id: str
    cluster_id: str
    files: dict[str, FileFacts]


def facts_of(file: Path) -> FileFacts:
    """Return the sum and the size of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as source:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
    return FileFacts(sha256=digest.hexdigest(), bytes=file.stat().st_size)


def pack(directory: Path, archive: Path, *, seal_key_id: str, cluster_id: str) -> Manifest:
    """Write the members that are in a directory into a private archive, as a whole or not at all.

    Raises:
        BulkheadError: CONFLICT when the archive exists.
    """
    manifest = Manifest(
        seal_key_id=seal_key_id,
        cluster_id=cluster_id,
        files={name: facts_of(directory / name) for name in sorted(_MEMBERS)},
    )
    (directory / _MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    temporary = archive.with_name(f".{archive.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    with tarfile.open(temporary, "w") as file:
        for name in (_MANIFEST, *manifest.files):
            file.add(directory / name, arcname=name, filter=_private)
    refuse_existing(archive)
    temporary.rename(archive)
    return manifest


def refuse_existing(file: Path) -> None:
    """Raise CONFLICT when there is such a file, INVALID_ARGUMENT when there is no place for it."""
    if file.exists():
        raise BulkheadError(
            Reason.CONFLICT, f"{file} exists already, and is left alone; choose another name."
        )
    if not file.parent.is_dir():
        raise BulkheadError(
            Reason.INVALID_ARGUMENT, f"{file.parent} is no directory; make it first."
        )


def unpack(archive: Path, directory: Path) -> Manifest:
    """Take an archive apart into an empty private directory, and check every sum.

    Raises:
        BulkheadError: INVALID_ARGUMENT when it is no backup of ours, or is damaged.
    """
    try:
        with tarfile.open(archive, "r:") as file:
            for member in file:
                content = file.extractfile(member) if member.isreg() else None
                if content is None or member.name not in {_MANIFEST, *_MEMBERS}:
                    raise _unusable(archive, f"it has a member {member.name!r}")
                target = directory / member.name
                target.touch(mode=0o600)
                with target.open("wb") as out:
                    while chunk := content.read(_CHUNK_BYTES):
                        out.write(chunk)
        manifest = Manifest.model_validate_json((directory / _MANIFEST).read_bytes())
    except OSError as error:
        raise _unusable(archive, error.strerror or "it ends early") from error
    except tarfile.TarError as error:
        raise _unusable(archive, "it is no archive, or was cut short") from error
    except ValidationError as error:
        raise _unusable(archive, "its manifest is of another version") from error
    if not _MEMBERS - _MAY_BE_MISSING <= manifest.files.keys() <= _MEMBERS:
        raise _unusable(archive, "its manifest names other files")
    for name, facts in manifest.files.items():
        if not (directory / name).exists() or facts_of(directory / name) != facts:
            raise _unusable(archive, f"{name} is damaged")
    return manifest


def _private(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mode = 0o600
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _unusable(archive: Path, why: str) -> BulkheadError:
    return BulkheadError(
        Reason.INVALID_ARGUMENT,
        f"{archive} cannot be used as a backup: {why}. Nothing was changed; take another one.",
    )
