"""Compares OpenBao's audit logs with our own: a value that was read without a line is an alarm.

Each answer with a value must carry the id of one line of ours, of that workspace and version, that
was written before, and for no other read. A line of theirs that cannot be read is an alarm too,
for the read that it may have told; it ends no comparison. So is a log that was removed before it
was compared. Who bounds the logs of an embedded OpenBao waits for us, and tells when it could not;
elsewhere, logs go the oldest first, so that one which was compared is among those that are left.
"""

import asyncio
import hashlib
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import system_caller
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from infra.database.engine import Database
from infra.database.tables import (
    AuditEventRow,
    SecretAuditLogRow,
    SecretReadRow,
    SecretStoreStateRow,
)
from infra.openbao.audit_logs import logs_of, mark_compared, removals_of
from infra.secret_store.audit_lines import Batch, TornLine, ValueRead, log_id_of, read_batch

SCHEDULE = "cross-check-secret-reads"

# How long after its line a read may come: the line is written a moment before, and the rest is for
# clocks that differ. Reads are remembered for longer than that, or a line could be used again.
_LINE_IS_GOOD_FOR: Final = timedelta(hours=1)
_READS_ARE_KEPT: Final = timedelta(days=2)

# A log whose end was seen this long ago is not there any more.
_POSITIONS_ARE_KEPT: Final = timedelta(days=30)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossChecked:
    """What one pass did; `is_on` is false where no logs are set."""

    is_on: bool
    logs: int = 0
    reads: int = 0
    bypasses: int = 0
    torn_lines: int = 0
    gaps: int = 0


class CrossCheck:
    """Reads what was added to the logs since the last pass.

    Args:
        database: of the worker.
        sweeper: of the sweeper.
        devices: the folders of OpenBao's audit devices; empty: the check is off.
    """

    def __init__(self, database: Database, sweeper: Database, devices: Sequence[Path]) -> None:
        self._database = database
        self._sweeper = sweeper
        self._devices = devices

    async def run(self) -> CrossChecked:
        """Compare every line that was not compared yet.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the database does not answer, and, once
                everything else is compared, when a folder or a log could not be read.
        """
        if not self._devices:
            log.warning(
                "reads of values are not cross-checked: SECRET_STORE__AUDIT_LOG_DIRS is not set"
            )
            return CrossChecked(is_on=False)
        done, failures = CrossChecked(is_on=True), list[OSError]()
        known = await self._known_logs()
        for device in self._devices:
            logs = await asyncio.to_thread(_identified, device, failures)
            if known and logs and known.isdisjoint(logs):
                log.error(
                    "logs of OpenBao were removed before they were compared", device=str(device)
                )
                done = replace(done, gaps=done.gaps + 1)
            done = await self._tell_removals(device, done, failures)
            for log_id, path in logs.items():
                try:
                    done = await self._compare(log_id, path, done)
                except OSError as error:
                    failures.append(error)
        if failures:
            raise BulkheadError(
                Reason.DEPENDENCY_UNAVAILABLE,
                f"{len(failures)} of OpenBao's audit logs or their folders cannot be read "
                f"({type(failures[0]).__name__}), so reads of values in them are not "
                "cross-checked; what the others tell was compared.",
            ) from failures[0]
        await self._forget()
        return done

    async def _compare(self, log_id: str, path: Path, done: CrossChecked) -> CrossChecked:
        """Compare what was added to a log; return what the pass has done by then."""
        done = replace(done, logs=done.logs + 1)
        position = await self._position(log_id)
        while True:
            batch: Batch = await asyncio.to_thread(read_batch, path, position)
            done = replace(
                done,
                reads=done.reads + len(batch.reads),
                bypasses=done.bypasses + await self._judge(batch.reads),
                torn_lines=done.torn_lines + len(batch.torn),
            )
            for torn in batch.torn:
                await self._tell_torn(log_id, path, torn)
            if batch.next_bytes != position:
                position = batch.next_bytes
                await self._keep_position(log_id, position)
            if batch.is_last:
                await asyncio.to_thread(mark_compared, path, batch.seen_bytes)
                return done

    async def _tell_torn(self, log_id: str, path: Path, torn: TornLine) -> None:
        log.error(
            "a line of OpenBao's audit log cannot be read",
            file=path.name,
            device=path.parent.name,
            at_bytes=torn.at_bytes,
        )
        await self._tell(
            torn.workspace_ids,
            key=f"torn {log_id} {torn.at_bytes}",
            action="secret_store.torn_audit_line",
            details={"log": log_id, "at_bytes": torn.at_bytes},
        )

    async def _tell_removals(
        self, device: Path, done: CrossChecked, failures: list[OSError]
    ) -> CrossChecked:
        """Tell each workspace whose reads were in a log that was removed uncompared."""
        try:
            for removal in await asyncio.to_thread(lambda: list(removals_of(device))):
                log.error(
                    "a log of OpenBao was removed before it was compared",
                    file=removal.log,
                    device=device.name,
                )
                await self._tell(
                    {f"{Prefix.WORKSPACE}_{workspace}" for workspace in removal.workspaces},
                    key=f"removed {device.name} {removal.log}",
                    action="secret_store.uncompared_log_removed",
                    details={"log": removal.log, "device": device.name},
                )
                await asyncio.to_thread(removal.note.unlink)
                done = replace(done, gaps=done.gaps + 1)
        except OSError as error:
            failures.append(error)
        return done

    async def _tell(
        self, workspace_ids: Collection[str], *, key: str, action: str, details: dict[str, Any]
    ) -> None:
        for workspace_id in sorted(workspace_ids):
            with suppress(IntegrityError):  # of a workspace that is not in the database
                async with self._database.workspace(workspace_id) as session:
                    await _record_once(
                        session,
                        _Alarm(
                            workspace_id=workspace_id,
                            key=key,
                            action=action,
                            resource_type="workspace",
                            resource_id=workspace_id,
                            details=details,
                        ),
                    )

    async def _judge(self, reads: list[ValueRead]) -> int:
        of_workspaces: dict[str, list[ValueRead]] = {}
        for read in reads:
            of_workspaces.setdefault(read.place.workspace_id, []).append(read)
        bypasses = 0
        for workspace_id, found in of_workspaces.items():
            try:
                async with self._database.workspace(workspace_id) as session:
                    for read, why in await _bypasses(session, found):
                        bypasses += await _record(session, read, why)
            except IntegrityError:
                # Of a workspace that is not in the database there is nobody to tell but us.
                log.error(  # noqa: TRY400 - the place says nothing
                    "values were read in a namespace of no workspace", workspace_id=workspace_id
                )
                bypasses += len(found)
        return bypasses

    async def _known_logs(self) -> set[str]:
        async with self._database.transaction() as session:
            return set(await session.exec(select(SecretAuditLogRow.log_id)))

    async def _position(self, log_id: str) -> int:
        async with self._database.transaction() as session:
            row = await session.get(SecretAuditLogRow, log_id)
            return 0 if row is None else row.compared_bytes

    async def _keep_position(self, log_id: str, position: int) -> None:
        statement = insert(SecretAuditLogRow).values(log_id=log_id, compared_bytes=position)
        async with self._database.transaction() as session:
            await session.execute(
                statement.on_conflict_do_update(
                    index_elements=["log_id"],
                    set_={"compared_bytes": position, "compared_at": func.now()},
                )
            )

    async def _forget(self) -> None:
        async with self._database.transaction() as session:
            await session.execute(
                delete(SecretAuditLogRow).where(
                    col(SecretAuditLogRow.compared_at) < func.now() - _POSITIONS_ARE_KEPT
                )
            )
        async with self._sweeper.transaction() as session:
            await session.execute(
                delete(SecretReadRow).where(
                    col(SecretReadRow.read_at) < func.now() - _READS_ARE_KEPT
                )
            )


def _identified(device: Path, failures: list[OSError]) -> dict[str, Path]:
    """Return the logs of a device that have a line, by their ids, the oldest first."""
    found: dict[str, Path] = {}
    try:
        paths = logs_of(device)
    except OSError as error:
        failures.append(error)
        return found
    for path in paths:
        try:
            log_id = log_id_of(path)
        except OSError as error:
            failures.append(error)
            continue
        if log_id is not None:
            found[log_id] = path
    return found


async def _bypasses(session: AsyncSession, reads: list[ValueRead]) -> list[tuple[ValueRead, str]]:
    """Return the reads that no line of ours was written for, each with the reason."""
    judged_from = (await session.exec(select(SecretStoreStateRow.reads_judged_from))).one()
    judged = [read for read in reads if read.read_at >= judged_from]
    ids = {read.audit_id for read in judged if read.audit_id is not None}
    lines = {
        line.id: line
        for line in await session.exec(select(AuditEventRow).where(col(AuditEventRow.id).in_(ids)))
    }
    found: list[tuple[ValueRead, str]] = []
    for read in judged:
        why = _why_no_line_allows(read, lines.get(read.audit_id or ""))
        if why is None and not await _claim(session, read):
            why = "the audit line was used for another read"
        if why is not None:
            found.append((read, why))
    return found


def _why_no_line_allows(read: ValueRead, line: AuditEventRow | None) -> str | None:
    if read.audit_id is None:
        return "it carried no audit line's id"
    if line is None:
        return "it carried an id of no audit line of this workspace"
    about = {read.place.secret_id, read.place.version_id}
    if line.outcome != "allowed" or line.resource_id not in about:
        return "its audit line allows no read of this secret"
    if line.details.get("version_id") != read.place.version_id:
        return "its audit line is of another version"
    if not _is_about(line.occurred_at, read.read_at):
        return "its audit line is of another time"
    return None


def _is_about(line_at: datetime, read_at: datetime) -> bool:
    return abs(read_at - line_at) < _LINE_IS_GOOD_FOR


async def _claim(session: AsyncSession, read: ValueRead) -> bool:
    """Take a line for a read; False when another read has it. Both devices log the same read."""
    row = insert(SecretReadRow).values(
        workspace_id=read.place.workspace_id,
        audit_event_id=read.audit_id,
        request_id=read.request_id,
        version_id=read.place.version_id,
        read_at=read.read_at,
    )
    await session.execute(row.on_conflict_do_nothing())
    query = select(SecretReadRow.request_id).where(SecretReadRow.audit_event_id == read.audit_id)
    return (await session.exec(query)).one() == read.request_id


async def _record(session: AsyncSession, read: ValueRead, why: str) -> bool:
    """Write a bypass down, once a read; False when it was before."""
    is_new = await _record_once(
        session,
        _Alarm(
            workspace_id=read.place.workspace_id,
            # The same read, found in another device's log or after a crash, is the same line.
            key=f"bypass {read.request_id}",
            action="secret_store.bypass_detected",
            resource_type="secret",
            resource_id=read.place.secret_id,
            details={
                "version_id": read.place.version_id,
                "openbao_request_id": read.request_id,
                "read_at": read.read_at.isoformat(),
                "reason": why,
            },
        ),
    )
    if is_new:
        log.error(
            "a value was read past the platform's audit log",
            workspace_id=read.place.workspace_id,
            secret_id=read.place.secret_id,
            version_id=read.place.version_id,
            openbao_request_id=read.request_id,
            why=why,
        )
    return is_new


@dataclass(frozen=True, kw_only=True, slots=True)
class _Alarm:
    """An audit line of a workspace; its id is made of `key`, so that it is written once."""

    workspace_id: str
    key: str
    action: str
    resource_type: str
    resource_id: str
    details: dict[str, Any]


async def _record_once(session: AsyncSession, alarm: _Alarm) -> bool:
    caller = system_caller(alarm.workspace_id, SCHEDULE)
    digest = hashlib.sha256(alarm.key.encode()).hexdigest()
    row = insert(AuditEventRow).values(
        workspace_id=alarm.workspace_id,
        id=f"{Prefix.AUDIT_EVENT}_{digest[:32]}",
        actor_kind=caller.kind,
        actor_id=caller.principal_id,
        action=alarm.action,
        resource_type=alarm.resource_type,
        resource_id=alarm.resource_id,
        outcome="failed",
        details=alarm.details,
    )
    result = await session.execute(row.on_conflict_do_nothing().returning(col(AuditEventRow.id)))
    return result.first() is not None
