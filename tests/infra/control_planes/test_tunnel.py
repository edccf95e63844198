"""The way from a control plane to its nodes, which only opens from the nodes' side."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from domain.cluster import Component, HostedControlPlane, Leaf
from domain.errors import BulkheadError
from domain.machine import TUNNEL_AUDIENCE
from infra.control_planes.layout import LOOPBACK
from infra.control_planes.readiness import served_certificate
from tests.infra.control_planes.host import Host, nothing_meanwhile
from tests.infra.control_planes.nodes import Nodes, until

# Of an agent that is let in, on a busy machine: it tries again each second.
CONNECTS_WITHIN_SECONDS = 60.0

# How long one that is kept out is watched: several of its tries.
WATCHED_SECONDS = 3.0


@pytest.fixture
def nodes(host: Host, cluster: HostedControlPlane, tmp_path: Path) -> Iterator[Nodes]:
    found = Nodes(host, cluster, tmp_path)
    # The agent of the test before was killed: what went through it now would break off.
    until(lambda: found.connected_agents() == 0, CONNECTS_WITHIN_SECONDS)
    yield found
    for node in found.api.list_all("/api/v1/nodes"):
        found.remove(node["metadata"]["name"])
    found.close()


def test_a_kubelet_is_reached_through_an_agent_only_and_has_to_prove_its_address(
    nodes: Nodes,
) -> None:
    with nodes.kubelet("right") as right, nodes.kubelet("wrong", address="10.9.9.9") as wrong:
        for name, port in (("right", right), ("wrong", wrong)):
            nodes.add(name, kubelet_port=port)
            nodes.add_pod(name)
        # It is on this very machine, and yet out of reach: nothing is dialed from here.
        with pytest.raises(BulkheadError) as unreachable:
            nodes.log_of("right")
        with nodes.agent(nodes.tokens("right").tunnel):
            until(lambda: nodes.connected_agents() == 1, CONNECTS_WITHIN_SECONDS)
            answer = nodes.log_of("right")
            with pytest.raises(BulkheadError) as unproved:
                nodes.log_of("wrong")
    assert "No agent available" in unreachable.value.message
    assert answer == "asked by bulkhead:kube-apiserver-kubelet-client"
    assert "x509" in unproved.value.message


def test_an_agent_without_this_clusters_token_for_tunnels_is_kept_out(
    host: Host, nodes: Nodes, tmp_path: Path
) -> None:
    nodes.add("node")
    tokens = nodes.tokens("node")
    accounts = "/api/v1/namespaces/kube-system/serviceaccounts"
    of_another_account = _token(nodes, f"{accounts}/kube-proxy/token", TUNNEL_AUDIENCE)
    for_another_audience = _token(nodes, f"{accounts}/konnectivity-agent/token", "elsewhere")
    with host.cluster() as other:
        (tmp_path / "other").mkdir()
        foreign = Nodes(host, other, tmp_path / "other")
        foreign.add("node")
        foreign_token = foreign.tokens("node").tunnel
        foreign.close()
    for token in (of_another_account, for_another_audience, foreign_token, tokens.proxy, "none"):
        with nodes.agent(token) as log:
            until(partial(_was_refused, log), CONNECTS_WITHIN_SECONDS)
            assert nodes.connected_agents() == 0


def test_who_revokes_a_node_finds_its_agent_outside_and_the_others_back(
    host: Host, nodes: Nodes
) -> None:
    for name in ("stays", "goes"):
        nodes.add(name)
    with nodes.agent(nodes.tokens("stays").tunnel), nodes.agent(nodes.tokens("goes").tunnel):
        until(lambda: nodes.connected_agents() == 2, CONNECTS_WITHIN_SECONDS)
        nodes.remove("goes")
        # Without more ado it would stay: it is asked for its token when it connects.
        time.sleep(1)
        assert nodes.connected_agents() == 2
        host.backend.restart_tunnel(nodes.cluster, nothing_meanwhile)
        until(lambda: nodes.connected_agents() == 1, CONNECTS_WITHIN_SECONDS)
        deadline = time.monotonic() + WATCHED_SECONDS
        while time.monotonic() < deadline:
            assert nodes.connected_agents() == 1
            time.sleep(0.2)


def test_agents_are_back_after_the_tunnel_server_was_killed(host: Host, nodes: Nodes) -> None:
    nodes.add("node")
    with nodes.agent(nodes.tokens("node").tunnel):
        until(lambda: nodes.connected_agents() == 1, CONNECTS_WITHIN_SECONDS)
        before = _pid(host, nodes.cluster)
        os.kill(before, signal.SIGKILL)
        until(lambda: _pid(host, nodes.cluster) not in {0, before})
        host.backend.wait_until_ready(nodes.cluster, nothing_meanwhile)
        until(lambda: nodes.connected_agents() == 1, CONNECTS_WITHIN_SECONDS)


def test_what_goes_through_the_tunnel_goes_on_while_certificates_are_renewed(
    host: Host, nodes: Nodes
) -> None:
    with nodes.kubelet("lasting") as port, ThreadPoolExecutor() as threads:
        nodes.add("lasting", kubelet_port=port)
        nodes.add_pod("lasting")
        _assert_renewal_is_not_noticed(host, nodes, threads)


def _assert_renewal_is_not_noticed(host: Host, nodes: Nodes, threads: ThreadPoolExecutor) -> None:
    with nodes.agent(nodes.tokens("lasting").tunnel) as log:
        until(lambda: nodes.connected_agents() == 1, CONNECTS_WITHIN_SECONDS)
        with nodes.held_answers() as asked:
            answer = threads.submit(nodes.log_of, "lasting")
            assert asked.wait(CONNECTS_WITHIN_SECONDS), answer.exception(CONNECTS_WITHIN_SECONDS)
            before = nodes.layout.certificate(Leaf.TUNNEL_SERVER).read_bytes()
            host.backend.renew_leaves(nodes.cluster, force=True)
            host.backend.reload(nodes.cluster, nothing_meanwhile)
            served = served_certificate(LOOPBACK, nodes.layout.tunnel_port)
        assert answer.result().startswith("asked by")
        assert served is not None
        assert served.split() != before.split()
        assert "cannot connect" not in log.read_text()
        assert nodes.connected_agents() == 1
        _have_renewal_taken_up(nodes, "lasting")


def _have_renewal_taken_up(nodes: Nodes, pod: str) -> None:
    """Ask until the API server has its new certificate for kubelets.

    It closes its connections to kubelets when it finds that, with the one that it is opening.
    """
    # It looks at the file once a second at most.
    time.sleep(1.1)
    with contextlib.suppress(BulkheadError):
        nodes.log_of(pod)
    assert nodes.log_of(pod).startswith("asked by")


def _was_refused(log: Path) -> bool:
    return "cannot connect" in log.read_text()


def _token(nodes: Nodes, path: str, audience: str) -> str:
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [audience], "expirationSeconds": 600},
    }
    return str(nodes.api.create(path, request)["status"]["token"])


def _pid(host: Host, cluster: HostedControlPlane) -> int:
    statuses = {status.component: status for status in host.backend.describe(cluster).components}
    return statuses[Component.TUNNEL_SERVER].pid or 0
