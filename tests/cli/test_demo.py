import subprocess
import sys
from pathlib import Path

from infra.embedded.home import Home
from tests.cli.conftest import Bulkhead


def _demo(home: Home, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "cli.demo", *arguments],
        check=False,
        cwd=Path(__file__).parents[2],
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "BULKHEAD_HOME": str(home.directory)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout
    assert "kube-system" in result.stdout
    return result.stdout


def test_the_demo_goes_on_from_whatever_it_finds(stack_home: Home, tmp_path: Path) -> None:
    owner = Bulkhead(tmp_path, BULKHEAD_HOME=str(stack_home.directory), BULKHEAD_WORKSPACE="demo")

    first = _demo(stack_home)
    assert "Cluster demo is active (" in first
    assert "wait_until_ready" in first

    second = _demo(stack_home)
    assert "active since an earlier run" in second
    assert "The run before wrote bulkhead-demo" in second

    owner.ok("clusters", "suspend", "demo")
    resumed = _demo(stack_home)
    assert "suspended; resuming it" in resumed
    assert "The run before wrote bulkhead-demo" in resumed

    owner.ok("clusters", "suspend", "demo", "--no-wait")
    assert "waiting for that first" in _demo(stack_home)

    fresh = _demo(stack_home, "--fresh")
    assert "Deleting cluster demo" in fresh
    assert "The run before wrote" not in fresh
    owner.ok("clusters", "delete", "demo", "--yes")
