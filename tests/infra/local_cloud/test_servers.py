import shutil
import time
from pathlib import Path

import pytest

from domain.errors import BulkheadError, Reason
from infra.local_cloud import Image, LocalCloud, LocalServer
from infra.local_cloud.cloud import sweep_lost_clouds
from tests.infra.local_cloud.host_state import host_state
from tests.local_servers import temporary_cloud


def test_a_server_boots_to_multi_user_and_has_run_its_user_data(
    pair: tuple[LocalServer, LocalServer],
) -> None:
    answer = pair[0].run("hostname; cat /root/greeting; systemctl is-active multi-user.target")
    assert answer.output.split() == ["one", "hello", "active"]
    assert "Multi-User System" in pair[0].console.read_text(errors="replace")
    # What no unit of Debian's own fails at, a bootstrap must not be blamed for.
    assert pair[0].run("systemctl list-units --failed --no-legend").output == ""


def test_servers_have_identities_of_their_own(pair: tuple[LocalServer, LocalServer]) -> None:
    identities = {server.run("cat /etc/machine-id; hostname -I").output for server in pair}
    assert len(identities) == 2


def test_settings_of_the_host_are_out_of_a_servers_reach(
    pair: tuple[LocalServer, LocalServer],
) -> None:
    setting = Path("/proc/sys/vm/overcommit_memory")
    before = setting.read_text()
    other = "1" if before.strip() != "1" else "0"
    answer = pair[0].run(f"echo {other} > {setting} && cat {setting}; touch /proc/sys/vm/x")
    assert answer.output.strip() == other
    assert setting.read_text() == before


def test_a_command_answers_with_its_status_and_is_ended_in_time(
    pair: tuple[LocalServer, LocalServer],
) -> None:
    answer = pair[0].run("echo out; echo err >&2; exit 7")
    assert (answer.status, answer.output, answer.errors) == (7, "out\n", "err\n")
    started = time.monotonic()
    assert pair[0].run("sleep 60", timeout=0.5).status != 0
    assert time.monotonic() - started < 20


def test_a_wrong_clock_is_seen_by_what_a_bootstrap_script_runs(
    pair: tuple[LocalServer, LocalServer],
) -> None:
    server = pair[1]
    server.set_clock_offset(-86400)
    try:
        assert float(server.run("date +%s").output) < time.time() - 80000
    finally:
        server.set_clock_offset(0)
    assert abs(float(server.run("date +%s").output) - time.time()) < 20


def test_a_power_cut_ends_all_at_once_and_keeps_the_disk(cloud: LocalCloud, image: Image) -> None:
    server = cloud.create("cut", network=cloud.network("customer/place"), image=image)
    server.boot()
    server.power_cut()  # in the middle of its boot
    assert not server.is_running
    server.boot()
    server.wait_until_booted()
    server.run("echo kept > /root/kept; systemd-run sleep 1000")
    namesake = cloud.create("cut", network=server.network, image=image, user_data="ignored")
    assert namesake.is_running
    namesake.power_cut()
    with pytest.raises(BulkheadError) as off:
        server.run("true")
    assert off.value.reason is Reason.FAILED_PRECONDITION
    server.boot()
    server.wait_until_booted()
    assert server.run("cat /root/kept; pgrep sleep").output == "kept\n"
    started = time.monotonic()
    server.stop()
    assert time.monotonic() - started < 20
    assert not server.is_running


def test_removing_all_leaves_nothing_on_the_host(image: Image) -> None:
    with temporary_cloud() as cloud:
        network = cloud.network("customer/place")
        network.publish(4443, 443)
        server = cloud.create("one", network=network, image=image)
        server.boot()
        marks = (server.key, network.bridge, server.key[:8], str(cloud.directory))
        running = {"namespaces", "mounts", "groups", "interfaces", "rules", "processes", "files"}
        assert set(host_state(*marks)) == running
        with pytest.raises(BulkheadError, match="remove them first"):
            cloud.remove_network(network.id)
        server.remove()
        assert not server.directory.exists()
        assert host_state(server.key) == {}
    assert host_state(*marks) == {}


def test_what_a_killed_run_left_without_its_directory_is_swept(image: Image) -> None:
    with temporary_cloud() as cloud:
        server = cloud.create("one", network=cloud.network("customer/place"), image=image)
        server.boot()
        while cloud.directory.exists():
            # It boots, and writes where this removes.
            shutil.rmtree(cloud.directory, ignore_errors=True)
        sweep_lost_clouds()
        # Another process of the test run may have begun to sweep it.
        deadline = time.monotonic() + 60
        while (left := host_state(server.key, server.network.bridge)) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.2)
        assert left == {}


def test_a_server_needs_a_host_name(cloud: LocalCloud, image: Image) -> None:
    with pytest.raises(BulkheadError) as refused:
        cloud.create("../one", network=cloud.network("customer/place"), image=image)
    assert refused.value.reason is Reason.INVALID_ARGUMENT
