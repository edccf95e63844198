import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.embedded import local_servers
from infra.embedded.home import Home
from infra.local_cloud import LocalCloud
from infra.local_cloud.network import BRIDGE_PREFIX
from tests.cli.conftest import Bulkhead
from tests.local_servers import image_or_skip
from tests.servers import temporary_home

SECONDS = 120
SECONDS_WITH_SERVERS = 600
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def _demo(
    home: Home,
    folder: Path,
    *arguments: str,
    path: str = PATH,
    seconds: float = SECONDS,
    rollout: bool = False,
) -> str:
    chosen = ("--rollout" if rollout else "--no-rollout", *arguments)
    result = _run(home, folder, "cli.demo", *chosen, path=path, seconds=seconds)
    assert result.returncode == 0, result.stdout
    assert "kube-system" in result.stdout
    return result.stdout


def _run(
    home: Home, folder: Path, module: str, *arguments: str, path: str = PATH, seconds: float
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        check=False,
        cwd=Path(__file__).parents[2],
        env=_environment(home, folder, path),
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def _environment(home: Home, folder: Path, path: str) -> dict[str, str]:
    return {
        "PATH": path,
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "BULKHEAD_HOME": str(home.directory),
        # The user's, because a home of its own would make all programs and images again.
        "XDG_CACHE_HOME": str(Path.home() / ".cache"),
    }


def _demo_that_waits(home: Home, folder: Path, goes_on: Callable[[], object]) -> None:
    """Run the demo until it says that it waits for a change of its cluster; let that go on."""
    with subprocess.Popen(
        [sys.executable, "-m", "cli.demo", "--no-rollout", "--no-servers"],
        cwd=Path(__file__).parents[2],
        env={**_environment(home, folder, PATH), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        waits = any("waiting for that first" in line for line in demo.stdout)
        goes_on()
        rest = demo.stdout.read()
    assert (waits, demo.returncode) == (True, 0), rest


# Five runs of the demo, and each may take its two minutes.
@pytest.mark.timeout(900)
def test_the_demo_goes_on_from_whatever_it_finds(stack_home: Home, tmp_path: Path) -> None:
    owner = Bulkhead(tmp_path, BULKHEAD_HOME=str(stack_home.directory))
    owner.ok("workspaces", "use", "default")
    default = owner.json("whoami")["workspace_id"]
    owner.ok("workspaces", "use", "--none")

    first = _demo(stack_home, tmp_path, "--no-servers")
    assert "Cluster demo is active (" in first
    assert "wait_until_ready" in first
    assert [cluster["name"] for cluster in owner.json("clusters", "list")] == ["demo"]
    assert f"export KUBECONFIG={stack_home.directory}/demo/kubeconfig" in first

    owner.ok("workspaces", "use", default)
    second = _demo(stack_home, tmp_path, "--no-servers")
    assert "active since an earlier run" in second
    assert "The run before wrote bulkhead-demo" in second
    assert "clusters suspend demo --workspace demo" in second
    assert owner.json("whoami")["workspace_id"] == default
    owner.ok("workspaces", "use", "demo")

    owner.ok("clusters", "suspend", "demo")
    resumed = _demo(stack_home, tmp_path, "--no-servers")
    assert "suspended; resuming it" in resumed
    assert "The run before wrote bulkhead-demo" in resumed

    owner.ok("clusters", "suspend", "demo")
    # So that the change lasts until the demo looks.
    stop = owner.json("stops", "create", "--reason", "A test", "--yes")["id"]
    owner.ok("clusters", "resume", "demo", "--no-wait")
    _demo_that_waits(stack_home, tmp_path, lambda: owner.ok("stops", "lift", stop))

    fresh = _demo(stack_home, tmp_path, "--no-servers", "--fresh")
    assert "Deleting cluster demo" in fresh
    assert "The run before wrote" not in fresh
    owner.ok("clusters", "delete", "demo", "--yes")


def test_where_no_server_can_boot_it_says_why_and_offers_simulated_nodes(
    stack_home: Home, tmp_path: Path
) -> None:
    owner = Bulkhead(tmp_path, BULKHEAD_HOME=str(stack_home.directory))

    # Without apt-get on PATH, and without root, there is no way to have servers here.
    told = _demo(stack_home, tmp_path, path=str(tmp_path))

    assert "or go on with simulated nodes" in told
    assert "So no real servers join in this run." in told
    assert "--simulated-nodes 3" in told
    assert "servers of your own join" not in told
    owner.ok("clusters", "delete", "demo", "--yes", "--workspace", "demo")


@pytest.mark.full
def test_a_bad_version_stops_at_the_canary_and_a_good_one_reaches_three_clusters(
    stack_home: Home, tmp_path: Path
) -> None:
    owner = Bulkhead(tmp_path, BULKHEAD_HOME=str(stack_home.directory))

    # kwok may have to be built.
    told = _demo(
        *(stack_home, tmp_path, "--no-servers"),
        path=os.environ["PATH"],
        seconds=SECONDS_WITH_SERVERS,
        rollout=True,
    )

    assert "simulated by kwok" in told
    before, good = told.split("A good version reaches every cluster")
    bad = before.partition("A bad version stops at the canary")[2]
    assert "The wave is taken back" in bad
    assert bad.count("1.0.0") == 3
    assert good.count("The wave is good.") == 3
    for cluster in ("demo", "demo-rollout-2", "demo-rollout-3"):
        assert [f"greeter-{cluster}", cluster, "1.2.0", "Healthy"] in map(
            str.split, good.splitlines()
        )
    inside = ("--workspace", "demo")
    assert [entry["name"] for entry in owner.json("clusters", "list", *inside)] == ["demo"]
    assert owner.json("installs", "list", *inside) == []
    assert "Package and product greeter stay" in told
    states = [entry["state"] for entry in owner.json("rollouts", "list", *inside)]
    assert states == ["succeeded", "failed"]
    owner.ok("clusters", "delete", "demo", "--yes", *inside)


@pytest.mark.full
def test_simulated_nodes_are_called_so_and_leave_nothing(stack_home: Home, tmp_path: Path) -> None:
    owner = Bulkhead(tmp_path, BULKHEAD_HOME=str(stack_home.directory))

    # kwok may have to be built.
    told = _demo(
        *(stack_home, tmp_path, "--simulated-nodes", "2"),
        path=os.environ["PATH"],
        seconds=SECONDS_WITH_SERVERS,
    )

    assert "simulated by kwok" in told
    assert any(
        line.split()[0] == "simulated-2" and line.split()[-1] == "true"
        for line in told.splitlines()
        if line.strip()
    )
    nodes = subprocess.run(
        [stack_home.programs / "kubectl", "get", "nodes", "--output", "name"],
        check=True,
        env={"KUBECONFIG": str(stack_home.demo / "kubeconfig"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert nodes.stdout == ""
    owner.ok("clusters", "delete", "demo", "--yes", "--workspace", "demo")


@pytest.fixture
def new_home() -> Iterator[Home]:
    """A home in which there is nothing yet; servers that the demo made go with it."""
    image_or_skip()
    with temporary_home() as home:
        try:
            yield home
        finally:
            local_servers.remove(home)


@pytest.mark.full
@pytest.mark.timeout(2 * SECONDS_WITH_SERVERS)
def test_servers_join_run_a_deployment_and_leave_and_the_demo_goes_on(
    new_home: Home, tmp_path: Path
) -> None:
    first = _demo(new_home, tmp_path, "--no-clouds", seconds=SECONDS_WITH_SERVERS)
    assert "Joining machine demo-1" in first
    assert "Joining machine demo-2" in first
    assert "answered" in first
    assert "GET /" in first
    assert "demo-2 is as it was before it joined" in first
    cloud = LocalCloud(new_home.demo / "servers")
    assert [server.name for server in cloud.servers()] == ["demo-1"]
    assert not list(new_home.demo.glob("user-data*"))

    cloud.server("demo-1").power_cut()
    owner = Bulkhead(tmp_path, BULKHEAD_HOME=str(new_home.directory))
    owner.ok("clusters", "suspend", "demo", "--workspace", "demo")
    second = _demo(new_home, tmp_path, "--no-clouds", seconds=SECONDS_WITH_SERVERS)
    assert "suspended; resuming it" in second
    assert "demo-1 was switched off; it is booted again" in second
    assert "Joining machine demo-1" not in second
    assert "Joining machine demo-2" in second

    fresh = _demo(new_home, tmp_path, "--fresh", "--no-clouds", seconds=SECONDS_WITH_SERVERS)
    assert "Draining and removing machine demo-1" in fresh
    assert "Deleting cluster demo" in fresh
    assert "Joining machine demo-1" in fresh

    down = _run(new_home, tmp_path, "infra.embedded", "down", seconds=SECONDS)
    assert "The demo's servers demo-1 run on" in down.stdout
    bridge = cloud.server("demo-1").network.bridge
    assert bridge.startswith(BRIDGE_PREFIX)
    purged = _run(new_home, tmp_path, "infra.embedded", "purge", "--yes", seconds=SECONDS)
    assert purged.returncode == 0, purged.stdout
    assert not new_home.directory.exists()
    assert not Path("/sys/class/net", bridge).exists()


@pytest.mark.full
@pytest.mark.timeout(2 * SECONDS_WITH_SERVERS)
def test_three_clouds_make_a_machine_each_and_have_nothing_of_it_afterwards(
    new_home: Home, tmp_path: Path
) -> None:
    told = _demo(new_home, tmp_path, "--no-servers", "--clouds", seconds=SECONDS_WITH_SERVERS)
    for name in ("demo-hcloud", "demo-aws", "demo-gcp"):
        assert f"Creating machine {name}" in told
        assert f"on-{name}" in told
        assert f"{name}: its account was asked, and has nothing of it (0 left)" in told
    assert "bulkhead leaks: 0 left" in told
    assert LocalCloud(new_home.clouds).servers() == []

    # The clouds begin anew with their process, and so do their accounts.
    credential = (new_home.cloud_accounts / "hcloud").read_text()
    assert stat.S_IMODE((new_home.cloud_accounts / "hcloud").stat().st_mode) == 0o600
    down = _run(new_home, tmp_path, "infra.embedded", "down", seconds=SECONDS)
    assert "The local clouds have forgotten their accounts" in down.stdout
    up = _run(new_home, tmp_path, "infra.embedded", "up", seconds=SECONDS)
    assert up.returncode == 0, up.stdout + up.stderr
    assert (new_home.cloud_accounts / "hcloud").read_text() != credential
    owner = Bulkhead(tmp_path, BULKHEAD_HOME=str(new_home.directory))
    owner.ok("workspaces", "use", "demo")
    types = owner.run("compute-configs", "types", "demo-hcloud")
    assert "Hetzner" in types.stderr
    assert "bulkhead secrets add-version" in types.stderr
