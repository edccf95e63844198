"""No process of ours leaves a core dump, however its starter is limited."""

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.embedded.applications import environment_of
from infra.settings import ApiSettings
from infra.supervisor.configuration import source_root
from infra.supervisor.program import Program
from infra.supervisor.supervisor import Supervisor
from tests.processes import core_limits
from tests.servers import Servers

NONE = ("0", "0")


@pytest.fixture
def generous() -> Iterator[None]:
    """Let what is started here dump core, unless it forbids that itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == 0:
        pytest.skip("this process must not dump core, nor may what it starts")
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def reaches_none(pid: int) -> bool:
    deadline = time.monotonic() + 120
    while core_limits(pid) != NONE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("module", ["api", "worker"])
@pytest.mark.usefixtures("generous")
def test_the_api_and_the_worker_forbid_their_own(servers: Servers, module: str) -> None:
    # Where nothing answers: what they do before that is what counts.
    environment = environment_of(
        servers.database,
        servers.temporal.model_copy(update={"address": "127.0.0.1:1"}),
        servers.openbao(module),
        ApiSettings(http_address="127.0.0.1:0"),
    )
    with subprocess.Popen(
        [sys.executable, "-m", module],
        cwd=source_root(),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            assert reaches_none(process.pid)
        finally:
            process.kill()


@pytest.mark.usefixtures("generous")
def test_a_supervisor_hands_the_limit_on_to_all_that_it_runs(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "supervisor")
    supervisor.ensure_running()
    try:
        sleeper = Program(name="one", command=["/bin/sleep", "1000"], directory=Path("/"))
        supervisor.add("group", [sleeper])
        assert supervisor.pid is not None
        assert core_limits(supervisor.pid) == NONE
        pid = supervisor.state("group")["one"].pid
        assert pid is not None
        assert core_limits(pid) == NONE
    finally:
        supervisor.shutdown()
