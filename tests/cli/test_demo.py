import subprocess
import sys
from pathlib import Path

from infra.embedded.home import Home
from tests.cli.conftest import Bulkhead


def _demo(home: Home, folder: Path, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "cli.demo", *arguments],
        check=False,
        cwd=Path(__file__).parents[2],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "BULKHEAD_HOME": str(home.directory),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout
    assert "kube-system" in result.stdout
    return result.stdout


def test_the_demo_goes_on_from_whatever_it_finds(stack_home: Home, tmp_path: Path) -> None:
    owner = Bulkhead(tmp_path, BULKHEAD_HOME=str(stack_home.directory))
    owner.ok("workspaces", "use", "default")
    default = owner.json("whoami")["workspace_id"]
    owner.ok("workspaces", "use", "--none")

    first = _demo(stack_home, tmp_path)
    assert "Cluster demo is active (" in first
    assert "wait_until_ready" in first
    assert [cluster["name"] for cluster in owner.json("clusters", "list")] == ["demo"]
    assert f"export KUBECONFIG={stack_home.directory}/demo/kubeconfig" in first

    owner.ok("workspaces", "use", default)
    second = _demo(stack_home, tmp_path)
    assert "active since an earlier run" in second
    assert "The run before wrote bulkhead-demo" in second
    assert "clusters suspend demo --workspace demo" in second
    assert owner.json("whoami")["workspace_id"] == default
    owner.ok("workspaces", "use", "demo")

    owner.ok("clusters", "suspend", "demo")
    resumed = _demo(stack_home, tmp_path)
    assert "suspended; resuming it" in resumed
    assert "The run before wrote bulkhead-demo" in resumed

    owner.ok("clusters", "suspend", "demo", "--no-wait")
    assert "waiting for that first" in _demo(stack_home, tmp_path)

    fresh = _demo(stack_home, tmp_path, "--fresh")
    assert "Deleting cluster demo" in fresh
    assert "The run before wrote" not in fresh
    owner.ok("clusters", "delete", "demo", "--yes")
