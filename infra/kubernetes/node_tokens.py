"""Tokens that are bound to one Node object: they end with it, or after an hour."""

import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Final

from domain.errors import BulkheadError, Reason
from domain.machine import (
    NODE_TOKEN_ISSUER_USER,
    NODE_TOKEN_SECONDS,
    NODE_TOKENS_NAMESPACE,
    POD_NETWORK_SERVICE_ACCOUNT,
    PROXY_SERVICE_ACCOUNT,
    TUNNEL_AUDIENCE,
    TUNNEL_SERVICE_ACCOUNT,
)
from infra.kubernetes.client import KubernetesClient, Object
from infra.kubernetes.logins import Login
from infra.openbao.authorities import Authority
from infra.openbao.leaf import LeafSpec, make_leaf
from infra.openbao.signing import ApiOpenBao

# A server asks twice an hour, so connections are kept for clusters with several of them only.
_KEPT_SECONDS: Final = 5 * 60

_SPEC: Final = LeafSpec(
    authority=Authority.KUBERNETES, common_name=NODE_TOKEN_ISSUER_USER, usages=("ClientAuth",)
)


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """A cluster, and where its API server is."""

    workspace_id: str
    cluster_id: str
    url: str


@dataclass(frozen=True, slots=True)
class NodeTokens:
    """What a server needs beside its certificate; all of it ends at `expires_at`."""

    tunnel: str
    proxy: str
    pod_network: str
    expires_at: datetime

    def __repr__(self) -> str:
        """Show no token."""
        return f"NodeTokens(expires_at={self.expires_at})"


class NodeTokenIssuer:
    """Mints tokens at the API servers of hosted clusters. Safe to use from several threads.

    In each cluster it is a user who may read nodes and ask for the tokens of three
    ServiceAccounts, and nothing else.
    """

    def __init__(self, openbao: ApiOpenBao) -> None:
        self._openbao = openbao
        self._lock = Lock()
        # The client that was used last is at the end.
        self._clients: OrderedDict[ClusterAddress, tuple[KubernetesClient, float]] = OrderedDict()
        self._threads = ThreadPoolExecutor(max_workers=12, thread_name_prefix="node-tokens")

    def close(self) -> None:
        """Close every connection."""
        self._threads.shutdown()
        with self._lock:
            for client, _ in self._clients.values():
                client.close()
            self._clients.clear()

    def mint(self, cluster: ClusterAddress, node_name: str) -> NodeTokens:
        """Return tokens that are bound to a node.

        Raises:
            BulkheadError: FAILED_PRECONDITION while there is no Node object, or the cluster lacks
                what the platform keeps in it;
                DEPENDENCY_UNAVAILABLE when the API server or OpenBao does not answer.
        """
        try:
            return self._mint(self._client_of(cluster), node_name)
        except BulkheadError as error:
            if error.reason not in {Reason.PERMISSION_DENIED, Reason.NOT_FOUND}:
                raise
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                "The cluster lacks what tokens of nodes are made with: somebody removed a binding "
                "or a ServiceAccount of the platform. It is brought back within five minutes; ask "
                "again.",
            ) from error

    def _mint(self, client: KubernetesClient, node_name: str) -> NodeTokens:
        node = client.find(f"/api/v1/nodes/{node_name}")
        if node is None:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"There is no Node {node_name} yet. Start the kubelet, which makes it, and ask "
                "again.",
            )
        uid = str(node["metadata"]["uid"])
        wanted = (
            (TUNNEL_SERVICE_ACCOUNT, TUNNEL_AUDIENCE),
            (PROXY_SERVICE_ACCOUNT, None),
            (POD_NETWORK_SERVICE_ACCOUNT, None),
        )
        answers = list(
            self._threads.map(
                lambda account: client.create(
                    f"/api/v1/namespaces/{NODE_TOKENS_NAMESPACE}/serviceaccounts/{account[0]}/token",
                    _request(node_name, uid, account[1]),
                ),
                wanted,
            )
        )
        tunnel, proxy, pod_network = (str(answer["status"]["token"]) for answer in answers)
        ends = (str(answer["status"]["expirationTimestamp"]) for answer in answers)
        return NodeTokens(tunnel, proxy, pod_network, min(map(datetime.fromisoformat, ends)))

    def _client_of(self, cluster: ClusterAddress) -> KubernetesClient:
        now = time.monotonic()
        with self._lock:
            known = self._clients.pop(cluster, None)
            client = known[0] if known else KubernetesClient(cluster.url, self._log_in_to(cluster))
            self._clients[cluster] = (client, now)
            oldest, (forgotten, last_used) = next(iter(self._clients.items()))
            if last_used > now - _KEPT_SECONDS:
                return client
            del self._clients[oldest]
        forgotten.close()
        return client

    def _log_in_to(self, cluster: ClusterAddress) -> "_LogIn":
        return _LogIn(self._openbao, cluster)


@dataclass(frozen=True, slots=True)
class _LogIn:
    openbao: ApiOpenBao
    cluster: ClusterAddress

    def __call__(self) -> Login:
        place = (self.cluster.workspace_id, self.cluster.cluster_id)
        key, certificate = make_leaf(
            lambda request, _usages: self.openbao.sign_node_token_issuer(*place, request), _SPEC
        )
        return Login(self.openbao.authority_of(*place), certificate, key)


def _request(node_name: str, uid: str, audience: str | None) -> Object:
    spec: Object = {
        "expirationSeconds": NODE_TOKEN_SECONDS,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Node", "name": node_name, "uid": uid},
    }
    if audience is not None:
        spec["audiences"] = [audience]
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
