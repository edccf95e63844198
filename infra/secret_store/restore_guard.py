"""Notices that OpenBao or the database was put back to an older state, and makes that good.

What was purged since is purged again, and what the audit log says was taken away is taken away
again: versions that were destroyed or disabled, secrets that were deleted, tokens. Three marks are
compared: a generation that OpenBao and the database both hold and that moves every minute, the
ledger of purges, which no backup replaces, and the id of the latest restore on this machine. While
they do not agree no value is served (see `ServingGate`).
"""

import asyncio
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import func, text, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import system_caller
from domain.errors import BulkheadError
from domain.secret import SecretState, VersionState
from infra.database.engine import Database
from infra.database.records.audit import add_audit_event
from infra.database.records.secret import (
    begin_destroying,
    complete_destroying,
    place_of,
    switch_version,
)
from infra.database.tables import (
    SecretRow,
    SecretStoreStateRow,
    SecretTombstoneRow,
    SecretVersionRow,
    WorkspaceRow,
)
from infra.openbao.client import OpenBao
from infra.openbao.values import Presence
from infra.secret_store.ledger import Ledger, LedgerEntry
from infra.secret_store.purges import remove_rows
from infra.secret_store.serving import RestoreFile, StoreState, read_state
from infra.secret_store.spaces import unless_missing
from infra.secret_store.taken_away import take_away_again

_CALLER: Final = "restore-guard"

_HAS_NO_VALUE: Final = frozenset(
    {VersionState.DESTROYING, VersionState.DESTROYED, VersionState.ABANDONED}
)
_HAS_VALUE: Final = frozenset({VersionState.ENABLED, VersionState.DISABLED})

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Known:
    """What the database knows.

    Attributes:
        tombstones: the ids of secrets that were purged.
        purging: secrets that are being purged.
        undead: secrets that have a tombstone, and should not be there.
        workspaces: all of them.
    """

    tombstones: frozenset[str]
    purging: frozenset[str]
    undead: frozenset[str]
    workspaces: frozenset[str]


class RestoreGuard:
    """Runs in the worker that keeps the ledger, at its start and every minute.

    Args:
        database: of the worker.
        sweeper: of the sweeper.
        openbao: the worker's.
        ledger: the file.
        restored_at_file: where a restore on this machine is written down, if it is.
    """

    def __init__(
        self,
        database: Database,
        sweeper: Database,
        openbao: OpenBao,
        ledger: Ledger,
        restored_at_file: Path | None,
    ) -> None:
        self._database = database
        self._sweeper = sweeper
        self._openbao = openbao
        self._ledger = ledger
        self._file = RestoreFile(restored_at_file)

    async def check(self) -> str | None:
        """Compare, and make good what a restore undid; return what was found, None for nothing.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when OpenBao or the database does not answer;
                INTERNAL when the ledger is damaged. Values are not served after a finding until
                a later call comes to its end.
        """
        try:
            entries = await asyncio.to_thread(self._ledger.entries)
        except BulkheadError as error:
            await self._stop_serving(error.message)
            raise
        known = await self._known()
        finding = await self._compare(entries, known)
        if finding is None:
            await self._complete_ledger(entries, known)
            await self._advance()
            return None
        log.error("values are not served: %s", finding)
        await self._stop_serving(finding)
        await self._complete_ledger(entries, known)
        for entry in (await asyncio.to_thread(self._ledger.entries)).values():
            await self._purge_again(entry, known)
        for workspace_id in known.workspaces:
            await self._take_away_again(workspace_id)
        await self._settle_values()
        await self._resume()
        log.warning("what was taken away is taken away again; values are served again")
        return finding

    async def _compare(self, entries: dict[str, LedgerEntry], known: _Known) -> str | None:
        async with self._database.transaction() as session:
            state = await read_state(session)
        restore_id = self._file.restore_id()
        generation = await asyncio.to_thread(self._openbao.marker.read)
        if not state.serving:
            return "an earlier restore is not dealt with yet"
        if restore_id is not None and restore_id != state.restore_id:
            return f"a backup was restored on this machine ({restore_id})"
        if generation not in {state.generation, state.next_generation}:
            return (
                f"OpenBao is at generation {generation} and the database at {state.generation}, "
                "so one of them was restored"
            )
        # Where the database says `purging`, the transaction that follows the ledger is under way.
        missing = entries.keys() - known.tombstones - known.purging
        if missing:
            return f"the database does not know of {len(missing)} purges of the ledger"
        if known.undead:
            return f"the database has {len(known.undead)} secrets that were purged"
        return None

    async def _known(self) -> _Known:
        async with self._sweeper.transaction() as session:
            # In this order: a purge that ends in between is one or the other.
            purging = list(
                await session.exec(
                    select(SecretRow.id).where(SecretRow.state == SecretState.PURGING)
                )
            )
            tombstones = frozenset(await session.exec(select(SecretTombstoneRow.secret_id)))
            undead = await session.exec(
                select(SecretRow.id).join(
                    SecretTombstoneRow,
                    (col(SecretTombstoneRow.workspace_id) == col(SecretRow.workspace_id))
                    & (col(SecretTombstoneRow.secret_id) == col(SecretRow.id)),
                )
            )
            workspaces = await session.exec(select(WorkspaceRow.id))
            return _Known(tombstones, frozenset(purging), frozenset(undead), frozenset(workspaces))

    async def _complete_ledger(self, entries: dict[str, LedgerEntry], known: _Known) -> None:
        for entry in await self._tombstones(known.tombstones - entries.keys()):
            await asyncio.to_thread(self._ledger.append, entry)

    async def _tombstones(self, secret_ids: AbstractSet[str]) -> list[LedgerEntry]:
        if not secret_ids:
            return []
        async with self._sweeper.transaction() as session:
            query = select(SecretTombstoneRow).where(
                col(SecretTombstoneRow.secret_id).in_(secret_ids)
            )
            return [LedgerEntry.of_tombstone(row) for row in await session.exec(query)]

    async def _advance(self) -> None:
        """Move the generation by one, in steps of which each may be the last."""
        async with self._database.transaction() as session:
            state = await _locked_state(session)
            await _set(session, next_generation=state.generation + 1)
        await self._follow()

    async def _follow(self) -> None:
        """Bring OpenBao to the next generation, and then the database."""
        # The row is locked meanwhile, so that no slower worker moves OpenBao back.
        async with self._database.transaction() as session:
            state = await _locked_state(session)
            await asyncio.to_thread(self._openbao.marker.write, state.next_generation)
            await _set(session, generation=state.next_generation)

    async def _stop_serving(self, reason: str) -> None:
        async with self._database.transaction() as session:
            await _set(session, serving=False, reason=reason, changed_at=func.now())

    async def _resume(self) -> None:
        restore_id = self._file.restore_id()
        generation = await asyncio.to_thread(self._openbao.marker.read)
        async with self._database.transaction() as session:
            state = await _locked_state(session)
            highest = max(generation, state.generation, state.next_generation)
            await _set(session, next_generation=highest + 1)
        await self._follow()
        async with self._database.transaction() as session:
            state = await _locked_state(session)
            await _set(
                session,
                serving=True,
                reason=None,
                restore_id=restore_id or state.restore_id,
                reads_judged_from=func.now(),
                changed_at=func.now(),
            )

    async def _purge_again(self, entry: LedgerEntry, known: _Known) -> None:
        for place in entry.places():
            await unless_missing(partial(self._openbao.values.purge, place), None)
        if entry.workspace_id not in known.workspaces:
            # The database is older than the workspace: it has nothing of it to remove.
            return
        async with self._database.workspace(entry.workspace_id) as session:
            removed = await remove_rows(session, entry.secret_id)
            is_known = entry.secret_id in known.tombstones
            if not is_known:
                await session.merge(entry.tombstone())
            if removed or not is_known:
                add_audit_event(
                    session,
                    system_caller(entry.workspace_id, _CALLER),
                    "secret.purge_again",
                    "secret",
                    entry.secret_id,
                    outcome="succeeded",
                    details={"versions": len(entry.version_ids)},
                )

    async def _take_away_again(self, workspace_id: str) -> None:
        async with self._database.workspace(workspace_id) as session:
            await take_away_again(session, system_caller(workspace_id, _CALLER))

    async def _settle_values(self) -> None:
        """Bring versions and values in agreement: what was destroyed in either is destroyed."""
        async with self._sweeper.transaction() as session:
            versions = list(
                await session.exec(
                    select(SecretVersionRow).where(
                        col(SecretVersionRow.state).in_(_HAS_NO_VALUE | _HAS_VALUE)
                    )
                )
            )
        for version in versions:
            place = place_of(version)
            presence = await unless_missing(
                partial(self._openbao.values.look, place), Presence.ABSENT
            )
            if version.state in _HAS_NO_VALUE and presence is Presence.VALUE:
                await asyncio.to_thread(self._openbao.values.destroy, place)
                async with self._database.workspace(version.workspace_id) as session:
                    await complete_destroying(session, place)
            elif version.state in _HAS_VALUE and presence is not Presence.VALUE:
                await self._record_lost(version, presence)

    async def _record_lost(self, version: SecretVersionRow, presence: Presence) -> None:
        """End a version whose value was destroyed after the database's backup was made.

        One whose value is missing is disabled: the right backup of OpenBao may bring that back.
        """
        log.error("a version has no value", version_id=version.id, presence=presence)
        place = place_of(version)
        async with self._database.workspace(version.workspace_id) as session:
            query = select(SecretRow).where(SecretRow.id == version.secret_id)
            await session.exec(query.with_for_update())
            current = await session.get(SecretVersionRow, (version.workspace_id, version.id))
            if current is None or current.state not in _HAS_VALUE:
                return
            if presence is Presence.GONE:
                await begin_destroying(session, current)
                await complete_destroying(session, place)
            else:
                await switch_version(session, current, VersionState.DISABLED)
            add_audit_event(
                session,
                system_caller(version.workspace_id, _CALLER),
                "secret_version.settle",
                "secret",
                version.secret_id,
                outcome="succeeded" if presence is Presence.GONE else "failed",
                details={"version_id": version.id, "value": presence},
            )


async def _locked_state(session: AsyncSession) -> StoreState:
    await session.execute(text("SELECT 1 FROM secret_store_state FOR UPDATE"))
    return await read_state(session)


async def _set(session: AsyncSession, **values: object) -> None:
    await session.execute(update(SecretStoreStateRow).values(**values))
