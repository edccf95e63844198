"""Values that no version knows: kept aside for a month, then removed.

They come of a database that was put back to an older state, or of a writer that came after
everything was over. A value whose secret was purged is no such case: it is removed at once, and
so are sealed places, which hold no value.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import delete, func, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.caller import system_caller
from domain.errors import BulkheadError
from domain.identifiers import Prefix, is_id
from domain.secret import VersionPlace
from infra.database.engine import Database
from infra.database.records.audit import add_audit_event
from infra.database.tables import (
    SecretOrphanRow,
    SecretTombstoneRow,
    SecretVersionRow,
    WorkspaceRow,
)
from infra.openbao.client import OpenBao
from infra.openbao.values import Presence
from infra.secret_store.serving import read_state
from infra.secret_store.spaces import unless_missing

SCHEDULE = "quarantine-secret-orphans"

# Above the longest time between a version's id and the commit of its row, by far.
_UNKNOWN_FOR: Final = timedelta(hours=24)

_KEPT_FOR: Final = timedelta(days=30)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Quarantined:
    """What one pass did."""

    found: int = 0
    forgotten: int = 0
    removed: int = 0
    failed: int = 0


class Quarantine:
    """Compares what OpenBao holds with what the database knows, workspace by workspace."""

    def __init__(self, database: Database, sweeper: Database, openbao: OpenBao) -> None:
        self._database = database
        self._sweeper = sweeper
        self._openbao = openbao

    async def sweep(self) -> Quarantined:
        """Look through every workspace; one that fails does not hold up the others.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the database does not answer.
        """
        async with self._sweeper.transaction() as session:
            workspaces = list(await session.exec(select(WorkspaceRow.id)))
        passes: list[Quarantined] = []
        for workspace_id in workspaces:
            try:
                passes.append(await self.look_through(workspace_id))
            except BulkheadError as error:
                passes.append(Quarantined(failed=1))
                log.warning(
                    "a workspace was not looked through for orphans",
                    workspace_id=workspace_id,
                    reason=error.reason,
                    message=error.message,
                )
        return Quarantined(
            found=sum(one.found for one in passes),
            forgotten=sum(one.forgotten for one in passes),
            removed=sum(one.removed for one in passes),
            failed=sum(one.failed for one in passes),
        )

    async def look_through(self, workspace_id: str) -> Quarantined:
        """Quarantine what became an orphan, forget what is known again, remove what is due.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the database or OpenBao does not answer.
        """
        nothing: list[tuple[str, str]] = []
        names = await unless_missing(partial(self._openbao.values.names, workspace_id), nothing)
        places = list(_places(workspace_id, names))
        async with self._database.workspace(workspace_id) as session:
            unknown = await _unknown(session, places)
            purged = await _purged(session, unknown)
        sealed = [one for one in unknown if await self._is_gone(one)]
        at_once = {*purged, *sealed}
        async with self._database.workspace(workspace_id) as session:
            forgotten = await _forget_known(session)
            found = await _note(session, [one for one in unknown if one not in at_once])
            due = await _due(session, workspace_id)
        for place in {*at_once, *due}:
            await asyncio.to_thread(self._openbao.values.purge, place)
            await self._record_removed(place, was_purged=place in purged)
        return Quarantined(found=found, forgotten=forgotten, removed=len({*at_once, *due}))

    async def _is_gone(self, place: VersionPlace) -> bool:
        look = partial(self._openbao.values.look, place)
        return await asyncio.to_thread(look) is not Presence.VALUE

    async def _record_removed(self, place: VersionPlace, *, was_purged: bool) -> None:
        async with self._database.workspace(place.workspace_id) as session:
            await session.execute(
                update(SecretOrphanRow)
                .where(col(SecretOrphanRow.version_id) == place.version_id)
                .values(removed_at=func.now())
            )
            add_audit_event(
                session,
                system_caller(place.workspace_id, SCHEDULE),
                "secret_orphan.remove",
                "secret",
                place.secret_id,
                outcome="succeeded",
                details={"version_id": place.version_id, "secret_was_purged": was_purged},
            )


def _places(workspace_id: str, names: Iterable[tuple[str, str]]) -> Iterable[VersionPlace]:
    for secret, version in names:
        place = VersionPlace(
            workspace_id=workspace_id,
            secret_id=f"{Prefix.SECRET}_{secret}",
            version_id=f"{Prefix.SECRET_VERSION}_{version}",
        )
        if is_id(Prefix.SECRET, place.secret_id) and is_id(Prefix.SECRET_VERSION, place.version_id):
            yield place
        else:
            # None of our processes writes such a path, and no name from outside is acted upon.
            log.error("the secret store has a path that is not ours", workspace_id=workspace_id)


async def _unknown(session: AsyncSession, places: list[VersionPlace]) -> list[VersionPlace]:
    """Return those that no version knows and that are old enough for it."""
    if not places:
        return []
    known = set(await session.exec(select(SecretVersionRow.secret_id, SecretVersionRow.id)))
    now = await session.scalar(text("SELECT now()"))
    before = (now or datetime.now(UTC)) - _UNKNOWN_FOR
    return [
        place
        for place in places
        if (place.secret_id, place.version_id) not in known and _made_at(place) < before
    ]


def _made_at(place: VersionPlace) -> datetime:
    """Return when a version's id was made, which its UUIDv7 tells in milliseconds."""
    milliseconds = UUID(hex=place.version_id.rsplit("_", 1)[1]).int >> 80
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


async def _purged(session: AsyncSession, places: list[VersionPlace]) -> list[VersionPlace]:
    if not places:
        return []
    query = select(SecretTombstoneRow.secret_id).where(
        col(SecretTombstoneRow.secret_id).in_({place.secret_id for place in places})
    )
    purged = set(await session.exec(query))
    return [place for place in places if place.secret_id in purged]


async def _forget_known(session: AsyncSession) -> int:
    """Forget orphans that a version knows again, such as after the right backup was put back."""
    known = select(SecretVersionRow.id).where(
        SecretVersionRow.workspace_id == SecretOrphanRow.workspace_id,
        SecretVersionRow.secret_id == SecretOrphanRow.secret_id,
        SecretVersionRow.id == SecretOrphanRow.version_id,
    )
    result = await session.execute(
        delete(SecretOrphanRow)
        .where(known.exists(), col(SecretOrphanRow.removed_at).is_(None))
        .returning(col(SecretOrphanRow.version_id))
    )
    return len(result.all())


async def _note(session: AsyncSession, places: list[VersionPlace]) -> int:
    if not places:
        return 0
    rows = [
        {"workspace_id": one.workspace_id, "secret_id": one.secret_id, "version_id": one.version_id}
        for one in places
    ]
    result = await session.execute(
        insert(SecretOrphanRow)
        .values(rows)
        .on_conflict_do_nothing()
        .returning(col(SecretOrphanRow.version_id))
    )
    found = list(result.scalars())
    for version_id in found:
        log.warning("a value that no version knows is kept aside", version_id=version_id)
    return len(found)


async def _due(session: AsyncSession, workspace_id: str) -> list[VersionPlace]:
    """Return what was kept long enough; nothing while a restore is not dealt with."""
    if not (await read_state(session)).serving:
        return []
    query = select(SecretOrphanRow).where(
        col(SecretOrphanRow.removed_at).is_(None),
        col(SecretOrphanRow.found_at) < func.now() - _KEPT_FOR,
    )
    return [
        VersionPlace(workspace_id=workspace_id, secret_id=row.secret_id, version_id=row.version_id)
        for row in await session.exec(query)
    ]
