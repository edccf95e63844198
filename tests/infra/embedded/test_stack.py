import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from domain.errors import BulkheadError
from domain.tokens import TokenKind, new_token
from infra.embedded import stack as stack_module
from infra.embedded.backup import back_up, restore
from infra.embedded.command import main
from infra.embedded.home import Home, is_open_to_others
from infra.embedded.openbao import AUDIT_LOGS
from infra.embedded.owner import Owner
from infra.embedded.server import Part, PartFailedError
from infra.embedded.stack import SERVERS, Stack
from infra.embedded.status import SUPERVISOR, ComponentStatus, status_of
from infra.settings import EmbeddedSettings
from infra.supervisor.supervisor import KEEPER, Supervisor
from tests.servers import temporary_home

# From a kill -9 of any one process until everything is right again. Measured on an idle machine:
# 3 s for supervisord with all its children, 1.3 s for the API, 0.5 s for each server.
HEALED_SECONDS = 60.0

# What a stack has only where servers reach it.
FOR_NODES = frozenset({Part.REGISTRY, Part.GATEWAY, Part.CLOUDS})

# On an idle machine 2.3 s; without anything to do it is the start of Python and its imports.
QUICK_SECONDS = 15.0

CUT_SHORT = new_token(TokenKind.USER)

NO_SETTINGS = EmbeddedSettings.model_construct()


@dataclass(frozen=True)
class Running:
    stack: Stack
    owner: Owner

    def get(self, path: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.owner.token}"}
        url = f"{self.stack.api.address}{path}"
        return httpx.get(url, headers=headers, trust_env=False, timeout=60)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with temporary_home() as home:
        # As a first start leaves it that died before the database had the token.
        home.make()
        home.owner_file.write_text(f"BULKHEAD_API_TOKEN={CUT_SHORT}\n")
        stack = Stack(home, NO_SETTINGS, durable=False)
        owner = stack.up()
        assert owner is not None
        yield Running(stack, owner)


@pytest.fixture(autouse=True)
def unchanged_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no edit of the sources, made during the tests, restart anything."""
    monkeypatch.setattr(stack_module, "code_changed_at", lambda: 0.0)


def pids(stack: Stack) -> dict[str, int | None]:
    return {component.component: component.pid for component in status_of(stack)}


def wrong(stack: Stack) -> list[ComponentStatus]:
    return [component for component in status_of(stack) if not component.is_right]


def wait_until_right(stack: Stack, seconds: float = HEALED_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if not wrong(stack):
                return
        except BulkheadError:
            # While supervisord is away nobody answers.
            pass
        time.sleep(0.1)
    pytest.fail(f"not healed within {seconds} s: {wrong(stack)}")


def programs_of(supervisor: Supervisor) -> list[str]:
    """Name, from the kernel's point of view, every program that runs under a supervisord."""
    server = f"SUPERVISOR_SERVER_URL=unix://{supervisor.files.socket}".encode()
    names = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            variables = (directory / "environ").read_bytes().split(b"\0")
            parent = (directory / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if server in variables and int(parent) == supervisor.pid:
            names += [
                variable.decode().partition("=")[2]
                for variable in variables
                if variable.startswith(b"SUPERVISOR_PROCESS_NAME=")
            ]
    return sorted(names)


def content_of(path: Path) -> bytes:
    # What runs removes some of its files meanwhile.
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return b""


def start_workflow(stack: Stack, workflow_id: str) -> None:
    address = f"http://127.0.0.1:{stack.ports.temporal_http}/api/v1/namespaces/default/workflows"
    body = {"workflowType": {"name": "Nobody"}, "taskQueue": {"name": "nobody"}}
    url = f"{address}/{workflow_id}"
    httpx.post(url, json=body, trust_env=False, timeout=60).raise_for_status()


def find_workflow(stack: Stack, workflow_id: str) -> Mapping[str, object]:
    address = f"http://127.0.0.1:{stack.ports.temporal_http}/api/v1/namespaces/default/workflows"
    response = httpx.get(f"{address}/{workflow_id}", trust_env=False, timeout=60)
    found: dict[str, object] = response.raise_for_status().json()
    return found


def test_a_second_up_is_quick_and_touches_nothing(running: Running) -> None:
    before = pids(running.stack)
    began = time.monotonic()
    owner = Stack(running.stack.home, NO_SETTINGS, durable=False).up()
    assert time.monotonic() - began < QUICK_SECONDS
    assert owner == Owner(token=running.owner.token, is_new=False)
    assert pids(running.stack) == before


def test_an_up_after_a_change_of_code_replaces_our_processes_and_no_server(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pids(running.stack)
    monkeypatch.setattr(stack_module, "code_changed_at", time.time)
    time.sleep(1)
    running.stack.up()
    after = pids(running.stack)
    assert {name for name in before if before[name] != after[name]} == {Part.API, Part.WORKER}


def test_the_token_of_a_first_start_that_was_cut_short_becomes_valid(running: Running) -> None:
    assert running.owner == Owner(token=CUT_SHORT, is_new=True)
    assert running.get("/v1/workspaces").status_code == httpx.codes.OK


def test_down_and_up_keep_rows_workflows_secrets_token_and_ports(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = running.stack
    workspaces = running.get("/v1/workspaces").raise_for_status().json()["data"]
    start_workflow(stack, "kept")
    authority = stack.home.ca_file.read_bytes()
    owner_file = stack.home.owner_file.read_bytes()
    ports = stack.ports

    stack.down()
    stack.down()
    assert all(component.pid is None for component in status_of(stack))
    monkeypatch.setenv("BULKHEAD_HOME", str(stack.home.directory))
    # It is no failure: somebody stopped it.
    assert main(["status"]) == 3
    stack.home.ca_file.unlink()
    again = Stack(stack.home, NO_SETTINGS, durable=False)
    owner = again.up()

    assert owner == Owner(token=running.owner.token, is_new=False)
    assert again.ports == ports
    assert stack.home.owner_file.read_bytes() == owner_file
    # A store that had been made anew would have another root.
    assert stack.home.ca_file.read_bytes() == authority
    assert running.get("/v1/workspaces").raise_for_status().json()["data"] == workspaces
    assert "kept" in json.dumps(find_workflow(stack, "kept"))


@pytest.mark.full
def test_a_restore_of_the_whole_stack_comes_up_with_the_same_token(
    running: Running, tmp_path: Path
) -> None:
    stack = running.stack
    workspaces = running.get("/v1/workspaces").raise_for_status().json()["data"]
    start_workflow(stack, "of-another-time")
    back_up(stack, tmp_path / "archive", seal_key_to=None)
    restore(stack, tmp_path / "archive", seal_key=None)
    assert pids(stack)[Part.API] is None
    owner = stack.up()
    assert owner == Owner(token=running.owner.token, is_new=False)
    wait_until_right(stack)
    assert running.get("/v1/workspaces").raise_for_status().json()["data"] == workspaces
    with pytest.raises(httpx.HTTPStatusError):
        find_workflow(stack, "of-another-time")


@pytest.mark.parametrize(
    "component",
    [SUPERVISOR, KEEPER, *(part for part in Part if part not in FOR_NODES)],
)
def test_a_killed_process_comes_back_once_with_all_that_died_with_it(
    running: Running, component: str
) -> None:
    stack = running.stack
    wait_until_right(stack)
    programs = programs_of(stack.supervisor)
    assert programs == sorted([KEEPER, AUDIT_LOGS, *stack.servers()])
    if component == KEEPER:
        pid = stack.supervisor.state(KEEPER)[KEEPER].pid
    else:
        pid = pids(stack)[component]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + HEALED_SECONDS
    # Before that, nobody may have noticed, and all still look right. Of supervisord nobody but the
    # machine's first process takes leave, in its own time.
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    wait_until_right(stack, deadline - time.monotonic())
    assert programs_of(stack.supervisor) == programs
    assert running.get("/v1/workspaces").status_code == httpx.codes.OK


def test_status_names_what_is_broken_and_fails(
    running: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = running.stack
    monkeypatch.setenv("BULKHEAD_HOME", str(stack.home.directory))
    wait_until_right(stack)
    assert main(["status"]) == 0
    capsys.readouterr()
    stack.supervisor.stop(Part.TEMPORAL, Part.TEMPORAL)
    try:
        assert main(["status", "--json"]) == 1
    finally:
        stack.up()
    found = {entry["component"]: entry for entry in json.loads(capsys.readouterr().out)}
    # No server can join this stack, so that it has nothing for them.
    assert found.keys() == {SUPERVISOR, *Part} - FOR_NODES
    assert found[Part.TEMPORAL]["state"] == "stopped"
    assert "log" in found[Part.TEMPORAL]["problem"]
    assert found[Part.POSTGRESQL]["problem"] == ""
    assert found[Part.POSTGRESQL]["memory_bytes"] > 0


def test_the_owner_token_is_in_its_private_file_and_nowhere_else(running: Running) -> None:
    home = running.stack.home
    token = running.owner.token.encode()
    assert stat.S_IMODE(home.owner_file.stat().st_mode) == 0o600
    content = dict(line.split("=", 1) for line in home.owner_file.read_text().splitlines())
    assert content == {
        "BULKHEAD_API_URL": running.stack.api.address,
        "BULKHEAD_API_TOKEN": running.owner.token,
        "BULKHEAD_CA_FILE": str(home.ca_file),
    }
    files = [path for path in home.directory.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in files if token in content_of(path)] == [home.owner_file]
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                assert token not in (process / name).read_bytes()
            except OSError:
                continue


def test_what_is_secret_is_in_private_files_and_in_no_argument_or_environment(
    running: Running,
) -> None:
    home = running.stack.home
    secrets = [*home.passwords.iterdir(), *home.openbao.glob("*.key")]
    assert len(secrets) >= 5 + 4
    values = [path.read_bytes().strip() for path in secrets]
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                found = (process / name).read_bytes()
            except OSError:
                continue
            assert not any(value in found for value in values)


def test_a_lost_owner_file_is_written_again_with_a_token_that_works(running: Running) -> None:
    stack = running.stack
    kept = stack.home.owner_file.read_bytes()
    stack.home.owner_file.unlink()
    try:
        owner = stack.up()
        assert owner is not None
        assert owner.is_new
        assert owner.token != running.owner.token
        for known in (owner, running.owner):
            assert Running(stack, known).get("/v1/workspaces").status_code == httpx.codes.OK
    finally:
        stack.home.owner_file.write_bytes(kept)


def test_two_stacks_run_side_by_side_and_a_third_one_spares_those_that_are_down(
    running: Running,
) -> None:
    with temporary_home() as second, temporary_home() as third:
        stack = Stack(second, NO_SETTINGS, durable=False)
        stack.up(SERVERS)
        wait_until_right(running.stack)
        stack.down()
        another = Stack(third, NO_SETTINGS, durable=False)
        another.up({Part.TEMPORAL})
        ports = [found.ports for found in (running.stack, stack, another)]
    own = [set(range(found.api, found.control_planes + 8 * 100)) for found in ports]
    assert not own[0] & own[1]
    assert not own[0] & own[2]
    assert not own[1] & own[2]
    users = [set(range(found.first_uid, found.first_uid + 100)) for found in ports]
    assert not users[0] & users[1] & users[2]


def test_a_stack_whose_home_was_removed_is_ended_by_the_next_up_and_a_purge_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with temporary_home() as home:
        monkeypatch.setenv("BULKHEAD_HOME", str(home.directory))
        Stack(home, NO_SETTINGS, durable=False).up({Part.TEMPORAL})
        shutil.rmtree(home.directory)
        assert main(["status"]) == 1
        assert "directory was removed still run" in capsys.readouterr().out
        again = Stack(home, NO_SETTINGS, durable=False)
        again.up({Part.TEMPORAL})
        assert again.lost() == []
        assert programs_of(again.supervisor) == sorted([KEEPER, Part.TEMPORAL])

        other = home.directory / "not-ours"
        other.touch()
        assert main(["purge", "--yes"]) == 0
        # Without its files, one that had not ended would be lost.
        assert again.lost() == []
        assert list(home.directory.iterdir()) == [other]


def test_an_openbao_that_dies_in_its_first_start_is_set_up_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed: list[int] = []
    original = Supervisor.state

    def state(self: Supervisor, group: str) -> Mapping[str, object]:
        found = original(self, group)
        store = self.files.directory.parent / "openbao" / "raft" / "raft"
        process = found.get(Part.OPENBAO)
        if not killed and process and process.pid and store.exists():
            killed.append(process.pid)
            os.kill(process.pid, signal.SIGKILL)
        return found

    with temporary_home() as home:
        stack = Stack(home, NO_SETTINGS, durable=False)
        monkeypatch.setattr(Supervisor, "state", state)
        stack.up({Part.OPENBAO})
        assert killed
        assert b"BEGIN CERTIFICATE" in home.ca_file.read_bytes()


def test_a_failed_up_says_which_part_why_and_what_to_do() -> None:
    with temporary_home() as home, socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        port = squatter.getsockname()[1]
        settings = EmbeddedSettings.model_construct(postgresql_port=port)
        with pytest.raises(PartFailedError) as caught:
            Stack(home, settings, durable=False).up({Part.POSTGRESQL})
        assert caught.value.part is Part.POSTGRESQL
        assert f"Port {port} is taken" in caught.value.message
        assert "BULKHEAD_POSTGRESQL_PORT" in caught.value.message
        assert "Address already in use" in "\n".join(caught.value.log_tail())


def test_a_home_that_other_users_cannot_reach_is_told_apart() -> None:
    with tempfile.TemporaryDirectory() as private:
        Path(private).chmod(0o700)
        assert not is_open_to_others(Path(private, "below"))
        Path(private).chmod(0o711)
        assert is_open_to_others(Path(private, "below"))
        assert Home(Path(private)).owner_file.name == "owner.env"
