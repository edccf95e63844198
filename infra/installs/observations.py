"""Writes what looks at installs found, into the install and into the grant on it.

Rows are written when something changed, and each minute so that whoever reads knows that somebody
still looks.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, text, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.install import DriftState, Health, InstallState, Sync
from domain.install_health import UNHEALTHY, Settled
from domain.kstatus import ObjectStatus
from infra.database.engine import Database
from infra.database.tables import GrantRow, InstallDriftRow, InstallRow
from infra.helm.manifest import key_of
from infra.installs.sight import Seen, resources_of

# How old `observed_at` gets while nothing changes; `is_offline` has room for two that are late.
HEARTBEAT: Final = timedelta(seconds=60)

_NOTIFY: Final = text("SELECT pg_notify('installs', :install)")
_STALLED: Final = "It does not get done: "


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at an install found.

    Attributes:
        row: the install as it was read after the look.
        render_id: whose objects were looked at.
        seen: each of them; None when nothing could be seen.
        found: of the whole.
        settled: what counts after it.
    """

    row: InstallRow
    render_id: str
    seen: tuple[Seen, ...] | None
    found: ObjectStatus
    settled: Settled

    @property
    def is_reached(self) -> bool:
        """Whether anything was seen; the API server of a kind of its own may be down."""
        if self.seen is None:
            return False
        return not self.seen or any(one.status.health is not Health.UNKNOWN for one in self.seen)


class Observations:
    """Writes in the workspace of each install."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, look: Look, now: datetime) -> None:
        """Write what changed; nothing of an install that an operation took meanwhile.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the database does not answer.
        """
        row = look.row
        async with self._database.workspace(row.workspace_id) as session:
            drifted = await _drifted(session, row.id)
            changes = _changes(look, drifted)
            is_old = row.observed_at is None or now - row.observed_at > HEARTBEAT
            if look.is_reached and (changes or is_old):
                changes["observed_at"] = now
            if changes:
                statement = (
                    update(InstallRow)
                    .where(*_is_as_seen(look))
                    .values(**changes)
                    .returning(col(InstallRow.id))
                )
                if (await session.execute(statement)).one_or_none() is None:
                    return
                if changes.keys() - {"observed_at"}:
                    await session.execute(_NOTIFY, {"install": row.id})
            await _tell_vendor(session, look, changes)


def _is_as_seen(look: Look) -> tuple[ColumnElement[bool], ...]:
    """Return what is true of an install that no operation took since the look."""
    return (
        col(InstallRow.id) == look.row.id,
        col(InstallRow.active_operation_id).is_(None),
        col(InstallRow.current_render_id) == look.render_id,
    )


async def _drifted(session: AsyncSession, install_id: str) -> frozenset[str]:
    query = select(InstallDriftRow.object_key).where(
        InstallDriftRow.install_id == install_id, InstallDriftRow.state == DriftState.OPEN
    )
    return frozenset(await session.exec(query))


def _changes(look: Look, drifted: frozenset[str]) -> dict[str, Any]:
    row, health = look.row, look.settled.health
    wanted: dict[str, Any] = {
        "health": health,
        "health_since": look.settled.since,
        "health_message": _message(look),
        "state": _state(row.state, health),
    }
    if look.seen is not None and look.is_reached:
        keys = {key_of(one.wanted) for one in look.seen}
        healths = {one.status.health for one in look.seen}
        wanted["resources"] = resources_of(look.seen, drifted)
        if Health.MISSING in healths or drifted & keys:
            wanted["sync"] = Sync.OUT_OF_SYNC
        elif Health.UNKNOWN not in healths:
            wanted["sync"] = Sync.SYNCED
    if health is Health.UNKNOWN:
        wanted.setdefault("sync", Sync.UNKNOWN)
    return {name: value for name, value in wanted.items() if getattr(row, name) != value}


def _message(look: Look) -> str | None:
    """Return why, in a sentence, for as long as that is so; what has not lasted is not told."""
    health, found = look.settled.health, look.found
    if health is Health.HEALTHY:
        return None
    if found.health is health:
        return found.reason
    if health is Health.DEGRADED and found.health is Health.PROGRESSING:
        return _STALLED + found.reason
    return look.row.health_message


def _state(state: InstallState, health: Health) -> InstallState:
    if state is InstallState.HEALTHY and health in UNHEALTHY:
        return InstallState.DEGRADED
    if state is InstallState.DEGRADED and health in (Health.HEALTHY, Health.SUSPENDED):
        return InstallState.HEALTHY
    return state


async def _tell_vendor(session: AsyncSession, look: Look, changes: dict[str, Any]) -> None:
    """Copy what a vendor may know; the grant's etag stays, for nobody changed the grant."""
    row = look.row
    known = {
        "health": look.settled.health,
        "current_version_id": row.current_version_id,
        **({"observed_at": changes["observed_at"]} if "observed_at" in changes else {}),
    }
    query = select(GrantRow).where(
        GrantRow.install_id == row.id, col(GrantRow.revoked_at).is_(None)
    )
    grant = (await session.exec(query)).one_or_none()
    if grant is None:
        return
    differs = {name: value for name, value in known.items() if getattr(grant, name) != value}
    if not differs:
        return
    # An operation that ended since the look has told the vendor itself, of another version.
    install = select(InstallRow.current_version_id).where(*_is_as_seen(look))
    versions = (await session.exec(install.with_for_update(read=True))).all()
    if not versions:
        return
    known["current_version_id"] = versions[0]
    await session.execute(update(GrantRow).where(col(GrantRow.id) == grant.id).values(**known))
