"""Looks after the installs on this host's clusters, each cluster on its own.

An install that an operation moves is left alone: what is seen of it then is nobody's news. The
clusters' own threads do the asking, one for each cluster, so that one that hangs keeps no other
waiting and is not asked again for each of its installs.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from sqlalchemy import text
from sqlmodel import select

from domain.cluster import ClusterState, HostedControlPlane, NetworkProfile
from domain.errors import BulkheadError, Reason
from domain.install import Health
from domain.install_health import Settled, settle
from domain.kstatus import ObjectStatus
from domain.names import install_namespace_of
from infra.database.engine import Database
from infra.database.tables import InstallRow, RenderRow
from infra.installs.observations import Known, Look, Observations
from infra.installs.sight import Seen, health_of, look_at_objects, references_to
from infra.kubernetes.client import KubernetesClient, Object
from infra.kubernetes.discovery import Discovery
from infra.machines.clusters import HostClusters

# A person who looks at `installs get` after a crash wants to see it; rollouts bake for a minute.
EVERY_SECONDS: Final = 10.0

# Installs of a cluster of which the rows are read at once, and how old a look gets until then: an
# operation that begins and ends in that time is not noticed.
_ROWS_AT_ONCE: Final = 20
_WRITTEN_WITHIN_SECONDS: Final = 2.0

# Clusters that are looked at side by side: of the host's threads, which others need too.
_CLUSTERS_AT_ONCE: Final = 16

_INSTALLS: Final = text("""
SELECT i.workspace_id, i.id, i.cluster_id, i.current_render_id,
       c.slot, c.network_profile, c.state
FROM installs i JOIN clusters c ON c.workspace_id = i.workspace_id AND c.id = i.cluster_id
WHERE c.host = :host AND i.active_operation_id IS NULL AND i.current_render_id IS NOT NULL
ORDER BY i.id
""")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Watched:
    """An install that is looked at.

    Attributes:
        workspace_id: whose it is.
        install_id: which.
        render_id: what is on the cluster.
    """

    workspace_id: str
    install_id: str
    render_id: str


@dataclass(frozen=True, slots=True)
class _Glance:
    """What was found of an install at one moment.

    Attributes:
        install: which.
        seen: its objects without what is in them, which may be megabytes; None when nothing could
            be seen.
        found: of the whole.
        at: the moment.
        away: why the cluster could not be asked; None: it was.
    """

    install: Watched
    seen: tuple[Seen, ...] | None
    found: ObjectStatus
    at: datetime
    away: str | None


@dataclass(frozen=True, slots=True)
class _Group:
    """The installs of one cluster; `asleep` says why it is not asked."""

    cluster: HostedControlPlane
    asleep: str | None
    installs: tuple[Watched, ...]


class InstallObserver:
    """Finds installs with the sweeper's role, and writes in the workspace of each.

    Args:
        database: of the worker.
        sweeper: of the sweeper.
        clusters: reaches their API servers.
        host: whose clusters are looked at.
        every_seconds: the pause between two looks at a cluster.
        clock: tells the time; health has to last.
    """

    def __init__(
        self,
        database: Database,
        sweeper: Database,
        clusters: HostClusters,
        host: str,
        *,
        every_seconds: float = EVERY_SECONDS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._sweeper = sweeper
        self._clusters = clusters
        self._host = host
        self._every_seconds = every_seconds
        self._clock = clock
        self._records = Observations(database)
        self._places = asyncio.Semaphore(_CLUSTERS_AT_ONCE)
        self._looks: dict[HostedControlPlane, asyncio.Task[None]] = {}
        self._problems: dict[str, str] = {}
        # By install; a render never changes once it is on a cluster.
        self._references: dict[str, tuple[str, tuple[Object, ...]]] = {}
        self._settled: dict[str, Settled] = {}
        self._discoveries: dict[HostedControlPlane, tuple[KubernetesClient, Discovery]] = {}

    async def run(self) -> None:
        """Look for ever; whatever fails is tried again with the next look."""
        try:
            while True:
                try:
                    await self._begin_looks()
                except BulkheadError as error:
                    log.warning("cannot look after installs", message=error.message)
                except Exception:
                    # Nobody else would look after them for as long as the process lives.
                    log.exception("unexpected failure of the observer")
                await asyncio.sleep(self._every_seconds)
        finally:
            for look in self._looks.values():
                look.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*self._looks.values(), return_exceptions=True)

    async def look_at_all(self) -> None:
        """Look once at every install, and return when all is written."""
        for group in await self._find():
            await self._look_at(group)

    async def _begin_looks(self) -> None:
        groups = await self._find()
        for group in groups:
            before = self._looks.get(group.cluster)
            if before is None or before.done():
                self._looks[group.cluster] = asyncio.create_task(self._take_turn(group))
        self._forget_all_but(groups)

    async def _take_turn(self, group: _Group) -> None:
        async with self._places:
            await self._look_at(group)

    async def _look_at(self, group: _Group) -> None:
        """Look at a cluster's installs one after the other; what went wrong is logged."""
        away = group.asleep
        glances: list[_Glance] = []
        write_at = time.monotonic() + _WRITTEN_WITHIN_SECONDS
        for install in group.installs:
            with self._caring_for(install):
                glance, away = await self._look(group.cluster, install, away)
                if glance is not None:
                    glances.append(glance)
            if len(glances) >= _ROWS_AT_ONCE or time.monotonic() > write_at:
                await self._write_all(group.cluster.workspace_id, glances)
                glances = []
                write_at = time.monotonic() + _WRITTEN_WITHIN_SECONDS
        await self._write_all(group.cluster.workspace_id, glances)

    async def _write_all(self, workspace_id: str, glances: Sequence[_Glance]) -> None:
        known = await self._known_of(workspace_id, glances)
        for glance in glances:
            of_this = known.get(glance.install.install_id)
            if of_this is not None:
                with self._caring_for(glance.install):
                    await self._write(glance, of_this)
                    self._note(glance.install, glance.away or "")

    async def _known_of(self, workspace_id: str, glances: Sequence[_Glance]) -> dict[str, Known]:
        ids = [glance.install.install_id for glance in glances]
        try:
            return await self._records.read(workspace_id, ids)
        except BulkheadError as error:
            log.warning("cannot look after installs", message=error.message)
            return {}
        except Exception:
            log.exception("unexpected failure to read installs", install_ids=ids)
            if len(glances) == 1:
                return {}
        # One row that cannot be read must not end the care for all the others.
        found: dict[str, Known] = {}
        for glance in glances:
            found |= await self._known_of(workspace_id, [glance])
        return found

    @contextlib.contextmanager
    def _caring_for(self, install: Watched) -> Iterator[None]:
        """Note what goes wrong with one install; that must not end the care for the others."""
        try:
            yield
        except BulkheadError as error:
            self._note(install, error.message)
        except Exception as error:
            log.exception("unexpected failure of a look", install_id=install.install_id)
            self._note(install, type(error).__name__)

    def _note(self, install: Watched, problem: str) -> None:
        """Log a problem that is new, or over: an empty one."""
        if problem != self._problems.get(install.install_id, ""):
            log.warning("look at an install", install_id=install.install_id, problem=problem)
        self._problems[install.install_id] = problem

    async def _look(
        self, cluster: HostedControlPlane, install: Watched, away: str | None
    ) -> tuple[_Glance | None, str | None]:
        """Look at one install.

        Args:
            cluster: where it is.
            install: which.
            away: why the cluster is not asked any more in this round, None: it is.

        Returns:
            What was found, None for an install that is gone; and why the next install of the
            cluster need not be looked at, None: it need.
        """
        references = await self._references_of(install)
        if references is None:
            return None, away
        now = self._clock()
        seen: tuple[Seen, ...] | None = None
        if away is None:
            try:
                live = await self._see(cluster, install, references, now)
                seen = tuple(Seen(one.wanted, None, one.status) for one in live)
                found = health_of(seen)
            except BulkheadError as error:
                found = ObjectStatus(Health.UNKNOWN, error.message)
                if error.reason is Reason.DEPENDENCY_UNAVAILABLE:
                    away = error.message
        else:
            found = ObjectStatus(Health.UNKNOWN, away)
        return _Glance(install, seen, found, now, away), away

    async def _see(
        self,
        cluster: HostedControlPlane,
        install: Watched,
        references: Sequence[Object],
        now: datetime,
    ) -> list[Seen]:
        namespace = install_namespace_of(install.install_id)

        def see(client: KubernetesClient) -> list[Seen]:
            discovery = self._discovery_of(cluster, client)
            return look_at_objects(client, discovery, references, namespace, now)

        return await self._clusters.ask(cluster, see)

    def _discovery_of(self, cluster: HostedControlPlane, client: KubernetesClient) -> Discovery:
        known = self._discoveries.get(cluster)
        if known is None or known[0] is not client:
            known = self._discoveries[cluster] = (client, Discovery(client))
        return known[1]

    async def _references_of(self, install: Watched) -> tuple[Object, ...] | None:
        known = self._references.get(install.install_id)
        if known is not None and known[0] == install.render_id:
            return known[1]
        async with self._database.workspace(install.workspace_id) as session:
            query = select(RenderRow.manifest).where(RenderRow.id == install.render_id)
            manifest = (await session.exec(query)).one_or_none()
        if manifest is None:
            return None
        found = references_to(manifest)
        self._references[install.install_id] = (install.render_id, found)
        return found

    async def _write(self, glance: _Glance, known: Known) -> None:
        row = known.row
        settled = settle(self._before(row, glance.at), glance.found.health, glance.at)
        self._settled[row.id] = settled
        look = Look(known, glance.install.render_id, glance.seen, glance.found, settled)
        await self._records.write(look, glance.at)

    def _before(self, row: InstallRow, now: datetime) -> Settled:
        """Return what counted before: an operation may have said something else meanwhile."""
        known = self._settled.get(row.id)
        if known is not None and known.health is row.health:
            return known
        since = row.health_since or now
        return Settled(health=row.health, since=since, candidate=row.health, candidate_since=now)

    async def _find(self) -> list[_Group]:
        async with self._sweeper.transaction() as session:
            rows = (await session.execute(_INSTALLS, {"host": self._host})).all()
        found: dict[HostedControlPlane, tuple[str | None, list[Watched]]] = {}
        for row in rows:
            cluster = HostedControlPlane(
                workspace_id=row.workspace_id,
                cluster_id=row.cluster_id,
                host=self._host,
                slot=row.slot,
                network_profile=NetworkProfile(row.network_profile),
            )
            awake = row.state == ClusterState.ACTIVE
            asleep = None if awake else f"Its cluster is {row.state}, so that nobody can look."
            group = found.setdefault(cluster, (asleep, []))
            group[1].append(Watched(row.workspace_id, row.id, row.current_render_id))
        return [
            _Group(cluster, asleep, tuple(installs))
            for cluster, (asleep, installs) in found.items()
        ]

    def _forget_all_but(self, groups: Sequence[_Group]) -> None:
        clusters = {group.cluster for group in groups}
        for gone in [cluster for cluster in self._looks if cluster not in clusters]:
            if self._looks[gone].done():
                del self._looks[gone]
                self._discoveries.pop(gone, None)
                self._clusters.forget(gone)
        installs = {install.install_id for group in groups for install in group.installs}
        remembered: tuple[Mapping[str, Any], ...]
        remembered = (self._references, self._settled, self._problems)
        for memory in remembered:
            for gone_install in [one for one in memory if one not in installs]:
                del memory[gone_install]
