"""Looks after the machines of this host's clusters, each cluster on its own.

A look asks the cluster first and reads the rows afterwards: a machine has its row before it can
have a node or ask for a certificate, so that nobody new is taken for a stranger.
"""

import asyncio
import contextlib
import ipaddress
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import structlog
from sqlalchemy import text, update
from sqlmodel import col, select

from domain.cluster import HostedControlPlane, NetworkProfile
from domain.errors import BulkheadError
from domain.machine import NODE_CERTIFICATE_SECONDS, NODE_USER_PREFIX, MachineState
from domain.names import node_name_of
from domain.repair_budget import Standing
from infra.database.engine import Database
from infra.database.tables import MachineRow
from infra.kubernetes.client import KubernetesClient
from infra.kubernetes.nodes import NodeSight, list_nodes, remove_node, set_schedulable
from infra.kubernetes.signing_requests import SigningRequest, list_requests
from infra.machines.approver import KnownNode
from infra.machines.clusters import HostClusters
from infra.machines.decisions import Decisions
from infra.machines.health import Observation, ends_of, observe
from infra.machines.repairs import Repairs
from infra.temporal.outbox import Outbox

# A kubelet that starts waits for its first certificate, and a person for a node to be ready.
EVERY_SECONDS: Final = 2.0

# A kubelet whose machine is gone can still make itself a node for as long as its certificate
# lasts, and a few minutes more by its own clock.
_STRANGERS_SECONDS: Final = NODE_CERTIFICATE_SECONDS + 15 * 60

# A node's tokens last an hour and are renewed at half of it: what they need is back before.
_MEND_SECONDS: Final = 5 * 60

_OUR_NODE: Final = re.compile(r"mch-[0-9a-f]{32}")

_CLUSTERS: Final = text("""
SELECT c.workspace_id, c.id, c.slot, c.network_profile,
       EXISTS (SELECT FROM machines m
               WHERE m.workspace_id = c.workspace_id AND m.cluster_id = c.id) AS has_machines
FROM clusters c WHERE c.host = :host AND c.state = 'active'
""")
_LOST_MACHINES: Final = text("""
SELECT DISTINCT o.placement ->> 'cluster_id' FROM operations o
WHERE o.owner_type = 'machine' AND o.placement ->> 'host' = :host
  AND o.completed_at > now() - make_interval(secs => :seconds)
""")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ClusterSight:
    """What a cluster shows."""

    nodes: Mapping[str, NodeSight]
    requests: Sequence[SigningRequest]


class MachineKeeper:
    """Finds clusters with the sweeper's role, and writes in the workspace of each.

    Args:
        database: of the worker.
        sweeper: of the sweeper.
        clusters: reaches their API servers.
        outbox: starts the repairs that were planned.
        host: whose clusters are looked at.
        every_seconds: the pause between two looks at a cluster.
    """

    def __init__(
        self,
        database: Database,
        sweeper: Database,
        clusters: HostClusters,
        outbox: Outbox,
        host: str,
        *,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._database = database
        self._sweeper = sweeper
        self._clusters = clusters
        self._outbox = outbox
        self._host = host
        self._every_seconds = every_seconds
        self._repairs = Repairs(database, sweeper)
        self._decisions = Decisions(database, clusters)
        self._looks: dict[HostedControlPlane, asyncio.Task[None]] = {}
        self._problems: dict[HostedControlPlane, str] = {}
        self._mend_at: dict[HostedControlPlane, float] = {}
        # Until when a cluster without machines may still be visited by one that it had.
        self._until: dict[str, float] | None = None

    async def run(self) -> None:
        """Look for ever; whatever fails is tried again with the next look."""
        try:
            while True:
                try:
                    await self._begin_looks()
                except BulkheadError as error:
                    log.warning("cannot look after machines", message=error.message)
                except Exception:
                    # Nobody else would look after them for as long as the process lives.
                    log.exception("unexpected failure of the keeper")
                await asyncio.sleep(self._every_seconds)
        finally:
            for look in self._looks.values():
                look.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*self._looks.values(), return_exceptions=True)

    async def look(self, cluster: HostedControlPlane) -> None:
        """Look at one cluster, and do what follows from it.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the cluster, the database or Temporal does
                not answer.
        """
        sight = await self._clusters.ask(cluster, _see)
        machines = await self._machines_of(cluster)
        known = _inventory(machines, sight.nodes, self._clusters.addresses_of(cluster))
        await self._decisions.make(cluster, sight.requests, known)
        await self._remove_strangers(cluster, sight.nodes, known)
        await self._keep_cordoned(cluster, sight.nodes, machines)
        now, ends = datetime.now(UTC), ends_of(sight.requests)
        observations = [
            observe(
                row,
                sight.nodes.get(name := node_name_of(row.id)),
                ends.get(NODE_USER_PREFIX + name, {}),
                now,
            )
            for row in machines
        ]
        standings = [_standing(observation) for observation in observations]
        planned = await self._repairs.plan(cluster, standings, now)
        await self._write(cluster, observations, planned.withheld)
        for operation in planned.operations:
            await self._outbox.start(operation)
        await self._mend(cluster)

    async def _mend(self, cluster: HostedControlPlane) -> None:
        """Bring back what nodes need of the cluster, whoever removed or changed it."""
        now = time.monotonic()
        if now < self._mend_at.get(cluster, 0.0):
            return
        missing = await self._clusters.mend(cluster)
        if missing is not None:
            log.warning("cannot mend a cluster", cluster_id=cluster.cluster_id, missing=missing)
        self._mend_at[cluster] = now + _MEND_SECONDS

    async def _begin_looks(self) -> None:
        found = await self._find_clusters()
        for cluster in found:
            before = self._looks.get(cluster)
            if before is None or before.done():
                self._looks[cluster] = asyncio.create_task(self._look_and_log(cluster))
        for gone in [cluster for cluster in self._looks if cluster not in found]:
            if self._looks[gone].done():
                del self._looks[gone]
                self._problems.pop(gone, None)
                self._mend_at.pop(gone, None)
                self._clusters.forget(gone)

    async def _look_and_log(self, cluster: HostedControlPlane) -> None:
        try:
            await self.look(cluster)
            problem = ""
        except BulkheadError as error:
            problem = error.message
        except Exception as error:
            # One cluster's surprise must not end the care for all the others.
            problem = type(error).__name__
            log.exception("unexpected failure of a look", cluster_id=cluster.cluster_id)
        if problem != self._problems.get(cluster, ""):
            log.warning("look at machines", cluster_id=cluster.cluster_id, problem=problem or None)
        self._problems[cluster] = problem

    async def _find_clusters(self) -> set[HostedControlPlane]:
        """Return the clusters that have machines, or had one a short while ago."""
        now = time.monotonic()
        async with self._sweeper.transaction() as session:
            if self._until is None:
                lost = await session.execute(
                    _LOST_MACHINES, {"host": self._host, "seconds": _STRANGERS_SECONDS}
                )
                self._until = {cluster: now + _STRANGERS_SECONDS for (cluster,) in lost}
            rows = (await session.execute(_CLUSTERS, {"host": self._host})).all()
        self._until.update((row.id, now + _STRANGERS_SECONDS) for row in rows if row.has_machines)
        self._until = {cluster: end for cluster, end in self._until.items() if end > now}
        return {
            HostedControlPlane(
                workspace_id=row.workspace_id,
                cluster_id=row.id,
                host=self._host,
                slot=row.slot,
                network_profile=NetworkProfile(row.network_profile),
            )
            for row in rows
            if row.id in self._until
        }

    async def _machines_of(self, cluster: HostedControlPlane) -> list[MachineRow]:
        async with self._database.workspace(cluster.workspace_id) as session:
            query = select(MachineRow).where(MachineRow.cluster_id == cluster.cluster_id)
            return list(await session.exec(query.order_by(col(MachineRow.id))))

    async def _remove_strangers(
        self,
        cluster: HostedControlPlane,
        nodes: Mapping[str, NodeSight],
        known: Mapping[str, KnownNode],
    ) -> None:
        """Remove nodes that kubelets of deleted machines made again."""
        for name in nodes:
            node = known.get(name)
            if _OUR_NODE.fullmatch(name) and (node is None or node.revoked):
                log.warning("removing a stranger's node", cluster_id=cluster.cluster_id, node=name)
                await self._clusters.ask(cluster, partial(remove_node, name=name))

    async def _keep_cordoned(
        self,
        cluster: HostedControlPlane,
        nodes: Mapping[str, NodeSight],
        machines: Sequence[MachineRow],
    ) -> None:
        """Cordon nodes anew that their kubelets made anew, or somebody uncordoned beside us."""
        for row in machines:
            node = nodes.get(node_name_of(row.id))
            if node is None or not node.schedulable or not _is_cordoned(row):
                continue
            async with self._database.workspace(cluster.workspace_id) as session:
                # No uncordon can be asked for meanwhile.
                held = await session.get(
                    MachineRow, (row.workspace_id, row.id), with_for_update=True
                )
                if held is None or not _is_cordoned(held):
                    continue
                log.info("cordoning a node again", cluster_id=cluster.cluster_id, node=node.name)
                cordon = partial(set_schedulable, name=node.name, schedulable=False)
                await self._clusters.ask(cluster, cordon)

    async def _write(
        self,
        cluster: HostedControlPlane,
        observations: Sequence[Observation],
        notes: Mapping[str, str],
    ) -> None:
        changes: dict[str, dict[str, Any]] = {
            observation.machine.id: observation.changes(notes.get(observation.machine.id))
            for observation in observations
        }
        if not any(changes.values()):
            return
        async with self._database.workspace(cluster.workspace_id) as session:
            for machine_id, values in changes.items():
                if values:
                    statement = update(MachineRow).where(col(MachineRow.id) == machine_id)
                    await session.execute(statement.values(**values))


def _see(client: KubernetesClient) -> ClusterSight:
    return ClusterSight(list_nodes(client), list_requests(client))


def _inventory(
    machines: Sequence[MachineRow], nodes: Mapping[str, NodeSight], taken: frozenset[str]
) -> dict[str, KnownNode]:
    """Return the machines by the names of their nodes; `taken` is where the control plane is."""
    known = [_known(row, nodes) for row in machines]
    claims = Counter(
        address for node in known for address in node.reported_addresses & node.node_addresses
    )
    shared = taken | {address for address, count in claims.items() if count > 1}
    return {node.name: replace(node, others_addresses=shared) for node in known}


def _known(row: MachineRow, nodes: Mapping[str, NodeSight]) -> KnownNode:
    name = node_name_of(row.id)
    node = nodes.get(name)
    return KnownNode(
        machine_id=row.id,
        name=name,
        state=row.state,
        revoked=row.credentials_revoked_at is not None,
        reported_addresses=frozenset(map(_canonical, row.addresses)),
        node_addresses=frozenset() if node is None else frozenset(map(_canonical, node.addresses)),
    )


def _is_cordoned(row: MachineRow) -> bool:
    """Whether its node shall take no pods, and no operation is about to change that."""
    return (
        row.state is MachineState.ACTIVE and not row.schedulable and row.active_operation_id is None
    )


def _canonical(address: str) -> str:
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(address))
    return address


def _standing(observation: Observation) -> Standing:
    row = observation.machine
    return Standing(
        machine_id=row.id,
        kind=row.kind,
        health=observation.health.health,
        available=row.state is MachineState.ACTIVE
        and row.active_operation_id is None
        and row.credentials_revoked_at is None
        # Nobody is there who could be told to restart anything.
        and row.server_missing_since is None,
        repaired_at=row.repaired_at,
    )
