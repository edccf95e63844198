"""Servers of one private network that are in two subnets of it, with a router in between.

No route of a server can lead to pods of the other: only neighbours can be routed to.
"""

import json
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import pytest

from infra.local_cloud import LocalServer
from tests.end_to_end.router import running_router
from tests.end_to_end.servers import Place, running_place, until
from tests.end_to_end.workload import NAME, await_rollout, pods_by_node, run_workload

_PORT = 8080
# More than one packet takes, so that a packet that became too long by a tunnel would be missed.
_LONG = "bulkhead" * 500
# Flannel and kube-proxy hear of a new node and of a ready pod a moment later.
_REACHES_WITHIN = 60.0


@pytest.mark.full
@pytest.mark.timeout(600)
def test_pods_reach_pods_services_and_dns_across_subnets(tmp_path: Path) -> None:
    with running_place(tmp_path) as place:
        beyond = place.cloud.network("beyond")
        with running_router(place.network, beyond) as router:
            servers = [
                place.switch_on(name, network=network)
                for name, network in (("near", place.network), ("far", beyond))
            ]
            for server in servers:
                router.lead(server)
            near, far = (machine["node_name"] for machine in place.joined_once(*servers))
            run_workload(place)
            await_rollout(place, "coredns", "kube-system")
            (one,), (other,) = (pods_by_node(place)[node] for node in (near, far))
            _works(place, one, other)
            _works(place, other, one)
            for server, pod in zip(servers, (other, one), strict=True):
                assert "dev flannel.1" in _way(server, _address(place, pod))
                assert server.firewall_counters().accepted == 0


def _works(place: Place, pod: str, other: str) -> None:
    """Have a pod ask one in the other subnet: by its address, and by Services."""
    address, service = _address(place, other), f"{NAME}.default.svc.cluster.local"
    asked = (
        (address, _PORT, "hostname", other),
        (address, _PORT, f"echo?{urlencode({'msg': _LONG})}", _LONG),
        # kube-proxy takes one of the Service's two pods each time.
        (service, 80, "hostname", other),
    )
    for host, port, request, wanted in asked:
        until(
            partial(_is_answered, place, pod, host, port, request, wanted),
            _REACHES_WITHIN,
            f"an answer of {other} to {pod}, which asks {host} for {request[:9]}",
        )


def _is_answered(
    place: Place, pod: str, host: str, port: int, request: str, wanted: str
) -> bool | None:
    asked = {"host": host, "port": port, "protocol": "http", "tries": 1, "request": request}
    dial = f"{pod}:{_PORT}/proxy/dial?{urlencode(asked)}"
    path = f"/api/v1/namespaces/default/pods/{dial}"
    answer = place.bulkhead.kubectl(place.kubeconfig, "get", "--raw", path)
    return (answer.returncode == 0 and wanted in json.loads(answer.stdout)["responses"]) or None


def _address(place: Place, pod: str) -> str:
    return place.kubectl("get", "pod", pod, "-o", "jsonpath={.status.podIP}")


def _way(server: LocalServer, address: str) -> str:
    return server.run(f"ip route get {address}").output
