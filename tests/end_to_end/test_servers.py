"""Servers of a customer, behind a firewall that lets nothing in: they join, work and leave."""

from pathlib import Path

import httpx
import pytest

from infra.local_cloud import LocalServer
from tests.end_to_end.servers import Place, running_place, until
from tests.end_to_end.workload import await_rollout, check_pod, pods_by_node, run_workload
from tests.local_servers import state_of

_UNINSTALLS = "pgrep -f [b]ulkhead-node"


# A minute on an idle machine; others may be busy.
@pytest.mark.timeout(600)
def test_servers_join_work_and_leave_as_they_came(tmp_path: Path) -> None:
    with running_place(tmp_path) as place:
        leaver = place.cloud.create("leaver", network=place.network, image=place.image)
        leaver.boot()
        stayer = place.switch_on("stayer")
        leaver.wait_until_booted()
        assert leaver.run("cloud-init status --wait").status in {0, 2}
        before = state_of(leaver)
        done = leaver.run(place.new_bootstrap()["command"], 120)
        assert done.status == 0, done
        leaving, staying = place.joined(leaver), place.joined(stayer)
        for machine in (leaving, staying):
            assert (machine["state"], machine["stage"]) == ("ACTIVE", "ready")
            assert machine["node_name"] == f"mch-{machine['id'][4:]}"
        _works(place, leaving["node_name"], staying["node_name"])
        _leaves(place, leaver, leaving["id"])
        # The last report comes before the last lines of the script.
        until(lambda: leaver.run(_UNINSTALLS).status or None, 120, "the end of the script")
        assert state_of(leaver) == before
        nodes = place.kubectl("get", "nodes", "--no-headers").split()
        assert nodes[:2] == [staying["node_name"], "Ready"]
        assert len(nodes) == len(set(nodes))
        await_rollout(place)
        await_rollout(place, "coredns", "kube-system")
        assert len(pods_by_node(place)[staying["node_name"]]) == 2
        for server in (leaver, stayer):
            assert server.firewall_counters().accepted == 0


def _works(place: Place, *nodes: str) -> None:
    run_workload(place)
    pods = pods_by_node(place)
    assert set(pods) == set(nodes)
    for node in nodes:
        check_pod(place, pods[node][0])


def _leaves(place: Place, server: LocalServer, machine_id: str) -> None:
    node = f"mch-{machine_id[4:]}"
    cordoned = place.bulkhead.end_of(place.ask("POST", machine_id, ":cordon"))
    assert cordoned["state"] == "SUCCEEDED", cordoned
    assert place.kubectl("get", "node", node, "-o", "jsonpath={.spec.unschedulable}") == "true"
    assert place.bulkhead.get(f"/machines/{machine_id}")["schedulable"] is False
    deleting = place.ask("DELETE", machine_id)
    place.bulkhead.wait_for_step(deleting, "uninstall_server")
    # What its timer does within 30 seconds.
    report = "systemctl start bulkhead-node.service; test ! -e /etc/bulkhead"
    until(lambda: server.run(report).status == 0 or None, 120, "removal")
    deleted = place.bulkhead.end_of(deleting)
    assert deleted["state"] == "SUCCEEDED", deleted
    gone = place.bulkhead.http.get(f"/machines/{machine_id}")
    assert gone.status_code == httpx.codes.NOT_FOUND
