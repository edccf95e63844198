"""Makes the decisions about certificate requests, and leaves no more of them than it must.

Whoever has a node's credentials can make as many requests as it likes. Each is decided in its turn;
beyond a number that no kubelet comes near, what is there of one requestor is removed.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog

from domain.audit_budget import AuditBudget
from domain.caller import system_caller
from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError, Reason
from domain.foreign_text import printable
from domain.machine import NODE_USER_PREFIX
from infra.database.engine import Database
from infra.database.records.audit import add_audit_event
from infra.database.tables import AuditEventRow
from infra.kubernetes.signing_requests import SigningRequest, decide, remove
from infra.machines.approver import KnownNode, Verdict, audit_id_of, judge
from infra.machines.clusters import HostClusters

_KEEPER: Final = "machine-keeper"

# Of decisions in one look, in all and for each who asks: a flood of requests must not keep
# everything and everybody else waiting. A kubelet asks for two certificates at a time.
_MOST_DECISIONS: Final = 100
_MOST_DECISIONS_EACH: Final = 4

# Of one who asks. A kubelet makes four in the hour for which Kubernetes keeps them, and one every
# half minute while it is denied.
MOST_KEPT_EACH: Final = 50

# In one look; each takes 2 to 5 ms.
_MOST_REMOVALS: Final = 400

# All who are no node of the cluster are one, whatever they call themselves.
_STRANGERS: Final = "strangers"

log = structlog.get_logger(__name__)


class Decisions:
    """Decides, audits and removes. For one event loop.

    Args:
        database: of the worker.
        clusters: reaches their API servers.
    """

    def __init__(self, database: Database, clusters: HostClusters) -> None:
        self._database = database
        self._clusters = clusters
        self._budget = AuditBudget()

    async def make(
        self,
        cluster: HostedControlPlane,
        requests: Sequence[SigningRequest],
        known: Mapping[str, KnownNode],
    ) -> None:
        """Decide what has its turn, and remove what is too much.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the cluster or the database does not answer.
        """
        surplus = _surplus(requests, known)
        gone = {request.uid for _, request in surplus}
        kept = [request for request in requests if request.uid not in gone]
        for request in _next_in_turn(kept):
            verdict = judge(request, known, datetime.now(UTC))
            if verdict is None:
                continue
            try:
                await self._audit(cluster, request, verdict, _requestor(request, known))
                message = printable(verdict.reason)
                work = partial(decide, request=request, approve=verdict.approve, message=message)
                await self._clusters.ask(cluster, work)
            except Exception as error:
                # Whoever asks chose what is in a request: it must not keep the others waiting.
                _raise_if_out(error)
                log.exception("cannot decide", cluster_id=cluster.cluster_id, uid=request.uid)
        try:
            await self._remove(cluster, surplus[:_MOST_REMOVALS], known)
        except Exception as error:
            _raise_if_out(error)
            log.exception("cannot remove requests", cluster_id=cluster.cluster_id)

    async def _audit(
        self,
        cluster: HostedControlPlane,
        request: SigningRequest,
        verdict: Verdict,
        requestor: str,
    ) -> None:
        """Write the line before the decision has an effect; a repeated decision has one line.

        Every certificate that is given has its line; of denials the budget decides.
        """
        event_id = audit_id_of(request, approve=verdict.approve)
        decision = "approve" if verdict.approve else "deny"
        async with self._database.workspace(cluster.workspace_id) as session:
            if await session.get(AuditEventRow, (cluster.workspace_id, event_id)) is not None:
                return
            times = self._budget.take(f"{cluster.cluster_id} {requestor} {decision}")
            if times is None and not verdict.approve:
                return
            of_machine = verdict.machine_id is not None
            add_audit_event(
                session,
                system_caller(cluster.workspace_id, _KEEPER),
                f"node.certificate.{decision}",
                "machine" if of_machine else "cluster",
                verdict.machine_id or cluster.cluster_id,
                outcome="allowed" if verdict.approve else "denied",
                details={
                    "cluster_id": cluster.cluster_id,
                    "request": printable(request.name),
                    "requestor": printable(request.username),
                    "signer": request.signer,
                    "reason": printable(verdict.reason),
                    "times_within_the_hour": times,
                },
                event_id=event_id,
            )

    async def _remove(
        self,
        cluster: HostedControlPlane,
        surplus: Sequence[tuple[str, SigningRequest]],
        known: Mapping[str, KnownNode],
    ) -> None:
        for requestor, count in Counter(requestor for requestor, _ in surplus).items():
            await self._audit_removal(cluster, requestor, count, known)
        if surplus:
            doomed = [request for _, request in surplus]
            await self._clusters.ask(cluster, partial(remove, requests=doomed))

    async def _audit_removal(
        self,
        cluster: HostedControlPlane,
        requestor: str,
        count: int,
        known: Mapping[str, KnownNode],
    ) -> None:
        times = self._budget.take(f"{cluster.cluster_id} {requestor} remove", count)
        if times is None:
            return
        node = known.get(requestor)
        log.warning("removing requests", cluster_id=cluster.cluster_id, requestor=requestor)
        async with self._database.workspace(cluster.workspace_id) as session:
            add_audit_event(
                session,
                system_caller(cluster.workspace_id, _KEEPER),
                "node.certificate.remove",
                "cluster" if node is None else "machine",
                cluster.cluster_id if node is None else node.machine_id,
                outcome="denied",
                details={
                    "cluster_id": cluster.cluster_id,
                    "requestor": _STRANGERS if node is None else NODE_USER_PREFIX + node.name,
                    "reason": f"More than {MOST_KEPT_EACH} requests of one requestor are kept.",
                    "times_within_the_hour": times,
                },
            )


def _raise_if_out(error: Exception) -> None:
    if isinstance(error, BulkheadError) and error.reason is Reason.DEPENDENCY_UNAVAILABLE:
        raise error


def _requestor(request: SigningRequest, known: Mapping[str, KnownNode]) -> str:
    """Return the name of the node that asks, or one for all who are none."""
    name = request.username.removeprefix(NODE_USER_PREFIX)
    is_node = request.username == NODE_USER_PREFIX + name and name in known
    return name if is_node else _STRANGERS


def _surplus(
    requests: Sequence[SigningRequest], known: Mapping[str, KnownNode]
) -> list[tuple[str, SigningRequest]]:
    """Return what is too much of each who asks: first old denials, last what waits longest."""
    of_each: defaultdict[str, list[SigningRequest]] = defaultdict(list)
    for request in sorted(requests, key=lambda one: (one.created_at, one.uid)):
        of_each[_requestor(request, known)].append(request)
    surplus: list[tuple[str, SigningRequest]] = []
    for requestor, theirs in of_each.items():
        if len(theirs) > MOST_KEPT_EACH:
            waiting = [one for one in theirs if not one.decided]
            issued = [one for one in theirs if one.decided and one.certificate is not None]
            others = [one for one in theirs if one.decided and one.certificate is None]
            kept = [*waiting, *reversed(issued), *reversed(others)][:MOST_KEPT_EACH]
            uids = {one.uid for one in kept}
            surplus += [(requestor, one) for one in theirs if one.uid not in uids]
    return surplus


def _next_in_turn(requests: Sequence[SigningRequest]) -> list[SigningRequest]:
    """Return what is decided in this look: the oldest of each who asks, then the second of each."""
    turns: Counter[str] = Counter()
    ranked: list[tuple[int, SigningRequest]] = []
    for request in sorted(requests, key=lambda one: (one.created_at, one.uid)):
        if not request.decided:
            ranked.append((turns[request.username], request))
            turns[request.username] += 1
    ranked.sort(key=lambda one: one[0])
    return [one for turn, one in ranked[:_MOST_DECISIONS] if turn < _MOST_DECISIONS_EACH]
