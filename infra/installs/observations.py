"""Writes what looks at installs found, into the install and into the grant on it.

Rows are written when something changed, and each minute so that whoever reads knows that somebody
still looks.
"""

from collections import defaultdict
from collections.abc import Sequence
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
class Known:
    """What the rows say of an install.

    Attributes:
        row: its own.
        drifted: the keys of its objects that are known to differ from the render.
        grant: the one that is in force on it; None: nobody else sees it.
    """

    row: InstallRow
    drifted: frozenset[str]
    grant: GrantRow | None


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at an install found.

    Attributes:
        known: what the rows said after the look.
        render_id: whose objects were looked at.
        seen: each of them; None when nothing could be seen.
        found: of the whole.
        settled: what counts after it.
    """

    known: Known
    render_id: str
    seen: tuple[Seen, ...] | None
    found: ObjectStatus
    settled: Settled

    @property
    def row(self) -> InstallRow:
        """The install as it was read after the look."""
        return self.known.row

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

    async def read(self, workspace_id: str, install_ids: Sequence[str]) -> dict[str, Known]:
        """Return what is known of installs of one workspace, by id, of those that are there.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the database does not answer.
        """
        if not install_ids:
            return {}
        async with self._database.workspace(workspace_id) as session:
            rows = await session.exec(select(InstallRow).where(col(InstallRow.id).in_(install_ids)))
            installs = rows.all()
            drifted = await _drifted(session, install_ids)
            found = await session.exec(
                select(GrantRow).where(
                    col(GrantRow.install_id).in_(install_ids), col(GrantRow.revoked_at).is_(None)
                )
            )
            grants = {grant.install_id: grant for grant in found}
        return {
            row.id: Known(row, frozenset(drifted[row.id]), grants.get(row.id)) for row in installs
        }

    async def write(self, look: Look, now: datetime) -> None:
        """Write what changed; nothing of an install that an operation took meanwhile.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the database does not answer.
        """
        row = look.row
        changes = _changes(look)
        is_old = row.observed_at is None or now - row.observed_at > HEARTBEAT
        if look.is_reached and (changes or is_old):
            changes["observed_at"] = now
        news = _news(look, changes)
        if not changes and not news:
            return
        async with self._database.workspace(row.workspace_id) as session:
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
            if news:
                await _tell_vendor(session, look, news)


def _is_as_seen(look: Look) -> tuple[ColumnElement[bool], ...]:
    """Return what is true of an install that no operation took since the look."""
    return (
        col(InstallRow.id) == look.row.id,
        col(InstallRow.active_operation_id).is_(None),
        col(InstallRow.current_render_id) == look.render_id,
    )


async def _drifted(session: AsyncSession, install_ids: Sequence[str]) -> defaultdict[str, set[str]]:
    query = select(InstallDriftRow.install_id, InstallDriftRow.object_key).where(
        col(InstallDriftRow.install_id).in_(install_ids), InstallDriftRow.state == DriftState.OPEN
    )
    found: defaultdict[str, set[str]] = defaultdict(set)
    for install_id, key in await session.exec(query):
        found[install_id].add(key)
    return found


def _changes(look: Look) -> dict[str, Any]:
    row, health = look.row, look.settled.health
    drifted = look.known.drifted
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


def _news(look: Look, changes: dict[str, Any]) -> dict[str, Any]:
    """Return what a vendor may know and does not yet."""
    grant = look.known.grant
    if grant is None:
        return {}
    wanted = {
        "health": look.settled.health,
        "current_version_id": look.row.current_version_id,
        **({"observed_at": changes["observed_at"]} if "observed_at" in changes else {}),
    }
    return {name: value for name, value in wanted.items() if getattr(grant, name) != value}


async def _tell_vendor(session: AsyncSession, look: Look, news: dict[str, Any]) -> None:
    """Copy what a vendor may know; the grant's etag stays, for nobody changed the grant."""
    # An operation that ended since the look has told the vendor itself, of another version.
    install = select(InstallRow.current_version_id).where(*_is_as_seen(look))
    versions = (await session.exec(install.with_for_update(read=True))).all()
    if not versions:
        return
    of_install = col(GrantRow.install_id) == look.row.id
    statement = update(GrantRow).where(of_install, col(GrantRow.revoked_at).is_(None))
    await session.execute(statement.values(**{**news, "current_version_id": versions[0]}))
