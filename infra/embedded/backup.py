"""Saves a running stack into one file, and puts it back.

The database is saved before the secret store and the charts: whatever a saved row says is stored
then is. The other way round, a value written in between would be missing for ever.
"""

import shutil
import time
from pathlib import Path
from typing import Final

from domain.errors import BulkheadError, Reason
from infra.embedded import archive as archives
from infra.embedded import database_copy
from infra.embedded.archive import Manifest
from infra.embedded.chart_copy import load_charts, save_charts
from infra.embedded.openbao import OpenBao
from infra.embedded.server import Part
from infra.embedded.stack import Report, Stack, report_nothing
from infra.openbao.restore_marker import RestoreMarker
from infra.openbao.seal import Stage, id_of, ids_in_snapshot, read_seal_key
from infra.supervisor.files import write_atomically

# Everything that must not run while its data is replaced, who asks before who is asked.
_ENDED_FOR_RESTORE: Final = (Part.WORKER, Part.API, Part.TEMPORAL, Part.OPENBAO)

# Measured: 5.5 s, most of which it waits for its own election.
_RESTORED_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.1


def back_up(
    stack: Stack, archive: Path, *, seal_key_to: Path | None, report: Report = report_nothing
) -> Manifest:
    """Save database, secret store, login keys and charts of a running stack into a private file.

    Args:
        stack: goes on serving meanwhile.
        archive: the new file; must not exist yet.
        seal_key_to: another new file, which gets a copy of the seal key.
        report: told of each thing that is done.

    Raises:
        BulkheadError: FAILED_PRECONDITION when the stack does not run or its seal key is being
            rotated, CONFLICT when a file exists.
    """
    for file in (archive, seal_key_to):
        if file is not None:
            archives.refuse_existing(file)
    openbao = OpenBao(stack.home, stack.ports)
    with stack.home.locked(), stack.home.emptied_scratch() as scratch:
        stack.home.refuse_unfinished_restore()
        cluster_id = _cluster_id(openbao)
        if cluster_id is None or not stack.postgresql.answers():
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                "PostgreSQL or OpenBao does not run, so nothing was saved; `make up` starts them.",
            )
        if openbao.seal_keys.stage is not Stage.NONE:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                "The seal key is being rotated; `make rotate-seal-key` finishes that first.",
            )
        for name in (archives.DATABASE, archives.SNAPSHOT, archives.CHARTS):
            (scratch / name).touch(mode=0o600)
        with report("database"):
            file = scratch / archives.DATABASE
            database_copy.save_database(stack.postgresql, stack.database.name, file)
        with report("secret store"), stack.operator() as operator:
            operator.save_snapshot(scratch / archives.SNAPSHOT)
        with report("charts"):
            save_charts(stack.charts.storage, scratch / archives.CHARTS)
        for name in archives.LOGIN_KEYS:
            write_atomically(scratch / name, (openbao.directory / name).read_bytes())
        key = openbao.seal_keys.current.read_bytes()
        _check_wrapping(scratch / archives.SNAPSHOT, id_of(key))
        with report("archive"):
            if seal_key_to is not None:
                write_atomically(seal_key_to, key)
            return archives.pack(scratch, archive, seal_key_id=id_of(key), cluster_id=cluster_id)


def restore(
    stack: Stack, archive: Path, *, seal_key: Path | None, report: Report = report_nothing
) -> Manifest:
    """Replace database, secret store and charts of a stack, new or not, by those of a backup.

    Nothing is changed before the whole backup is known to be sound and to open with the seal key.
    From then on the stack serves nothing until this has come to its end; it may be repeated.
    PostgreSQL and OpenBao run at the end, `up` starts the rest.

    Args:
        stack: where to.
        archive: the backup.
        seal_key: the file with its seal key, where that is not the stack's own.
        report: told of each thing that is done.

    Raises:
        BulkheadError: INVALID_ARGUMENT when the backup is damaged, FAILED_PRECONDITION when its
            seal key is not here.
    """
    with stack.changing(report):
        openbao = OpenBao(stack.home, stack.ports)
        with report("checking"), stack.home.emptied_scratch() as scratch:
            manifest = archives.unpack(archive, scratch)
            key = _seal_key_for(manifest, openbao, seal_key)
            _check_wrapping(scratch / archives.SNAPSHOT, manifest.seal_key_id)
            shutil.rmtree(stack.home.restore, ignore_errors=True)
            scratch.rename(stack.home.restore)
        # The first line of these that changes anything finds the directory that `up` refuses.
        if stack.supervisor.pid:
            for part in _ENDED_FOR_RESTORE:
                with report(f"{part} ends"):
                    stack.supervisor.stop(part, part)
        _prepare_secret_store(stack, openbao, key)
        stack.up_servers({Part.POSTGRESQL, Part.OPENBAO}, report)
        with report("secret store"):
            _load_secret_store(stack, openbao, manifest)
        with report("database"):
            _load_database(stack)
        with report("charts"):
            _load_charts(stack)
        # What was in progress is unknown to the database; its schedules are announced anew.
        shutil.rmtree(stack.home.temporal, ignore_errors=True)
        database_copy.forget_replaced(stack.postgresql, stack.database.name)
        openbao.forget_set_aside()
        shutil.rmtree(stack.home.restore)
        return manifest


def _seal_key_for(manifest: Manifest, openbao: OpenBao, chosen: Path | None) -> bytes:
    if chosen is not None:
        key = read_seal_key(chosen)
        if id_of(key) != manifest.seal_key_id:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"This backup opens with the seal key {manifest.seal_key_id}, and {chosen} is "
                f"{id_of(key)}. Nothing was changed; give the right one.",
            )
        return key
    for key in openbao.seal_keys.all():
        if id_of(key) == manifest.seal_key_id:
            return key
    raise BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"This backup opens with the seal key {manifest.seal_key_id}, which is not in "
        f"{openbao.directory}. Nothing was changed; give the file that it was saved to with "
        "`make restore FROM=FILE SEAL_KEY=FILE`. Without it the backup cannot be opened by anyone.",
    )


def _check_wrapping(snapshot: Path, seal_key_id: str) -> None:
    found = ids_in_snapshot(snapshot)
    if found != {seal_key_id}:
        names = ", ".join(sorted(found)) or "none"
        raise BulkheadError(
            Reason.INTERNAL,
            f"The secret store's snapshot is wrapped with {names} instead of {seal_key_id}; such a "
            "backup could not be opened. `make rotate-seal-key` has the store wrapped anew.",
        )


def _prepare_secret_store(stack: Stack, openbao: OpenBao, key: bytes) -> None:
    openbao.directory.mkdir(mode=0o700, exist_ok=True)
    openbao.set_store_aside()
    openbao.seal_keys.install(key)
    # The store knows these, and whoever they belong to, and no others.
    for name in archives.LOGIN_KEYS:
        write_atomically(openbao.directory / name, (stack.home.restore / name).read_bytes())


def _load_secret_store(stack: Stack, openbao: OpenBao, manifest: Manifest) -> None:
    sha256 = manifest.files[archives.SNAPSHOT].sha256
    RestoreMarker(snapshot_sha256=sha256).write(openbao.restored_at_file)
    with stack.operator() as operator:
        operator.restore_snapshot(stack.home.restore / archives.SNAPSHOT)
        deadline = time.monotonic() + _RESTORED_SECONDS
        # It answers for a moment as what it was, and then not at all.
        while _cluster_id(openbao) != manifest.cluster_id:
            if time.monotonic() > deadline:
                raise BulkheadError(
                    Reason.DEADLINE_EXCEEDED,
                    "OpenBao does not come back after its restore; its log says why. "
                    "Repeat the restore.",
                )
            time.sleep(_POLL_SECONDS)
        operator.ensure_set_up(openbao.directory)
    # Until now the file had the authority of the store that was made to take the snapshot in.
    openbao.keep_authority()


def _load_database(stack: Stack) -> None:
    name = stack.database.name
    file = stack.home.restore / archives.DATABASE
    database_copy.load_database(stack.postgresql, name, file)
    stack.bootstrap()
    database_copy.keep_ledgers(stack.postgresql, name)
    database_copy.revoke_again(stack.postgresql, name)


def _load_charts(stack: Stack) -> None:
    file = stack.home.restore / archives.CHARTS
    # An older backup has none: what was pushed stays.
    if file.exists():
        stack.supervisor.stop(Part.CHARTS, Part.CHARTS)
        load_charts(file, stack.charts.storage, stack.charts.uid)


def _cluster_id(openbao: OpenBao) -> str | None:
    health = openbao.health()
    return None if health is None else str(health["cluster_id"])
