"""Reaches the API servers of the hosted clusters of a workspace, from any worker."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx

from domain.cluster import ADMINISTRATORS_GROUP, ClusterProvider, ClusterState, HostedControlPlane
from domain.errors import BulkheadError, Reason
from domain.names import api_server_port_of
from infra.database.engine import Database
from infra.database.queries.cluster import find_cluster, find_endpoint
from infra.kubernetes.logins import load_from_memory
from infra.openbao.authorities import Authority
from infra.openbao.client import OpenBao
from infra.openbao.leaf import LeafSpec, make_leaf

# Of the certificate of one step: longer than the step's own limit.
_LIFETIME_SECONDS: Final = 15 * 60
_TIMEOUT_SECONDS: Final = 10.0

# An administrator as every other one: what takes the group's rights away takes ours.
_SPEC: Final = LeafSpec(
    authority=Authority.KUBERNETES,
    common_name="bulkhead:secret-rotation",
    organization=ADMINISTRATORS_GROUP,
    usages=("ClientAuth",),
)

_SERVER_ERROR: Final = 500
_TOO_MANY: Final = 429


@dataclass(frozen=True, slots=True)
class Answer:
    """What an API server answered."""

    status: int
    body: Mapping[str, Any]


class ClusterApi:
    """One cluster's API server, as an administrator and as whoever holds a token."""

    def __init__(self, administrator: httpx.AsyncClient, anybody: httpx.AsyncClient) -> None:
        self._administrator = administrator
        self._anybody = anybody

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Send a request as an administrator.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the API server does not answer;
                FAILED_PRECONDITION when the administrators have no rights in it.
        """
        answer = await _send(self._administrator, method, path, body)
        if answer.status in {401, 403}:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                "The cluster refuses the platform's administrator. Restore the ClusterRoleBinding "
                "of the administrators (resume the cluster), and look for an admission webhook "
                "that refuses everything.",
            )
        return answer

    async def ask_with_token(self, token: str, path: str, body: Mapping[str, Any]) -> Answer:
        """Send a POST request with a bearer token and nothing else."""
        return await _send(self._anybody, "POST", path, body, {"authorization": f"Bearer {token}"})


class HostedClusters:
    """Finds clusters in the database and logs in with a certificate of their own authority."""

    def __init__(self, database: Database, openbao: OpenBao) -> None:
        self._database = database
        self._openbao = openbao

    @asynccontextmanager
    async def api_of(self, workspace_id: str, cluster_id: str) -> AsyncIterator[ClusterApi]:
        """Connect to the API server of a cluster.

        Raises:
            BulkheadError: NOT_FOUND when the workspace has no such cluster; FAILED_PRECONDITION
                when it is not a hosted one that is active.
        """
        cluster, address = await self._find(workspace_id, cluster_id)
        known, anonymous = await asyncio.to_thread(self._contexts, cluster)
        async with _client(address, known) as administrator, _client(address, anonymous) as anybody:
            yield ClusterApi(administrator, anybody)

    async def _find(self, workspace_id: str, cluster_id: str) -> tuple[HostedControlPlane, str]:
        async with self._database.workspace(workspace_id) as session:
            row = await find_cluster(session, cluster_id)
            endpoint = await find_endpoint(session, cluster_id)
        if row is None:
            raise BulkheadError(
                Reason.NOT_FOUND,
                "The workspace has no such cluster (any more). Correct the rotation's settings.",
            )
        if (
            row.provider is not ClusterProvider.MANAGED_KAAS
            or row.state is not ClusterState.ACTIVE
            or endpoint is None
        ):
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"The cluster of the rotation is {row.state} ({row.provider}); it must be a hosted "
                "one that is active.",
            )
        cluster = HostedControlPlane(
            workspace_id=workspace_id, cluster_id=row.id, host=row.host, slot=row.slot
        )
        host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
        return cluster, f"https://{host}:{api_server_port_of(endpoint.first_port, endpoint.slot)}"

    def _contexts(self, cluster: HostedControlPlane) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        authority = self._openbao.certificate_of(cluster, Authority.KUBERNETES)
        key, certificate = make_leaf(
            lambda request, usages: self._openbao.sign(
                cluster,
                _SPEC.authority,
                request,
                usages=usages,
                lifetime_seconds=_LIFETIME_SECONDS,
            ),
            _SPEC,
        )
        known = ssl.create_default_context(cadata=authority)
        load_from_memory(known, certificate + key)
        return known, ssl.create_default_context(cadata=authority)


def _client(address: str, context: ssl.SSLContext) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=address, verify=context, trust_env=False, timeout=_TIMEOUT_SECONDS
    )


async def _send(
    client: httpx.AsyncClient,
    method: str,
    path: str,
    body: Mapping[str, Any] | None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    try:
        response = await client.request(method, path, json=body, headers=headers)
        found = response.json() if response.content else {}
    except (httpx.TransportError, ValueError):
        raise _unavailable() from None
    if response.status_code >= _SERVER_ERROR or response.status_code == _TOO_MANY:
        raise _unavailable()
    return Answer(response.status_code, found if isinstance(found, dict) else {})


def _unavailable() -> BulkheadError:
    return BulkheadError(
        Reason.DEPENDENCY_UNAVAILABLE,
        "The cluster's API server does not answer; the step is tried again.",
        metadata={"dependency": "kubernetes"},
    )
