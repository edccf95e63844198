"""Tokens that are bound to a Node object, minted at a real API server by the API's own identity."""

import base64
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.machine import NODE_TOKEN_ISSUER_USER, TUNNEL_AUDIENCE
from domain.names import node_name_of
from infra.kubernetes.node_tokens import ClusterAddress, NodeTokenIssuer
from tests.infra.control_planes.host import Host, Kubectl


@pytest.fixture
def issuer(host: Host) -> Iterator[NodeTokenIssuer]:
    found = NodeTokenIssuer(host.api)
    yield found
    found.close()


@pytest.fixture
def kubectl(host: Host, cluster: HostedControlPlane, tmp_path: Path) -> Kubectl:
    return host.kubectl(cluster, tmp_path)


@pytest.fixture
def address(host: Host, cluster: HostedControlPlane) -> ClusterAddress:
    return ClusterAddress(
        cluster.workspace_id,
        cluster.cluster_id,
        f"https://127.0.0.1:{host.layout(cluster).api_port}",
    )


def claims_of(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


def is_accepted(kubectl: Kubectl, token: str, audience: str) -> bool:
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [audience]},
    }
    answer = kubectl("create", "-f", "-", "-o", "json", given=json.dumps(review))
    return bool(json.loads(answer)["status"].get("authenticated"))


def test_a_nodes_tokens_end_with_its_node_object(
    issuer: NodeTokenIssuer, address: ClusterAddress, kubectl: Kubectl
) -> None:
    node = node_name_of(new_id(Prefix.MACHINE))
    with pytest.raises(BulkheadError) as early:
        issuer.mint(address, node)
    assert early.value.reason is Reason.FAILED_PRECONDITION
    kubectl(
        "create",
        "-f",
        "-",
        given=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}),
    )
    tokens = issuer.mint(address, node)
    assert tokens.tunnel not in repr(tokens)
    assert timedelta(minutes=50) < tokens.expires_at - datetime.now(UTC) <= timedelta(hours=1)
    claims = claims_of(tokens.tunnel)
    assert claims["aud"] == [TUNNEL_AUDIENCE]
    assert claims["sub"] == "system:serviceaccount:kube-system:konnectivity-agent"
    assert claims["kubernetes.io"]["node"]["name"] == node
    assert claims_of(tokens.proxy)["kubernetes.io"]["serviceaccount"]["name"] == "kube-proxy"
    assert is_accepted(kubectl, tokens.tunnel, TUNNEL_AUDIENCE)
    kubectl("delete", "node", node)
    deadline = time.monotonic() + 60
    while is_accepted(kubectl, tokens.tunnel, TUNNEL_AUDIENCE):
        # The API server caches a token that was accepted for ten seconds.
        assert time.monotonic() < deadline
        time.sleep(1)


def test_whoever_mints_nodes_tokens_may_do_nothing_else(kubectl: Kubectl) -> None:
    def may(*what: str) -> bool:
        asked = kubectl.run("auth", "can-i", *what, f"--as={NODE_TOKEN_ISSUER_USER}")
        return asked.stdout.strip() == "yes"

    assert may("get", "nodes")
    token = ("create", "serviceaccounts/token", "-n", "kube-system")
    assert may("create", "serviceaccounts/konnectivity-agent", "--subresource=token", *token[2:])
    for what in (
        ("list", "nodes"),
        ("delete", "nodes"),
        ("get", "secrets", "-n", "kube-system"),
        ("create", "serviceaccounts/default", "--subresource=token", *token[2:]),
        ("create", "serviceaccounts/konnectivity-agent", "--subresource=token", "-n", "default"),
        ("create", "pods", "-n", "default"),
    ):
        assert not may(*what), what
