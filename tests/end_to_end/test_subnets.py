"""Servers of one private network that are in two subnets of it, with a router in between.

Where that router is in between, no route of a server can lead to pods of another: only neighbours
can be routed to.
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


# Who asks, who is asked, and where packets of the one to pods of the other leave its server.
_WAYS = (
    ("near", "beside", "dev eth0"),
    ("near", "far", "dev flannel.1"),
    ("far", "near", "dev flannel.1"),
)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_pods_reach_pods_services_and_dns_across_subnets(tmp_path: Path) -> None:
    with running_place(tmp_path) as place:
        beyond = place.cloud.network("beyond")
        networks = {"near": place.network, "beside": place.network, "far": beyond}
        with running_router(place.network, beyond) as router:
            servers = {
                name: place.switch_on(name, network=network) for name, network in networks.items()
            }
            for server in servers.values():
                router.lead(server)
            machines = place.joined_once(*servers.values())
            run_workload(place, replicas=len(servers))
            await_rollout(place, "coredns", "kube-system")
            running = pods_by_node(place)
            pods = {each["hostname"]: running[each["node_name"]][0] for each in machines}
            for one, other, way in _WAYS:
                _works(place, pods[one], pods[other])
                assert way in _way(servers[one], _address(place, pods[other]))
            for server in servers.values():
                assert server.firewall_counters().accepted == 0


def _works(place: Place, pod: str, other: str) -> None:
    """Have a pod ask another: by its address, and by Services."""
    address, service = _address(place, other), f"{NAME}.default.svc.cluster.local"
    asked = (
        (address, _PORT, "hostname", other),
        (address, _PORT, f"echo?{urlencode({'msg': _LONG})}", _LONG),
        # kube-proxy takes any of the Service's pods each time.
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
