"""Power, network, parts of the platform and downloads fail while servers join and work."""

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from infra.control_planes.processes import host_supervisor
from infra.local_cloud import LocalServer
from tests.end_to_end.intruder import audited_denials
from tests.end_to_end.servers import Place
from tests.end_to_end.stack import wait_until_healthy
from tests.end_to_end.workload import check_pod, pods_by_node, run_workload
from tests.local_servers import state_of

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

# What a server's disk shows once its script has come so far.
_MARKS = {
    "started": "etc/bulkhead/bootstrap",
    "checked": "usr/local/sbin/bulkhead-node",
    "registered": "etc/bulkhead/registration",
    "downloaded": "etc/bulkhead/node.env",
    "installed": "etc/bulkhead/containerd.toml",
    "kubelet_started": "var/lib/kubelet/pki",
}
_COMES_SO_FAR_WITHIN = 240.0
# Of silence until a machine is unreachable: 120 s, and a look each 2 s.
_UNREACHABLE_WITHIN = 180.0
_HEALS_WITHIN = 120.0


def _await_mark(server: LocalServer, phase: str) -> None:
    mark = server.directory / "disk" / _MARKS[phase]
    deadline = time.monotonic() + _COMES_SO_FAR_WITHIN
    while not mark.exists():
        assert time.monotonic() < deadline, f"{server.name} is not {phase}"
        time.sleep(0.002)


def test_a_power_cut_in_any_phase_of_a_join_only_delays_it(place: Place) -> None:
    bootstraps, servers = [], []
    for phase in _MARKS:
        bootstraps.append(place.new_bootstrap())
        servers.append(place.switch_on(phase.replace("_", "-"), bootstraps[-1]))
        _await_mark(servers[-1], phase)
        servers[-1].power_cut()
        servers[-1].boot()
    often = place.switch_on("often", bootstrap := place.new_bootstrap())
    for phase in _MARKS:
        _await_mark(often, phase)
        often.power_cut()
        often.boot()
    machines = place.joined_once(*servers, often)
    used = [
        place.bulkhead.get(f"/clusters/{place.cluster_id}/worker_bootstraps/{each['id']}")
        for each in [*bootstraps, bootstrap]
    ]
    assert [each["machine_id"] for each in used] == [each["id"] for each in machines]


def test_a_network_that_was_cut_for_longer_than_every_heartbeat_heals_by_itself(
    place: Place,
) -> None:
    server = place.switch_on("cut-off")
    machine = place.joined(server)
    run_workload(place, replicas=1)
    (pod,) = pods_by_node(place)[machine["node_name"]]
    check_pod(place, pod)
    server.cut_network()
    place.await_health(machine, "unreachable", _UNREACHABLE_WITHIN)
    assert place.nodes() == {machine["node_name"]: "Unknown"}
    server.restore_network()
    place.await_health(machine, "healthy", _HEALS_WITHIN)
    check_pod(place, pod)
    place.joined_once(server)


def _kill_api_server(place: Place) -> None:
    supervisor = host_supervisor(place.bulkhead.stack.control_planes)
    pid = supervisor.state(f"cp-{place.cluster_id[4:]}")["kube-apiserver"].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def _killer(place: Place, part: str) -> Callable[[], None]:
    if part == "cluster API":
        return lambda: _kill_api_server(place)
    return lambda: place.bulkhead.kill(part)


@pytest.mark.parametrize("part", ["api", "worker", "openbao", "cluster API"])
def test_a_join_completes_although_a_part_is_killed(place: Place, part: str) -> None:
    kill = _killer(place, part)
    server = place.switch_on("unlucky")
    for phase in ("checked", "registered", "kubelet_started"):
        _await_mark(server, phase)
        kill()
        if phase != "kubelet_started":
            # Down means down: the next kill is of one that had come back.
            wait_until_healthy(place.bulkhead)
    place.await_cluster_api()
    place.joined_once(server)
    wait_until_healthy(place.bulkhead)


def test_of_two_servers_with_one_token_one_joins_and_the_other_says_why_not(place: Place) -> None:
    servers = [
        place.cloud.create(name, network=place.network, image=place.image)
        for name in ("first", "second")
    ]
    for server in servers:
        server.boot()
    for server in servers:
        server.wait_until_booted()
        server.run("cloud-init status --wait")
    before = [state_of(server) for server in servers]
    known = len(audited_denials(place, "node.register"))
    command = place.new_bootstrap()["command"]
    with ThreadPoolExecutor() as threads:
        runs = list(threads.map(lambda server: server.run(command, 180), servers))
    assert sorted(run.status for run in runs) == [0, 21], runs
    loser = next(index for index in range(2) if runs[index].status == 21)
    assert "was not accepted" in runs[loser].errors
    assert state_of(servers[loser]) == before[loser]
    place.joined_once(servers[1 - loser])
    assert len(audited_denials(place, "node.register")) == known + 1


def test_a_corrupted_artifact_is_refused_and_nothing_of_it_runs(place: Place) -> None:
    server = place.cloud.create("careful", network=place.network, image=place.image)
    server.boot()
    server.wait_until_booted()
    artifacts = place.bulkhead.stack.home.artifacts
    (names,) = [json.loads(file.read_text()) for file in (artifacts / "sets").iterdir()]
    (wanted,) = [each for each in names["artifacts"] if each["name"] == "kubelet"]
    files = artifacts / "files"
    corrupted = files / wanted["sha256"]
    _flip(corrupted)
    try:
        run = server.run(place.new_bootstrap()["command"], 180)
        assert run.status == 23, run
        assert "it was not used" in run.errors
        hashes = server.run("sha256sum /opt/bulkhead/bin/* /opt/cni/bin/* | cut -d ' ' -f 1")
        assert set(hashes.output.split()) <= {file.name for file in files.iterdir()}
        assert corrupted.name not in hashes.output
        assert server.run("pgrep -f '[/]opt/bulkhead/bin'").output == ""
        machine = place.machine_of(server)
        waits = place.bulkhead.get(f"/operations/{place.create_of(machine)['id']}")
        assert "sha256" in str(waits) or "corrupted" in str(waits)
    finally:
        _flip(corrupted)
    place.joined_once(server)


def _flip(file: os.PathLike[str]) -> None:
    """Turn one byte in the middle into another, or back."""
    with open(file, "r+b") as opened:  # noqa: PTH123 - a path
        middle = os.fstat(opened.fileno()).st_size // 2
        opened.seek(middle)
        (byte,) = opened.read(1)
        opened.seek(middle)
        opened.write(bytes([byte ^ 0x01]))


def test_the_script_run_again_restarts_nothing(place: Place) -> None:
    server = place.switch_on("again")
    place.joined_once(server)
    units = "bulkhead-containerd bulkhead-kubelet bulkhead-tunnel bulkhead-kube-proxy"
    show = f"systemctl show -p InvocationID {units} bulkhead-flannel bulkhead-node.timer"
    # Its own timer holds the lock for a moment.
    started = server.run(show).output
    again = server.run("bulkhead-node install")
    assert again.status == 0, again
    assert server.run(show).output == started
    place.joined_once(server)


def test_a_server_that_was_uninstalled_by_hand_joins_again_as_another_machine(
    place: Place,
) -> None:
    server = place.switch_on("twice")
    first = place.joined(server)
    assert server.run("bulkhead-node uninstall", 120).status == 0
    joined = server.run(place.new_bootstrap()["command"], 180)
    assert joined.status == 0, joined
    second = next(each for each in place.machines() if each["id"] != first["id"])
    created = place.bulkhead.end_of(place.create_of(second))
    assert created["state"] == "SUCCEEDED", created
    deleted = place.bulkhead.end_of(place.ask("DELETE", first["id"]), _HEALS_WITHIN)
    assert deleted["state"] == "SUCCEEDED", deleted
    gone = place.bulkhead.http.get(f"/machines/{first['id']}")
    assert gone.status_code == httpx.codes.NOT_FOUND
    assert place.nodes() == {f"mch-{second['id'][4:]}": "True"}
